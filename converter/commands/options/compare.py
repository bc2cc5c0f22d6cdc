"""The options of `compare`, which moved: it takes anything, and says where it went."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter


class Compare:
    """Say where `compare` went."""

    def __init__(
        self, *rest: Annotated[str, Parameter(allow_leading_hyphen=True, show=False)]
    ) -> None:
        self.rest = rest
