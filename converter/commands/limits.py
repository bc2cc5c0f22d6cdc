"""The memory that a command may take, shared by the commands that prove."""

from __future__ import annotations

from contextlib import AbstractContextManager

from converter.system.memory import bounded, parse_size


def memory(size: str | None) -> AbstractContextManager[None]:
    """The limit that `--max-memory` sets, as long as the context is entered.

    Raises:
        UserError: it is no size, or too small to begin with.
    """
    return bounded(parse_size(size) if size else None)
