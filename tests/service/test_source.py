"""Where the models come from: what is said of a folder that cannot be served."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from service import source
from service.listen import CannotStart
from service.settings_read import parse


def test_a_folder(tmp_path: Path) -> None:
    found = source.find(parse(["--models", str(tmp_path)], {}))
    assert found == (tmp_path, None, None)


def test_a_folder_that_cannot_be_listed_is_told_at_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever user the tests run as: root may list any folder."""

    def refuse(folder: Path) -> Iterator[Path]:
        raise PermissionError(13, "Permission denied", str(folder))

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(CannotStart) as caught:
        source.find(parse(["--models", str(tmp_path)], {}))
    assert str(caught.value) == (
        f"The models folder {str(tmp_path)!r} cannot be read: Permission denied. Let the user who "
        "runs the server list it."
    )
