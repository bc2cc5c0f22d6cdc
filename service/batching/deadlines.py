"""The deadlines of requests without a timer of their own, once they have left the event loop.

A request that the loop runs itself needs no timer: the loop looks at the clock before and after.
When a turn hands its requests to the runners, the loop is free while they wait and run, and has to
tell each of them when its time is up. One timer does it for a whole model, at the earliest
deadline of those that are there: with every request its own, a flood would leave a heap of them.
"""

from __future__ import annotations

import asyncio
import time
import weakref
from collections.abc import Iterable
from typing import Protocol

from service.batching.batch import Item, not_in_time, settle


class Holder(Protocol):
    """The runners of a model."""

    def under_way(self) -> list[Item]:
        """What waits or runs."""

    def abandon(self, item: Item, /) -> None:
        """Nobody waits for it any more."""


class Deadlines:
    """On one event loop; the timer does not keep its holder alive."""

    def __init__(self, holder: Holder) -> None:
        self._holder = weakref.ref(holder)
        self._timer: asyncio.TimerHandle | None = None

    def watch(self, items: Iterable[Item], loop: asyncio.AbstractEventLoop) -> None:
        """Tell each of the items at its deadline, unless it was told before. On the loop."""
        first = min([item.deadline for item in items], default=None)
        if first is None:
            return
        when = loop.time() + max(0.0, first - time.monotonic())
        timer = self._timer
        if timer is not None and not timer.cancelled():
            if timer.when() <= when:
                return
            timer.cancel()
        self._timer = loop.call_at(when, self._ring, loop)

    def _ring(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        holder = self._holder()
        if holder is None:
            return
        now = time.monotonic()
        left = []
        for item in holder.under_way():
            if item.loop is not loop or item.answer.done():
                continue
            if now < item.deadline:
                left.append(item)
                continue
            settle(item.answer, not_in_time())
            holder.abandon(item)
        self.watch(left, loop)
