"""What of the repository on disk is served.

    models/<name>/<version>/    name as in the manifest, version a whole number from 1

Which versions of a model are served is a matter of its policy (policy.py): by default the latest
good one. Versions are tried from the highest down (trial.py); one is good if it loads, hashes,
warms up and passes its self-test. Why the others did not is kept, and shown by GET /models.
Anything else in the folders is left alone.

`reload` looks again, in this order for each version that is new or has changed:

    load -> sha256 -> warm-up -> self-test -> swap -> drain

The old version serves until the new one is ready; if that never happens, it goes on serving. The
swap does not close it: requests that have found it are finished by it, and its threads end with the
last reference to it. So no request fails because of a reload.

A model is no longer served when its folder is removed. A folder that exists and has no version any
more, of one model or of all, is more likely a volume that is not mounted: what was served is served
on, and this is logged.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path

from service.errors import (
    ModelLoading,
    ModelNotChosen,
    ModelUnavailable,
    NotWithWorkers,
    UnknownModel,
    UnknownVersion,
)
from service.models.entry import Entry
from service.models.folders import VERSION, scan
from service.models.heap import give_back
from service.models.model import ServedModel
from service.models.policy import Policy
from service.models.repository import Repository, StoreMirror
from service.models.signed import Trust
from service.models.trial import Loader, Trial
from service.signature import listing

logger = logging.getLogger("foldserve.registry")


class Registry:
    """What this process serves. Changed by one thread at a time, read from any.

    Args:
        default_model: the model of POST /predict, None for "the only one".
        policy: which versions are served of models that do not say so themselves.
        alone: False if other processes serve the same repository on the same port.
        mirror: brings `root` up to date with a store before it is looked at.
        trust: whose signature a version must have, which the loader asks for.
        failed: told of each version that came after the start and cannot be served.
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
        trust: Trust | None = None,
        failed: Callable[[], object] = lambda: None,
    ) -> None:
        self._repository = Repository(root, mirror)
        self._trial = Trial(loader, policy or Policy(), trust, failed)
        self.default_model = default_model
        self.alone = alone
        self.entries: dict[str, Entry] = {}
        self.loading = True
        self.changes = 0  # grows with each change: readers compare it with what they have cached
        self._one_at_a_time = threading.Lock()
        self._stopped = threading.Event()
        self._seen: object = None  # what `load` found, for `watch`

    @property
    def emptied(self) -> frozenset[str]:
        """The models that are served on though their folders are empty."""
        return self._repository.emptied

    @property
    def mirror(self) -> StoreMirror | None:
        """What keeps the repository in step with a store, if anything does."""
        return self._repository.mirror

    def load(self) -> None:
        """Load every model of the repository for the first time.

        Raises:
            DeviceUnavailable: CUDA was required and did not start.
        """
        self._repository.refresh(self.entries)
        self._seen = self._repository.snapshot()
        try:
            if self._seen is None:
                return  # it cannot be read, which was logged; `watch` looks again
            self.reload()
            # A store has older versions to fall back on, if those that came do not work.
            while not self._all_served() and self._repository.refresh(self.entries):
                self._seen = self._repository.snapshot()
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
                self._repository.refresh(self.entries, name)
            changed = []
            found = dict(scan(self._repository.root))
            if name is not None and name not in found:
                raise UnknownModel(f"The repository has no folder for model {name[:128]!r}.")
            emptied = self._repository.look_for_emptied(self.entries, found)
            if emptied and not any(found.values()):
                return []
            for each in [name] if name is not None else sorted({*found, *self.entries}):
                before = self.entries.get(each)
                if each in emptied:
                    continue
                if each not in found:
                    logger.info("model %s is gone from the repository", each)
                    self._put(each, None)
                    changed.append(each)
                    continue
                if before and before.unloaded and name is None:
                    continue
                after = self._trial.look_again(
                    each, found[each], before, again=name is not None, first=self.loading
                )
                if after != before:
                    self._put(each, after)
                    changed.append(each)
            return changed

    def unload(self, name: str) -> None:
        """Serve no version of a model until `reload(name)`; requests under way are finished.

        Raises:
            UnknownModel: there is no model of that name.
            NotWithWorkers: other processes would serve it on.
        """
        with self._one_at_a_time:
            self.entry(name)
            if not self.alone:
                raise NotWithWorkers("One of several workers cannot unload a model for all.")
            self._put(name, Entry(name, unloaded=True))

    def watch(self, interval_s: float) -> None:
        """`reload` when the repository has changed, until `close`; runs in a thread of its own.

        A change is acted upon when it is an interval old and nothing has been written since, so
        that a version which is still being copied is left alone.
        """
        before = self._seen
        drained = True  # whether the versions that the last change replaced have ended
        while not self._stopped.wait(interval_s):
            if not drained and not self._draining():
                drained = True
                give_back()
            # A version of a mirror appears complete, so there is no need to wait for it.
            settled = self._repository.refresh(self.entries)
            now = self._repository.snapshot()
            if now is None:
                self._repository.look_for_emptied(self.entries, {})
                continue
            if self.emptied:
                self._repository.look_for_emptied(self.entries, dict(now))
            if now != self._seen and (settled or now == before):
                self._seen = now
                try:
                    self.reload()
                    drained = False
                except Exception:  # what is served is served on
                    logger.exception("the repository could not be read again")
            before = now

    def _all_served(self) -> bool:
        """Whether each model has a version that works."""
        return all(entry.versions for entry in self.entries.values())

    def _draining(self) -> bool:
        """Whether versions that are no longer served still have threads."""
        serving = {id(model) for model in self.every_version()}
        return any(id(model) not in serving for model in self._trial.alive())

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
        if not VERSION.fullmatch(version):
            raise UnknownVersion(
                "Request for unknown version: failed to get model version from specified version "
                f"string {version[:20]!r}, a version is a whole number above 0."
            )
        number = int(version)
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
        alive = self._trial.alive()
        for model in alive:
            model.batcher.retire()
        stopped = [model.batcher.close(timeout_s) for model in alive]
        return all(stopped)

    def _default_name(self) -> str:
        if self.default_model is not None:
            return self.default_model
        # Until all models are known the choice is open: a request must not change its meaning.
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
        self._trial.forget()


def _still_loading() -> ModelLoading:
    return ModelLoading("The server is still loading its models.", retry_after_s=1)
