"""Memory that was freed, given back to the system.

The C library keeps the memory that a model has freed, in pieces that may be too small for the next
model: after some reloads a server holds several times what it uses. It also keeps what a burst of
large requests has freed.
"""

from __future__ import annotations

import ctypes
import sys
import threading
from collections.abc import Callable

# Bodies and answers that were held at a time. To return less than this is not worth the page
# faults that the next requests would have.
_MUCH_BYTES = 32 * 1024**2


def give_back() -> bool:
    """Return free memory to the system, where the C library can; takes a few milliseconds."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        return bool(ctypes.CDLL(None).malloc_trim(0))
    except (OSError, AttributeError):  # another C library than glibc
        return False


class TrimWhenIdle:
    """Gives memory back after a burst of large requests, once no request is under way.

    Args:
        give_back: takes milliseconds, so it gets a thread.
    """

    def __init__(self, give_back: Callable[[], object] = give_back) -> None:
        self._give_back = give_back
        self._most_bytes = 0

    def second(self, held_bytes: int, in_flight: int) -> threading.Thread | None:
        """To be called once a second; the thread if one was started."""
        self._most_bytes = max(self._most_bytes, held_bytes)
        if in_flight or held_bytes or self._most_bytes < _MUCH_BYTES:
            return None
        self._most_bytes = 0
        thread = threading.Thread(target=self._give_back, name="give-back", daemon=True)
        thread.start()
        return thread
