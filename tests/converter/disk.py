"""What is flushed to the disk and what is moved there, in order."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


def watched(monkeypatch: pytest.MonkeyPatch, move: str) -> list[tuple[str, Path]]:
    """A list that grows by `("fsync", path)` and `(move, target)` as they happen. Linux only.

    Args:
        monkeypatch: of the test.
        move: how a path takes its place, "rename" or "replace".
    """
    seen: list[tuple[str, Path]] = []
    real_sync, real_move = os.fsync, getattr(Path, move)

    def sync(descriptor: int) -> None:
        seen.append(("fsync", Path(f"/proc/self/fd/{descriptor}").readlink()))
        real_sync(descriptor)

    def moved(self: Path, target: Path) -> Path:
        seen.append((move, target))
        made: Path = real_move(self, target)
        return made

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(Path, move, moved)
    return seen
