"""A model of the repository, as it is served: which versions are, and why others are not."""

from __future__ import annotations

from dataclasses import dataclass, field

from service.models.folders import Fingerprint
from service.models.model import ServedModel


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
