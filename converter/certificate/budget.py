"""How much memory and time a check may take.

Memory: half of what is free, so that it never ends the process. A value is held as arrays that
broadcast, and views as the places that their numbers come from. In rare networks (attention over
blocks that overlap) these are many times the size of the file.

Time: of the processor, for this thread, so that a verdict does not depend on what else the machine
does.
"""

from __future__ import annotations

import math
import time

from converter.system import memory

SHARE = 0.5
# Of processor time. The largest networks of timm take a minute.
SECONDS = 300.0
# Seconds between two looks: one takes as long as a small op does.
_PAUSE = 0.01


class TooLongError(Exception):
    """The check has taken as long as it may."""


class Budget:
    """What this process holds now, and how much more it may hold; only Linux tells. And how long
    this thread may go on.
    """

    def __init__(self) -> None:
        free = memory.available()
        self._looked = -math.inf
        self._most = None if free is None else memory.held() + int(SHARE * free)
        self._end = time.thread_time() + SECONDS

    def check(self) -> None:
        """
        Raises:
            MemoryError: it holds more, as where an allocation fails.
            TooLongError: it went on for longer.
        """
        now = time.monotonic()
        if now - self._looked < _PAUSE:
            return
        self._looked = now
        if time.thread_time() > self._end:
            raise TooLongError
        if self._most is not None and memory.held() > self._most:
            raise MemoryError
