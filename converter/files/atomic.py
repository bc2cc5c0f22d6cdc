"""Files that exist completely or not at all: written aside, fsynced, renamed."""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

A_DAY = 24 * 3600.0


@contextmanager
def aside(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`, which replaces `path` when the block succeeds.

    The block writes and fsyncs the file; if the block raises, the file is removed.
    """
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    os.close(descriptor)
    temporary = Path(name)
    try:
        yield temporary
        # mkstemp makes files private; a result should be as readable as any other new file.
        temporary.chmod(0o666 & ~umask())
        temporary.replace(path)
        sync_directory(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes) -> None:
    """Replace `path` by `content`, atomically and durably."""
    with aside(path) as temporary, temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def sync_directory(path: Path) -> None:
    """Make a rename durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def stale(folder: Path, name: re.Pattern[str]) -> set[Path]:
    """Paths in `folder` with such a name that are more than a day old: left by a process that was
    killed, because none takes that long between its first byte and its last rename."""
    limit = time.time() - A_DAY
    found = set()
    for path in folder.iterdir():
        if name.fullmatch(path.name):
            with contextlib.suppress(OSError):  # removed meanwhile
                if path.lstat().st_mtime < limit:
                    found.add(path)
    return found


def umask() -> int:
    """The process's umask: the permissions that new files do not get."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
