"""A model on the event loop: what the loop reads in one turn is one batch, run at its end.

For a model whose run is shorter than the way to a thread and back. Touched by the loop alone,
so without a lock. More than one batch is run one a turn, so that other handlers get theirs; how
much may wait for that is bounded by the model's queue, like everything that waits.
"""

from __future__ import annotations

import asyncio
import logging
import time
from operator import attrgetter
from typing import Protocol

from service import faults
from service.batching.item import Item, Outcome
from service.batching.settling import late, settle, settle_all
from service.exchange import USUAL_PRIORITY

logger = logging.getLogger("foldserve.batcher")

# A run on the event loop that takes this long, time after time, does not belong there.
TOO_LONG_S = 0.02
_CHANCES = 3


class Work(Protocol):
    """What is done with the items. Held only while some wait: it holds the turn, and a model."""

    def run_turn(self, batch: list[Item], /) -> list[tuple[Item, Outcome]]:
        """Run a batch: the outcome of each of its items."""

    def turn_limit(self) -> int:
        """Rows of a batch at present; a single item may have more."""

    def leave_the_loop(self, took_s: float, /) -> None:
        """Told the seconds of a run when several in a row took too long."""

    def share_turn(self, items: list[Item], rows: int, /) -> bool:
        """Offered all items of a turn, and their rows; True if it has taken them."""


class Turn:
    """Items that wait for the end of the loop's turn, `rows` of them in all."""

    def __init__(self) -> None:
        self.rows = 0
        self._items: list[Item] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._slow = 0
        self._ranked = False  # whether some are more, or less, urgent than others

    def add(self, item: Item, work: Work) -> None:
        """Take an item whose loop is the one that runs."""
        loop = item.loop
        if self._loop is not loop:
            # Items of another loop, which has ended, are dropped with it.
            self._items, self.rows, self._loop = [], 0, loop
            loop.call_soon(self._end, work)
        self._items.append(item)
        if item.priority != USUAL_PRIORITY:
            self._ranked = True
        self.rows += item.rows

    def _end(self, work: Work) -> None:
        try:
            self._run_next(work)
        except Exception:  # noqa: BLE001  a defect; what waits behind it has its turn all the same
            faults.report(logger, "a turn of the event loop could not be finished")
        finally:
            if self._items and self._loop is not None:
                self._loop.call_soon(self._end, work)
            else:
                self._loop = None

    def _run_next(self, work: Work) -> None:
        if work.share_turn(self._items, self.rows):
            self._items, self.rows = [], 0
            return
        if self._ranked:
            self._items.sort(key=attrgetter("priority"))
        now = time.monotonic()
        batch = self._next_batch(now, work.turn_limit())
        if batch:
            # After a slow run the time of the processor counts: other processes may take the rest.
            cpu = time.thread_time() if self._slow else None
            settle_all(work.run_turn(batch))
            took_s = time.monotonic() - now if cpu is None else time.thread_time() - cpu
            self._slow = self._slow + 1 if took_s > TOO_LONG_S else 0
            if self._slow == _CHANCES:
                work.leave_the_loop(took_s)

    def _next_batch(self, now: float, limit: int) -> list[Item]:
        """Take the items that run next; those that were cancelled, or are late, are dropped."""
        batch: list[Item] = []
        rows = 0
        for position, item in enumerate(self._items):
            if item.gone:  # cancelled
                self.rows -= item.rows
                continue
            if now >= item.deadline:
                settle(item, late())
                self.rows -= item.rows
                continue
            if batch and rows + item.rows > limit:
                self._items = self._items[position:]
                break
            batch.append(item)
            rows += item.rows
        else:
            self._items, self._ranked = [], False
        self.rows -= rows
        return batch
