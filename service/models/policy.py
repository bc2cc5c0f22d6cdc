"""Which versions of a model are served.

    latest         the highest one that works
    latest:N       the N highest ones that work
    all            every one that works
    specific:A,B   these, as far as they work

The setting --version-policy is for all models; `serving.version_policy` in model.json of a
model's highest version is for that model, and wins. Where signatures are required, that is the
highest version whose model.json is signed: nobody else decides what is served.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from service.manifest import VERSION_POLICY
from service.models.bundle import peek
from service.models.signed import Trust, manifest_of

_POLICY = re.compile(VERSION_POLICY)


@dataclass(frozen=True, slots=True)
class Policy:
    """`wanted`: how many good versions are enough, None for all of those that are candidates.
    `only`: the candidates, None for every version there is."""

    wanted: int | None = 1
    only: frozenset[int] | None = None

    def candidates(self, versions: Iterable[int]) -> list[int]:
        """The versions to try, highest first."""
        return sorted((v for v in versions if not self.only or v in self.only), reverse=True)

    def missing(self, versions: Iterable[int]) -> list[int]:
        """Versions that were asked for by number and are not there."""
        return sorted((self.only or frozenset()) - set(versions), reverse=True)


def parse(text: str) -> Policy:
    """A policy from its text.

    Raises:
        ValueError: it has none of the four forms.
    """
    if not _POLICY.fullmatch(text):
        raise ValueError("expected latest, latest:N, all, or specific:A,B")
    kind, _, rest = text.partition(":")
    if kind == "all":
        return Policy(wanted=None)
    if kind == "specific":
        return Policy(wanted=None, only=frozenset(map(int, rest.split(","))))
    return Policy(wanted=int(rest or 1))


def of_model(
    name: str, versions: dict[int, Path], default: Policy, trust: Trust | None = None
) -> Policy:
    """What the highest version's model.json says, else `default`; a broken one says nothing.

    Args:
        default: what the server was told.
        trust: whose signature that model.json must have, None for no matter whose or none.
    """
    if trust is not None:
        signed = (manifest_of(versions[v], name, v, trust) for v in sorted(versions, reverse=True))
        found = next((manifest for manifest in signed if manifest is not None), None)
        said = found.serving.version_policy if found else None
        return parse(said) if said else default
    if not versions:
        return default
    try:
        return parse(peek(versions[max(versions)])["serving"]["version_policy"])
    except (KeyError, TypeError, ValueError):
        return default
