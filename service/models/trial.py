"""Which versions of a model are to be served, and whether they can be: each new one is tried."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable
from pathlib import Path

from service.device import DeviceUnavailable
from service.models.bundle import Rejected
from service.models.entry import Entry
from service.models.folders import fingerprint
from service.models.model import ServedModel
from service.models.policy import Policy, of_model
from service.models.signed import Trust

logger = logging.getLogger("foldserve.registry")

# Makes a ServedModel of a version folder, or raises Rejected.
Loader = Callable[[Path, str, int], ServedModel]


class Trial:
    """Loads versions, and keeps track of all that may still have threads.

    Args:
        policy: which versions are served of models that do not say so themselves.
        trust: whose signature a version must have for its word on that to count.
        failed: told of each version that came while others were served, and cannot be.
    """

    def __init__(
        self,
        load: Loader,
        policy: Policy,
        trust: Trust | None = None,
        failed: Callable[[], object] = lambda: None,
    ) -> None:
        self._failed = failed
        self.load = load
        self._policy = policy
        self._trust = trust
        self._loaded: list[weakref.ref[ServedModel]] = []

    def alive(self) -> list[ServedModel]:
        """The versions to which there still are references, whether they are served or not."""
        return [model for ref in self._loaded if (model := ref()) is not None]

    def forget(self) -> None:
        """Forget the versions to which there are no references any more."""
        self._loaded = [ref for ref in self._loaded if ref() is not None]

    def look_again(
        self,
        name: str,
        folders: dict[int, Path],
        before: Entry | None,
        *,
        again: bool,
        first: bool,
    ) -> Entry:
        """The entry as it should be now; what has not changed on disk is taken over.

        Args:
            again: try also what was rejected and has not changed.
            first: whether the server has just started.

        Raises:
            DeviceUnavailable: at the first start only; later it is a reason like any other.
        """
        before = before or Entry(name)
        after = Entry(name)
        policy = of_model(name, folders, self._policy, self._trust)
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
                serving, reason = self._try(folders[version], name, version, serving, first)
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
        self, folder: Path, name: str, version: int, serving: ServedModel | None, first: bool
    ) -> tuple[ServedModel | None, str | None]:
        """Load a version; returns it, or the one that goes on serving and the reason."""
        try:
            served = self.load(folder, name, version)
        except (Rejected, DeviceUnavailable) as error:
            if first and isinstance(error, DeviceUnavailable):
                raise
            reason = str(error)
            logger.error("model %s version %d is not served: %s", name, version, reason)
        except Exception as error:  # one odd folder must not keep the others from loading
            reason = f"unexpected {type(error).__name__}, see the log"
            logger.exception("model %s version %d could not be loaded", name, version)
        else:
            self._loaded.append(weakref.ref(served))
            for output, why in served.signature.left_out.items():
                logger.info(
                    "model %s version %d: output %r is left out: %s", name, version, output, why
                )
            if not first:
                logger.info("model %s version %d is served from now on", name, version)
            return served, None
        if not first:
            self._failed()
        if serving is not None:
            reason += " (its files were changed; as it was loaded before, it serves on)"
        return serving, reason
