"""Memory that was freed, given back to the system.

The C library keeps what a model has freed, in pieces that the next one may not fit into: after
some reloads a server holds several times what it uses.
"""

from __future__ import annotations

import ctypes
import sys


def give_back() -> bool:
    """Return free memory to the system, where the C library can; takes a few milliseconds."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        return bool(ctypes.CDLL(None).malloc_trim(0))
    except (OSError, AttributeError):  # another C library than glibc
        return False
