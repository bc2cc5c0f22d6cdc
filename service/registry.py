"""The repository on disk and what of it is served.

    models/<name>/<version>/    name as in the manifest, version a whole number from 1

Each model serves its latest good version: versions are tried from the highest down, and the
first that loads, hashes, warms up and passes its self-test wins. Why the others did not is
kept, and shown by GET /models. Anything else in the folders is left alone.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from service.bundle import Rejected
from service.device import DeviceUnavailable
from service.errors import (
    ModelLoading,
    ModelNotChosen,
    ModelUnavailable,
    UnknownModel,
    UnknownVersion,
)
from service.model import ServedModel
from service.signature import listing

logger = logging.getLogger("foldserve.registry")

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_VERSION = re.compile(r"[1-9][0-9]{0,17}")
# Hidden folders, and what an upload or an editor leaves half done.
_LEFTOVER = re.compile(r"^[._~]|^te?mp([._-]|$)|(\.(te?mp|part|partial|bak|swp)|~)$")

Loader = Callable[[Path, str, int], ServedModel]


@dataclass(slots=True)
class Entry:
    """A model of the repository: the version served, and why others are not."""

    name: str
    served: ServedModel | None = None
    rejected: dict[int, str] = field(default_factory=dict)  # version -> reason, highest first
    older: list[int] = field(default_factory=list)  # not tried: a higher version serves

    @property
    def trouble(self) -> str:
        reasons = "; ".join(f"version {v}: {why}" for v, why in self.rejected.items())
        return reasons or "it has no version folder"


class Registry:
    """What this process serves. Filled by `load` in one thread, read from any.

    Args:
        root: the repository.
        loader: makes a ServedModel of a version folder, or raises Rejected.
        default_model: the model of POST /predict, None for "the only one".
    """

    def __init__(self, root: Path, loader: Loader, default_model: str | None = None) -> None:
        self._root = root
        self._load_version = loader
        self.default_model = default_model
        self.entries: dict[str, Entry] = {}
        self.loading = True
        self.changes = 0  # counts what readers may have cached, such as the OpenAPI document

    def load(self) -> None:
        """Load every model of the repository, one after the other.

        Raises:
            DeviceUnavailable: CUDA was required and did not start.
        """
        try:
            for name, versions in scan(self._root):
                # A new dict each time: readers iterate over the old one undisturbed.
                self.entries = {**self.entries, name: self._load_model(name, versions)}
                self.changes += 1
        finally:
            self.loading = False

    def served(self) -> list[ServedModel]:
        """The models that can answer, by name."""
        return [entry.served for entry in self.entries.values() if entry.served]

    def find(self, name: str | None, version: str | None = None) -> ServedModel:
        """The model for a request.

        Args:
            name: None for the default model.
            version: as in the path, None for the one that is served.

        Raises:
            ModelNotChosen, UnknownModel, UnknownVersion, ModelUnavailable, ModelLoading.
        """
        entry = self.entry(name or self._default_name())
        served = entry.served
        if served is None:
            raise ModelUnavailable(f"No version of model {entry.name!r} works: {entry.trouble}.")
        if version is not None and version != str(served.version):
            known = _VERSION.fullmatch(version) and entry.rejected.get(int(version))
            raise UnknownVersion(
                f"Model {entry.name!r} is served in version {served.version}, "
                f"not in {version[:20]!r}{': ' + known if known else ''}."
            )
        return served

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
        """Stop every owner; False if one of them is still running after `timeout_s`."""
        stopped = [served.batcher.close(timeout_s) for served in self.served()]
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

    def _load_model(self, name: str, versions: dict[int, Path]) -> Entry:
        entry = Entry(name)
        for version in sorted(versions, reverse=True):
            if entry.served:
                entry.older.append(version)
                continue
            try:
                entry.served = self._load_version(versions[version], name, version)
            except Rejected as reason:
                entry.rejected[version] = str(reason)
                logger.error("model %s version %d is not served: %s", name, version, reason)
            except DeviceUnavailable:
                raise
            except Exception as error:  # one odd folder must not keep the others from loading
                entry.rejected[version] = f"unexpected {type(error).__name__}, see the log"
                logger.exception("model %s version %d could not be loaded", name, version)
        return entry


def _still_loading() -> ModelLoading:
    return ModelLoading("The server is still loading its models.", retry_after_s=1)


def scan(root: Path) -> Iterator[tuple[str, dict[int, Path]]]:
    """Models and their version folders, by name; stray files and odd names are passed over."""
    for folder in sorted(root.iterdir()):
        if not folder.is_dir() or _LEFTOVER.search(folder.name):
            continue
        if not _NAME.fullmatch(folder.name):
            logger.warning("folder %r is ignored: not a model's name", folder.name)
            continue
        try:
            inside = sorted(folder.iterdir())
        except OSError as error:
            logger.error("folder %r cannot be read: %s", folder.name, error.strerror)
            inside = []
        versions = {}
        for inner in inside:
            if _VERSION.fullmatch(inner.name) and inner.is_dir():
                versions[int(inner.name)] = inner
            elif not _LEFTOVER.search(inner.name):
                # Files beside the versions are usual (labels, a README), folders are not.
                level = logging.INFO if inner.is_dir() else logging.DEBUG
                logger.log(level, "%s/%s is ignored: not a version", folder.name, inner.name)
        yield folder.name, versions
