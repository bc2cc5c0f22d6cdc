"""A defect beside the work on a request: what failed is logged, and the work goes on.

Observers are called for every request, so one that always fails would fill the log: of each place
a traceback is logged once in a minute, with how many there were since.
"""

from __future__ import annotations

import logging
import threading
import time
from types import TracebackType

_EVERY_S = 60.0

_lock = threading.Lock()
_seen: dict[tuple[str, str], tuple[float, int]] = {}


def report(logger: logging.Logger, what: str) -> None:
    """Log the exception that is being handled; from any thread.

    Args:
        what: the place, as a sentence of the program's own: it is kept.
    """
    now = time.monotonic()
    key = (logger.name, what)
    with _lock:
        told, silent = _seen.get(key, (float("-inf"), 0))
        if now - told < _EVERY_S:
            _seen[key] = told, silent + 1
            return
        _seen[key] = now, 0
    more = f" (and {silent} times since it was last said)" if silent else ""
    logger.exception("%s%s", what, more)


class contained:  # noqa: N801  reads as a statement
    """`with contained(logger, what):` an exception of the block is reported, and ends only that."""

    def __init__(self, logger: logging.Logger, what: str) -> None:
        self._logger = logger
        self._what = what

    def __enter__(self) -> None:
        pass

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        if not isinstance(error, Exception):
            return False
        report(self._logger, self._what)
        return True
