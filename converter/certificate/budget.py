"""How much memory a check may take: half of what is free, so that it never ends the process.

A value is held as arrays that broadcast, and views as the places that their numbers come from. In
rare networks (attention over blocks that overlap) these are many times the size of the file.
"""

from __future__ import annotations

import math
import time

from converter.system import memory

SHARE = 0.5
# Seconds between two looks: one takes as long as a small op does.
_PAUSE = 0.01


class Budget:
    """What this process holds now, and how much more it may hold. Only Linux tells."""

    def __init__(self) -> None:
        free = memory.available()
        self._looked = -math.inf
        self._most = None if free is None else memory.held() + int(SHARE * free)

    def check(self) -> None:
        """
        Raises:
            MemoryError: it holds more, as where an allocation fails.
        """
        now = time.monotonic()
        if self._most is None or now - self._looked < _PAUSE:
            return
        self._looked = now
        if memory.held() > self._most:
            raise MemoryError
