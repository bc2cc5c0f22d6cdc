"""The folders of a repository: which are models and versions, and whether one has changed."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path

logger = logging.getLogger("foldserve.registry")

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
VERSION = re.compile(r"[1-9][0-9]{0,17}")
# Hidden folders, and what an upload or an editor leaves half done.
_LEFTOVER = re.compile(r"^[._~]|^te?mp([._-]|$)|(\.(te?mp|part|partial|bak|swp)|~)$")

# What a version folder looks like from outside; it changes whenever a file in it does.
Fingerprint = tuple[tuple[str, int, int, int], ...]


def fingerprint(folder: Path) -> Fingerprint:
    """Name, size, time and inode of every file below `folder`, links followed."""
    found = []
    for path, _, files in os.walk(folder):
        for file in files:
            try:
                status = os.stat(os.path.join(path, file))  # noqa: PTH116, PTH118  called often
            except OSError:
                found.append((file, -1, 0, 0))
            else:
                found.append((file, status.st_size, status.st_mtime_ns, status.st_ino))
    return tuple(sorted(found))


def scan(root: Path, *, quiet: bool = False) -> Iterator[tuple[str, dict[int, Path]]]:
    """Models and their version folders, by name; stray files and odd names are passed over.

    `quiet`: do not log what is passed over.
    """
    for folder in sorted(root.iterdir()):
        if not folder.is_dir() or _LEFTOVER.search(folder.name):
            continue
        if not NAME.fullmatch(folder.name):
            level = logging.DEBUG if quiet else logging.WARNING
            logger.log(level, "folder %r is ignored: not a model's name", folder.name)
            continue
        try:
            inside = sorted(folder.iterdir())
        except OSError as error:
            logger.error("folder %r cannot be read: %s", folder.name, error.strerror)
            inside = []
        versions = {}
        for inner in inside:
            if VERSION.fullmatch(inner.name) and inner.is_dir():
                versions[int(inner.name)] = inner
            elif not _LEFTOVER.search(inner.name):
                # Files beside the versions are usual (labels, a README), folders are not.
                level = logging.INFO if inner.is_dir() and not quiet else logging.DEBUG
                logger.log(level, "%s/%s is ignored: not a version", folder.name, inner.name)
        yield folder.name, versions
