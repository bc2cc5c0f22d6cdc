"""The folders of a repository, looked at again and again."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.models.folders import scan


def test_a_folder_that_cannot_be_read_is_told_by_a_reload_and_not_by_each_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The watch looks every few seconds: a line each time would be all that the log holds."""
    (tmp_path / "shut").mkdir()
    (tmp_path / "open" / "1").mkdir(parents=True)
    listed = Path.iterdir

    def iterdir(folder: Path) -> Iterator[Path]:
        if folder.name == "shut":
            raise PermissionError(13, "Permission denied")
        return listed(folder)

    monkeypatch.setattr(Path, "iterdir", iterdir)
    expected = [("open", {1: tmp_path / "open" / "1"}), ("shut", {})]
    with caplog.at_level(logging.INFO):
        assert list(scan(tmp_path, quiet=True)) == expected
        assert caplog.records == []
        assert list(scan(tmp_path)) == expected
    (told,) = caplog.records
    assert told.levelno == logging.ERROR
    assert told.getMessage() == "folder 'shut' cannot be read: Permission denied"
