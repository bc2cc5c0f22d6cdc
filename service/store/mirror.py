"""Keep a folder in step with a remote model repository.

The remote side is `<address>/<name>/<version>/` with a `model.json` that was written last
(`converter fold --publish`), so a version without one is still on its way. Of each model come
the versions that its policy serves and one more to fall back on; what this process serves stays,
whatever the store has, as long as the store still has it.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from pathlib import Path

from service.models import policy as policies
from service.models.bundle import Rejected
from service.models.policy import Policy
from service.models.repository import Verdicts
from service.models.signed import Trust
from service.store.access import Missing, Store, StoreError, Versions
from service.store.cache import Cache
from service.store.download import download, parse, signature_of

logger = logging.getLogger("foldserve.store")

# After a version that could not be fetched, the time until it is tried again; then twice that.
_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 300.0

_NONE: tuple[frozenset[int], frozenset[int]] = (frozenset(), frozenset())


@dataclass(slots=True)
class _Failure:
    mark: str | None
    reason: str
    count: int = 0
    due: float = 0.0


@dataclass(slots=True)
class _Pass:
    """One refresh: what the store has, what the service thinks, what came of it."""

    found: Versions
    verdicts: Verdicts
    again: str | None
    changed: bool = False
    needed: set[tuple[str, int]] = field(default_factory=set)


class Mirror:
    """The local side of a remote repository.

    Args:
        folder: the local one, created if need be; several processes may share it.
        wanted: which versions are fetched of models that do not say so themselves.
        max_bytes: size of all that is kept in the folder.
        trust: whose signature a version must have before any of it is fetched, None for no matter
            whose or none.

    Raises:
        OSError: the folder cannot be created or written.
    """

    def __init__(
        self,
        store: Store,
        folder: Path,
        wanted: Policy | None = None,
        max_bytes: int = 2**36,
        trust: Trust | None = None,
    ) -> None:
        self._store = store
        self._trust = trust
        self._cache = Cache(folder)
        self._wanted = wanted or Policy()
        self._max_bytes = max_bytes
        self._marks: dict[tuple[str, int], str] = {}  # of the manifests that were fetched
        self._failures: dict[tuple[str, int], _Failure] = {}
        self.folder = folder
        self.address = store.address
        self.trouble: str | None = None  # why the store cannot be read now

    def reach(self) -> None:
        """Ask the store for its list once, before anything depends on it.

        Raises:
            StoreError: it cannot be read, and nothing was fetched before.
        """
        try:
            self._store.versions()
        except StoreError as error:
            if not any(self._cache.manifest(*key) for key in self._cache.versions()):
                raise
            self._away(str(error))

    def refresh(self, verdicts: Verdicts | None = None, again: str | None = None) -> bool:
        """Fetch what is new and remove what is gone. What cannot be fetched is logged and tried
        again later; what is served is never worse for it.

        Args:
            verdicts: of the service, by model.
            again: a model of which what failed is tried again at once.

        Returns:
            Whether something in the folder has changed.
        """
        run = _Pass({}, verdicts or {}, again)
        try:
            with self._cache.alone():
                self._refresh(run)
        except OSError as error:
            self._away(f"the model cache cannot be used: {error.strerror or error}")
        return run.changed

    def _refresh(self, run: _Pass) -> None:
        here = self._cache.versions()
        try:
            run.found = self._store.versions()
            if not run.found and any(self._cache.manifest(*key) for key in here):
                raise StoreError("it lists no model at all")
        except StoreError as error:
            self._away(str(error))
            for key in here:
                self._cache.lease(*key)
            return
        if self.trouble:
            logger.warning("the model store can be read again")
            self.trouble = None
        for name in sorted(run.found):
            self._refresh_model(run, name)
        for name, (served, _) in run.verdicts.items():
            run.needed |= {(name, version) for version in served}
        for key in self._cache.versions():
            if key[1] not in run.found.get(key[0], {}):
                logger.info("%s/%d is gone from the store", *key)
            elif key in run.needed:
                self._cache.lease(*key)
                continue
            elif self._cache.leased(*key):
                continue
            self._cache.remove(*key)
            run.changed = True

    def _away(self, reason: str) -> None:
        if reason != self.trouble:
            logger.error(
                "the model store %s cannot be read: %s; what was fetched is served on",
                self.address, reason,
            )  # fmt: skip
        self.trouble = reason

    def _refresh_model(self, run: _Pass, name: str) -> None:
        remote = run.found[name]
        rejected = run.verdicts.get(name, _NONE)[1]
        # The highest version first, and always: its manifest may say which others are wanted.
        fetched: dict[int, bool] = {}
        for version in sorted(remote, reverse=True):
            fetched[version] = self._fetch(run, name, version)
            run.needed.add((name, version))
            if self._trust is None or fetched[version]:
                break  # otherwise it is not signed, and has no say
        here = {version: self._cache.path(name, version) for version in fetched}
        wanted = policies.of_model(name, here, self._wanted, self._trust)
        good = 0
        for version in wanted.candidates(remote):
            if wanted.wanted is not None and good > wanted.wanted:
                break  # one more than is served, to fall back on
            if version not in fetched:
                fetched[version] = self._fetch(run, name, version)
            good += fetched[version] and version not in rejected
            run.needed.add((name, version))

    def _fetch(self, run: _Pass, name: str, version: int) -> bool:
        """Whether the version is here and whole, now or since before."""
        key, mark = (name, version), run.found[name][version]
        kept = self._cache.manifest(name, version)
        doubted = version in run.verdicts.get(name, _NONE)[1]
        if kept is not None and doubted and not self._cache.sound(name, version, self._trust):
            kept = None  # spoilt here, so it comes again
        if kept is not None and mark is not None and self._marks.get(key) == mark:
            return True
        failed = self._failures.get(key)
        if failed and failed.mark == mark and run.again != name and time.monotonic() < failed.due:
            return kept is not None
        try:
            text = self._store.manifest(name, version)
            if text != kept:
                self._download(name, version, text)
                run.changed = True
                logger.info("%s/%d was fetched", name, version)
        except Missing:
            return kept is not None  # gone since it was listed
        except (StoreError, Rejected, OSError) as error:
            self._failed(run, key, mark, error, kept is not None)
            return kept is not None
        if mark is not None:
            self._marks[key] = mark
        self._failures.pop(key, None)
        return True

    def _download(self, name: str, version: int, text: bytes) -> None:
        # Stores without a word of what they lack answer oddly, so nothing is asked for in vain.
        signature = signature_of(self._store, name, version) if self._trust else None
        manifest = parse(text, name, version, signature, self._trust)
        size = sum(entry.bytes for entry in manifest.files.values())
        size += len(text) + len(signature or b"")
        room = self._max_bytes - self._cache.size_bytes()
        if size > room:
            raise Rejected(
                f"it has {size} bytes, and --max-model-cache-bytes leaves room for {max(room, 0)}"
            )
        with self._cache.staged(name, version) as stage:
            download(self._store, manifest, text, stage, signature)

    def _failed(
        self, run: _Pass, key: tuple[str, int], mark: str | None, error: Exception, kept: bool
    ) -> None:
        reason = f"{error.strerror or error}" if isinstance(error, OSError) else str(error)
        before = self._failures.get(key)
        if before is None or before.reason != reason:
            logger.error("%s/%d was not fetched: %s", *key, reason)
        count = before.count + 1 if before and before.mark == mark else 0
        pause = min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2**count)
        self._failures[key] = _Failure(mark, reason, count, time.monotonic() + pause)
        if not kept:
            run.changed |= self._cache.note(*key, reason)
