"""Memory that was freed, given back to the system.

The C library keeps the memory that a model has freed, in pieces that may be too small for the next
model: after some reloads a server holds several times what it uses. It also keeps what a burst of
large requests has freed.
"""

from __future__ import annotations

import ctypes
import gc
import sys
import threading
from collections.abc import Callable
from contextlib import suppress

# Bodies and answers that were held at a time. To return less than this is not worth the page
# faults that the next requests would have.
_MUCH_BYTES = 8 * 1024**2
# A buffer from here on is mapped by itself, which costs page faults, but leaves no gaps.
_LARGE_BYTES = 4 * 1024**2
# What the threads of a library have held of it is freed some seconds later.
_AGAIN_S = 5
# malloc.h
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_KEPT_BYTES = 32 * 1024**2  # at the end of a heap, for what comes next


def map_large() -> bool:
    """Let what is large go back to the system as soon as it is freed, where the C library can.

    By itself glibc learns to keep pieces as large as any that was freed, up to 32 MB each.
    """
    set_option = _of_glibc("mallopt")
    return bool(
        set_option(_MMAP_THRESHOLD, _LARGE_BYTES) and set_option(_TRIM_THRESHOLD, _KEPT_BYTES)
    )


def give_back() -> bool:
    """Return free memory to the system, where the C library can; takes a few milliseconds."""
    return bool(_of_glibc("malloc_trim")(0))


def _of_glibc(name: str) -> Callable[..., int]:
    """A function of the C library; one that does nothing where that is another library."""
    if sys.platform.startswith("linux"):
        with suppress(OSError, AttributeError):
            found: Callable[..., int] = getattr(ctypes.CDLL(None), name)
            return found
    return lambda *_: 0


class TrimWhenIdle:
    """Gives memory back after a burst of large requests, once no request is under way.

    Args:
        give_back: takes milliseconds, so it gets a thread.
    """

    def __init__(self, give_back: Callable[[], object] = give_back) -> None:
        self._give_back = give_back
        self._most_bytes = 0
        self._seconds_left = 0

    def second(
        self, held_bytes: int, in_flight: int, most_bytes: int = 0
    ) -> threading.Thread | None:
        """To be called once a second; the thread if one was started.

        Args:
            held_bytes, in_flight: by and of requests, now.
            most_bytes: that they held at a time since the last call.
        """
        self._most_bytes = max(self._most_bytes, held_bytes, most_bytes)
        little = self._most_bytes < _MUCH_BYTES
        if in_flight or held_bytes or (little and not self._seconds_left):
            return None
        if self._most_bytes >= _MUCH_BYTES:
            self._seconds_left = _AGAIN_S
        else:
            self._seconds_left -= 1
            if self._seconds_left:
                return None
        self._most_bytes = 0
        thread = threading.Thread(target=self._collect, name="give-back", daemon=True)
        thread.start()
        return thread

    def _collect(self) -> None:
        # A call that was cancelled leaves its message in a circle of its task and its error, and
        # an idle server makes nothing that would have the collector look for them.
        gc.collect()
        self._give_back()
