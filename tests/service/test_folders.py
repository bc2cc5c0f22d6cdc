"""The folders of a repository, looked at again and again."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from service.models.bundle import Rejected
from service.models.folders import scan
from service.models.registry import Registry


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


def test_a_repository_that_goes_before_it_is_loaded_is_told_and_looked_at_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As a volume that is unmounted while the server starts: it may come back."""
    tried: list[str] = []

    def load(folder: Path, name: str, version: int) -> NoReturn:
        tried.append(name)
        raise Rejected("it is none")

    registry = Registry(tmp_path / "models", load)
    registry.load()
    assert not registry.loading
    assert registry.entries == {}
    assert "the models folder cannot be read: No such file or directory" in caplog.text
    watch = threading.Thread(target=registry.watch, args=(0.01,))
    watch.start()
    try:
        time.sleep(0.2)  # in which it looks many times
        (tmp_path / "models" / "m" / "1").mkdir(parents=True)
        end = time.monotonic() + 30
        while not tried and time.monotonic() < end:
            time.sleep(0.01)
    finally:
        registry.close(1.0)
        watch.join()
    assert tried == ["m"]
    assert caplog.text.count("cannot be read") == 1
