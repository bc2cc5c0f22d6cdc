"""The repository on disk: its folders, whether they have changed, and the store behind them."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from service.models.entry import Entry
from service.models.folders import Fingerprint, fingerprint, scan

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

    Args:
        root: of the models.
        mirror: brings `root` up to date with a store before it is looked at.
    """

    def __init__(self, root: Path, mirror: StoreMirror | None) -> None:
        self.root = root
        self.mirror = mirror

    def refresh(self, entries: Mapping[str, Entry], again: str | None = None) -> bool:
        """Whether the mirror has changed something; False without one.

        Args:
            entries: what is served, by name.
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
            return [
                (name, [(version, fingerprint(path)) for version, path in sorted(folders.items())])
                for name, folders in scan(self.root, quiet=True)
            ]
        except OSError as error:
            logger.error("the models folder cannot be read: %s", error.strerror)
            return None
