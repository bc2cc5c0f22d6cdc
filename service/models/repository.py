"""The repository on disk: its folders, whether they have changed, and the store behind them."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sized
from pathlib import Path
from typing import Protocol

from service.models.entry import Entry
from service.models.folders import Fingerprint, fingerprint, scan
from service.signature import listing

logger = logging.getLogger("foldserve.registry")

# For each model the versions that are served, and those that were rejected.
Verdicts = Mapping[str, tuple[frozenset[int], frozenset[int]]]


# Each model with its versions and their fingerprints.
Snapshot = list[tuple[str, list[tuple[int, Fingerprint]]]]


class StoreMirror(Protocol):
    """What keeps the repository in step with a store: service/store/mirror.py."""

    address: str
    trouble: str | None  # why the store cannot be read now

    def refresh(self, verdicts: Verdicts | None = None, again: str | None = None) -> bool:
        """Whether something in the repository has changed. `again`: a model to try anew."""


class Repository:
    """The folders, and what keeps them in step with a store.

    `emptied`: the models that are served on though their folders had no version at the last look.

    Args:
        mirror: brings `root` up to date with a store before it is looked at.
    """

    def __init__(self, root: Path, mirror: StoreMirror | None) -> None:
        self.root = root
        self.mirror = mirror
        self.emptied: frozenset[str] = frozenset()
        self._unreadable = False  # which is said once

    def refresh(self, entries: Mapping[str, Entry], again: str | None = None) -> bool:
        """Whether the mirror has changed something; False without one.

        Args:
            again: a model to try anew.
        """
        if self.mirror is None:
            return False
        verdicts = {
            name: (frozenset(each.versions), frozenset(each.rejected))
            for name, each in entries.items()
        }
        try:
            return self.mirror.refresh(verdicts, again)
        except Exception:  # what was fetched is served on
            logger.exception("the model store could not be looked at")
            return False

    def snapshot(self) -> Snapshot | None:
        """Its present state, to be compared with a later one; None when it cannot be read."""
        try:
            found = [
                (name, [(version, fingerprint(path)) for version, path in sorted(folders.items())])
                for name, folders in scan(self.root, quiet=True)
            ]
        except OSError as error:
            if not self._unreadable:
                logger.error("the models folder cannot be read: %s", error.strerror)
            self._unreadable = True
            return None
        self._unreadable = False
        return found

    def look_for_emptied(
        self, entries: Mapping[str, Entry], found: Mapping[str, Sized]
    ) -> frozenset[str]:
        """`emptied` as it is now; what has changed of it is logged.

        Args:
            found: of each model whose folder is there, its versions.
        """
        lost = not any(map(len, found.values()))
        served = [entry.name for entry in entries.values() if entry.versions]
        now = frozenset(name for name in served if lost or (name in found and not found[name]))
        if now and now != self.emptied:
            logger.error(
                "%s no version any more (is a volume not mounted?): %s, served on from memory. To "
                "take a model away, remove its own folder or unload it.",
                "the models folder has" if lost else "these models' folders have",
                listing(sorted(now)),
            )
        if self.emptied - now:
            logger.warning("the folders have versions again: %s", listing(sorted(self.emptied)))
        self.emptied = now
        return now
