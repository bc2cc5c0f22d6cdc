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
# Begins the names of what is not yet complete (publishers and the mirror of a store write there),
# and of what Kubernetes, git and most tools keep for themselves. No model's name begins with it.
_HIDDEN = "."
_NO_MODEL = (
    "this is not a model's name, which has letters, digits, '.', '_' and '-' only, at most 128, "
    "and begins with a letter or a digit"
)
_NO_VERSION = "this is not a version, which is a number from 1 on, without zeros before it"

# Of a version folder; it changes whenever a file in the folder does.
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
    """Models and their version folders, by name; what is ignored is logged, with the reason.

    A folder is ignored only if no model can have its name: `tmp-speech` and `resnet.bak` are models
    like any other. `quiet`: it is logged for debugging only, as the watch looks every few seconds.
    """
    for folder in sorted(root.iterdir()):
        if not folder.is_dir():
            continue
        if not NAME.fullmatch(folder.name):
            _passed_over(folder.name, _NO_MODEL, logging.DEBUG if quiet else logging.WARNING)
            continue
        try:
            inside = sorted(folder.iterdir())
        except OSError as error:
            level = logging.DEBUG if quiet else logging.ERROR
            logger.log(level, "folder %r cannot be read: %s", folder.name, error.strerror)
            inside = []
        versions = {}
        for inner in inside:
            if not inner.is_dir():
                continue  # files beside the versions are usual: labels, a README
            if VERSION.fullmatch(inner.name):
                versions[int(inner.name)] = inner
            else:
                path = f"{folder.name}/{inner.name}"
                _passed_over(path, _NO_VERSION, logging.DEBUG if quiet else logging.INFO)
        yield folder.name, versions


def _passed_over(path: str, why: str, level: int) -> None:
    if path.rpartition("/")[2].startswith(_HIDDEN):
        level, why = min(level, logging.INFO), "it is hidden"
    logger.log(level, "folder %r is ignored: %s", path, why)
