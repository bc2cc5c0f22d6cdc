"""What is told to whoever waits, and by when: the one owner of answers and of deadlines.

An answer that cannot be given touches no other. Whatever is ready after a request's deadline is
not given any more: the loop may be busy when the time is up, so it looks at the clock once more.

The requests that the runners have need a timer beside that, as the loop is free while they wait
and run. One does it for a whole model, at the earliest deadline of those that are there: with
every request its own, a flood would leave a heap of them.
"""

from __future__ import annotations

import asyncio
import logging
import time
import weakref
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Protocol
from weakref import WeakKeyDictionary

from service import faults
from service.batching.item import Item, Outcome
from service.errors import DeadlineExceeded, ServiceError

logger = logging.getLogger("foldserve.batcher")


def late() -> DeadlineExceeded:
    return DeadlineExceeded("The request waited until its deadline.")


def not_in_time() -> DeadlineExceeded:
    return DeadlineExceeded("The answer was not ready in time.")


def settle(item: Item, outcome: Outcome) -> None:
    """Give an outcome, if it is still wanted; never raises, for other items are behind it."""
    try:
        if not item.gone:
            item.take(outcome)
    except Exception:  # noqa: BLE001  a defect of the one who waits
        faults.report(logger, "an answer could not be given")


def settle_all(settled: Iterable[tuple[Item, Outcome]]) -> None:
    """Give each its outcome, or say that it comes too late. On the loop of the items."""
    for item, outcome in settled:
        if time.monotonic() >= item.deadline and not isinstance(outcome, ServiceError):
            outcome = not_in_time()
        settle(item, outcome)


def deliver(settled: Sequence[tuple[Item, Outcome]]) -> None:
    """`settle_all` from a runner's thread: a single wake-up of each loop."""
    loops = {item.loop for item, _ in settled}
    for loop in loops:
        mine = settled if len(loops) == 1 else [pair for pair in settled if pair[0].loop is loop]
        with suppress(RuntimeError):  # the loop is closed, and with it all that waited
            loop.call_soon_threadsafe(settle_all, mine)


class Holder(Protocol):
    """The runners of a model."""

    def under_way(self) -> list[Item]:
        """What waits or runs."""

    def abandon(self, item: Item, /) -> None:
        """Nobody waits for it any more."""


class Deadlines:
    """One timer for each event loop; it does not keep its holder alive."""

    def __init__(self, holder: Holder) -> None:
        self._holder = weakref.ref(holder)
        self._timers: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.TimerHandle] = (
            WeakKeyDictionary()
        )

    def watch(self, items: Iterable[Item], loop: asyncio.AbstractEventLoop) -> None:
        """Tell each of the items at its deadline, unless it was told before. On the loop."""
        first = min([item.deadline for item in items], default=None)
        if first is None:
            return
        when = loop.time() + max(0.0, first - time.monotonic())
        timer = self._timers.get(loop)
        if timer is not None:
            if timer.when() <= when:
                return
            timer.cancel()
        self._timers[loop] = loop.call_at(when, self._ring, loop)

    def _ring(self, loop: asyncio.AbstractEventLoop) -> None:
        del self._timers[loop]
        holder = self._holder()
        if holder is None:
            return
        now = time.monotonic()
        left = []
        for item in holder.under_way():
            if item.loop is not loop or item.gone:
                continue
            if now < item.deadline:
                left.append(item)
                continue
            settle(item, not_in_time())
            holder.abandon(item)
        self.watch(left, loop)
