"""The repository on disk and what of it is served.

    models/<name>/<version>/    name as in the manifest, version a whole number from 1

Which versions of a model are served is a matter of its policy (policy.py): by default
the latest good one. Versions are tried from the highest down; one is good if it loads, hashes,
warms up and passes its self-test. Why the others did not is kept, and shown by GET /models.
Anything else in the folders is left alone.

`reload` looks again, in this order for each version that is new or has changed:

    load -> sha256 -> warm-up -> self-test -> swap -> drain

The old version serves until the new one is ready, and if that never gets ready, for ever. It is
not closed by the swap: those who have found it finish with it, and the last one to let go of it
ends its threads. So no request fails because of a reload.
"""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from service.device import DeviceUnavailable
from service.errors import (
    ModelLoading,
    ModelNotChosen,
    ModelUnavailable,
    NotWithWorkers,
    UnknownModel,
    UnknownVersion,
)
from service.models import policy as policies
from service.models.bundle import Rejected
from service.models.folders import VERSION, Fingerprint, fingerprint, scan
from service.models.heap import give_back
from service.models.model import ServedModel
from service.models.policy import Policy
from service.signature import listing

logger = logging.getLogger("foldserve.registry")


Loader = Callable[[Path, str, int], ServedModel]

# Of each model the versions that are served, and those that were rejected.
Verdicts = Mapping[str, tuple[frozenset[int], frozenset[int]]]


class StoreMirror(Protocol):
    """Whoever keeps the repository in step with a store: service/store/mirror.py."""

    address: str
    trouble: str | None  # why the store cannot be read now

    def refresh(self, verdicts: Verdicts | None = None, again: str | None = None) -> bool:
        """Whether something in the repository has changed. `again`: a model to try anew."""


@dataclass(slots=True)
class Entry:
    """A model of the repository: the versions served, and why others are not.

    Never changed once it is in `Registry.entries`: a reload puts a new one in its place.
    """

    name: str
    versions: dict[int, ServedModel] = field(default_factory=dict)  # served, highest first
    rejected: dict[int, str] = field(default_factory=dict)  # version -> reason, highest first
    older: list[int] = field(default_factory=list)  # not wanted: higher versions serve
    unloaded: bool = False  # by request; only another request brings it back
    seen: dict[int, Fingerprint] = field(default_factory=dict)  # of the versions tried

    @property
    def served(self) -> ServedModel | None:
        """The version for requests that name none: the highest one served."""
        return next(iter(self.versions.values()), None)

    @property
    def trouble(self) -> str:
        if self.unloaded:
            return "it was unloaded"
        reasons = "; ".join(f"version {v}: {why}" for v, why in self.rejected.items())
        return reasons or "it has no version folder"


class Registry:
    """What this process serves. Changed by one thread at a time, read from any.

    Args:
        root: the repository.
        loader: makes a ServedModel of a version folder, or raises Rejected.
        default_model: the model of POST /predict, None for "the only one".
        policy: which versions are served of models that do not say so themselves.
        alone: False if other processes serve the same repository on the same port.
        mirror: brings `root` up to date with a store before it is looked at.
    """

    def __init__(
        self,
        root: Path,
        loader: Loader,
        default_model: str | None = None,
        policy: Policy | None = None,
        *,
        alone: bool = True,
        mirror: StoreMirror | None = None,
    ) -> None:
        self._root = root
        self._load_version = loader
        self.default_model = default_model
        self._policy = policy or Policy()
        self._alone = alone
        self.mirror = mirror
        self.entries: dict[str, Entry] = {}
        self.loading = True
        self.changes = 0  # counts what readers may have cached, such as the OpenAPI document
        self._one_at_a_time = threading.Lock()
        self._known: list[weakref.ref[ServedModel]] = []  # all that may still have threads
        self._stopped = threading.Event()
        self._seen: object = None  # what `load` found, for `watch`

    def load(self) -> None:
        """Load every model of the repository for the first time.

        Raises:
            DeviceUnavailable: CUDA was required and did not start.
        """
        self._refresh()
        self._seen = self._snapshot()
        try:
            self.reload()
            # A store has older versions to fall back on, if those that came do not work.
            while any(not each.versions for each in self.entries.values()) and self._refresh():
                self._seen = self._snapshot()
                self.reload()
        finally:
            self.loading = False

    def reload(self, name: str | None = None) -> list[str]:
        """Look at the repository again, and serve what is new there. Blocks while it loads.

        Args:
            name: only this model, which is brought back if it was unloaded, and of which the
                rejected versions are tried again; None for all models, of which only the
                versions are tried whose files have changed.

        Returns:
            The names of the models of which something changed.

        Raises:
            UnknownModel: the repository has no folder for `name`.
            DeviceUnavailable: as `load`, and only during it.
        """
        with self._one_at_a_time:
            if name is not None:
                self._refresh(name)
            changed = []
            found = dict(scan(self._root))
            if name is not None and name not in found:
                raise UnknownModel(f"The repository has no folder for model {name[:128]!r}.")
            for each in [name] if name is not None else sorted({*found, *self.entries}):
                before = self.entries.get(each)
                if each not in found:
                    logger.info("model %s is gone from the repository", each)
                    self._put(each, None)
                    changed.append(each)
                    continue
                if before and before.unloaded and name is None:
                    continue
                after = self._look_again(each, found[each], before, again=name is not None)
                if after != before:
                    self._put(each, after)
                    changed.append(each)
            return changed

    def unload(self, name: str) -> None:
        """Serve no version of a model until `reload(name)`; requests under way are finished.

        Raises:
            UnknownModel: there is none of that name.
            NotWithWorkers: other processes would serve it on.
        """
        with self._one_at_a_time:
            self.entry(name)
            if not self._alone:
                raise NotWithWorkers("One of several workers cannot unload a model for all.")
            self._put(name, Entry(name, unloaded=True))

    def watch(self, interval_s: float) -> None:
        """`reload` when the repository has changed, until `close`; for a thread of its own.

        A change is acted upon when it is an interval old and nothing has been written since, so
        that a version which is still being copied is left alone.
        """
        before = self._seen
        drained = True  # whatever the last change has replaced
        while not self._stopped.wait(interval_s):
            if not drained and not self._replaced():
                drained = True
                give_back()
            # What a mirror puts there is whole at once.
            settled = self._refresh()
            now = self._snapshot()
            if now is None:
                continue
            if now != self._seen and (settled or now == before):
                self._seen = now
                try:
                    self.reload()
                    drained = False
                except Exception:  # what is served is served on
                    logger.exception("the repository could not be read again")
            before = now

    def _refresh(self, again: str | None = None) -> bool:
        """Whether the mirror has changed something; False without one."""
        if self.mirror is None:
            return False
        verdicts = {
            name: (frozenset(each.versions), frozenset(each.rejected))
            for name, each in self.entries.items()
        }
        try:
            return self.mirror.refresh(verdicts, again)
        except Exception:  # what was fetched is served on
            logger.exception("the model store could not be looked at")
            return False

    def _replaced(self) -> list[weakref.ref[ServedModel]]:
        """Those that have threads still, and are served no longer."""
        serving = {id(model) for model in self.every_version()}
        return [ref for ref in self._known if (model := ref()) and id(model) not in serving]

    def served(self) -> list[ServedModel]:
        """The models that can answer, by name, each in the version for requests that name none."""
        return [entry.served for entry in self.entries.values() if entry.served]

    def every_version(self) -> list[ServedModel]:
        """All versions of all models that can answer."""
        return [model for entry in self.entries.values() for model in entry.versions.values()]

    def find(self, name: str | None, version: str | None = None) -> ServedModel:
        """The model for a request.

        Args:
            name: None for the default model.
            version: as in the path, None for the one that is served.

        Raises:
            ModelNotChosen, UnknownModel, UnknownVersion, ModelUnavailable, ModelLoading.
        """
        entry = self.entry(name or self._default_name())
        if not entry.versions:
            raise ModelUnavailable(f"No version of model {entry.name!r} works: {entry.trouble}.")
        if version is None:
            return next(iter(entry.versions.values()))
        number = int(version) if VERSION.fullmatch(version) else 0
        if number not in entry.versions:
            known = entry.rejected.get(number)
            served = ", ".join(map(str, entry.versions))
            raise UnknownVersion(
                f"Model {entry.name!r} is served in version {served}, "
                f"not in {version[:20]!r}{': ' + known if known else ''}."
            )
        return entry.versions[number]

    def entry(self, name: str) -> Entry:
        """Raises UnknownModel, or ModelLoading while it may still come."""
        try:
            return self.entries[name]
        except KeyError:
            if self.loading:
                raise _still_loading() from None
            raise UnknownModel(
                f"There is no model {name[:128]!r}; there is {listing(sorted(self.entries))}."
            ) from None

    def close(self, timeout_s: float) -> bool:
        """Stop the watch and every owner, of versions that are being drained as well.

        Returns:
            False if one of them is still running after `timeout_s`.
        """
        self._stopped.set()
        alive = [model for ref in self._known if (model := ref()) is not None]
        for model in alive:
            model.batcher.retire()
        stopped = [model.batcher.close(timeout_s) for model in alive]
        return all(stopped)

    def _default_name(self) -> str:
        if self.default_model is not None:
            return self.default_model
        # The choice is open until all are known: the same request must not change its meaning.
        if self.loading:
            raise _still_loading()
        if not self.entries:
            raise ModelUnavailable(
                "The repository has no model.",
                hint="Put a model into models/<name>/<version>/ and restart the server.",
            )
        if len(self.entries) > 1:
            raise ModelNotChosen(f"There are several models: {listing(sorted(self.entries))}.")
        return next(iter(self.entries))

    def _put(self, name: str, entry: Entry | None) -> None:
        """Swap. A new dict each time: readers iterate over the old one undisturbed."""
        entries = {key: each for key, each in self.entries.items() if key != name}
        if entry is not None:
            entries[name] = entry
        self.entries = dict(sorted(entries.items()))
        self.changes += 1
        self._known = [ref for ref in self._known if ref() is not None]

    def _look_again(
        self, name: str, folders: dict[int, Path], before: Entry | None, *, again: bool
    ) -> Entry:
        """The entry as it should be now; what has not changed on disk is taken over.

        Args:
            before: what is served now.
            again: try also what was rejected and has not changed.
        """
        before = before or Entry(name)
        after = Entry(name)
        policy = policies.of_model(folders, self._policy)
        for version in policy.missing(folders):
            after.rejected[version] = "the version policy asks for it, and it is not there"
        for version in policy.candidates(folders):
            if policy.wanted is not None and len(after.versions) >= policy.wanted:
                after.older.append(version)
                continue
            prints = fingerprint(folders[version])
            serving = before.versions.get(version)
            reason = before.rejected.get(version)
            same = before.seen.get(version) == prints
            if not same or (serving is None and (reason is None or again)):
                serving, reason = self._try(folders[version], name, version, serving)
            after.seen[version] = prints
            if serving is not None:
                after.versions[version] = serving
            if reason is not None:
                after.rejected[version] = reason
        after.older += [
            v for v in sorted(folders, reverse=True) if policy.only and v not in policy.only
        ]
        return after

    def _try(
        self, folder: Path, name: str, version: int, serving: ServedModel | None
    ) -> tuple[ServedModel | None, str | None]:
        """Load a version: it, or the one that is `serving` on and the reason."""
        try:
            served = self._load_version(folder, name, version)
        except Rejected as rejection:
            reason = str(rejection)
            logger.error("model %s version %d is not served: %s", name, version, reason)
        except DeviceUnavailable as error:
            if self.loading:
                raise
            reason = str(error)
            logger.error("model %s version %d is not served: %s", name, version, reason)
        except Exception as error:  # one odd folder must not keep the others from loading
            reason = f"unexpected {type(error).__name__}, see the log"
            logger.exception("model %s version %d could not be loaded", name, version)
        else:
            self._known.append(weakref.ref(served))
            if not self.loading:
                logger.info("model %s version %d is served from now on", name, version)
            return served, None
        if serving is not None:
            reason += " (its files were changed; as it was loaded before, it serves on)"
        return serving, reason

    def _snapshot(self) -> object:
        """What the repository looks like; None when it cannot be read, which is no change."""
        try:
            return [
                (name, [(version, fingerprint(path)) for version, path in sorted(folders.items())])
                for name, folders in scan(self._root, quiet=True)
            ]
        except OSError as error:
            logger.error("the models folder cannot be read: %s", error.strerror)
            return None


def _still_loading() -> ModelLoading:
    return ModelLoading("The server is still loading its models.", retry_after_s=1)
