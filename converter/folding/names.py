"""Choose batch-norms by patterns of their names, as a shell chooses files: `layer1.*`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase

from converter.errors import UserError

# How many names are offered when a pattern matches none.
OFFERED = 5


def matches(name: str, patterns: Iterable[str]) -> bool:
    """Whether a name matches one of the patterns."""
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def check(patterns: Iterable[str], names: Sequence[str]) -> None:
    """Check that each pattern matches a name.

    Raises:
        UserError: one matches none; the message offers the closest names.
    """
    for pattern in patterns:
        if any(matches(name, [pattern]) for name in names):
            continue
        inside = [name for name in names if pattern.strip("*?").lower() in name.lower()]
        close = dict.fromkeys([*inside, *get_close_matches(pattern, names, OFFERED, 0.4)])
        offered = ", ".join(list(close or names)[:OFFERED])
        raise UserError(
            f"no batch-norm is named like {pattern!r}.",
            f"The closest names: {offered}. `inspect` lists all; patterns may hold * and ?."
            if names
            else "There is none in this model.",
        )
