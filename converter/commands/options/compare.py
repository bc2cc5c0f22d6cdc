"""The options of `compare`, which moved: it takes anything, and says where it went."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from cyclopts import Parameter


@dataclass(frozen=True)
class Compare:
    """Say where `compare` went.

    Attributes:
        rest: what it took before.
    """

    rest: Annotated[tuple[str, ...], Parameter(name="ARGUMENTS", allow_leading_hyphen=True)] = ()
