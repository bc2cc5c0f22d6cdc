"""A file is replaced by a rename that is on the disk when it returns, or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from converter.files.atomic import aside, sync_directory, write_bytes
from tests.converter.disk import watched

pytestmark = pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs /proc")


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Path]]:
    return watched(monkeypatch, "replace")


def test_content_then_rename_then_folder(tmp_path: Path, events: list[tuple[str, Path]]) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"before")
    write_bytes(path, b"after")
    assert path.read_bytes() == b"after"
    first, second, third = events
    assert first[0] == "fsync"
    assert str(first[1]).startswith(f"{tmp_path}/.file.")
    assert second == ("replace", path)
    assert third == ("fsync", tmp_path), "without it a power cut undoes the rename"


def test_a_folder_is_flushed_itself(tmp_path: Path, events: list[tuple[str, Path]]) -> None:
    before = len([*Path("/proc/self/fd").iterdir()])
    sync_directory(tmp_path)
    assert events == [("fsync", tmp_path)]
    assert len([*Path("/proc/self/fd").iterdir()]) == before


def test_a_failure_leaves_what_was_there(tmp_path: Path, events: list[tuple[str, Path]]) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"before")

    def fail() -> None:
        with aside(path) as temporary:
            temporary.write_bytes(b"half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]
    assert path.read_bytes() == b"before"
    assert events == []
