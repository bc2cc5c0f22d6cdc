"""The owner of a model: it admits requests to a bounded queue, and has them run in batches.

Handlers on the event loop put tensors on the queue and await a future, so the loop is never
blocked and health checks are answered while the model is busy. An item is in one of four states:

    waiting -> running -> delivered        the normal way
    waiting -> dropped                     cancelled, or past its deadline before it ran

Admission counts samples (rows), not requests (room.py). A request that is cancelled or late while
it waits gives its room back at once; one that is already running runs to its end, and its result
is thrown away. An item that fails, fails alone: the owner lives on.

Batches run in threads (runners.py). Where a run is shorter than the way to a thread and back, they
run on the event loop itself (turn.py).
"""

from __future__ import annotations

import asyncio
import logging
import math
import time

from service.batching.batch import Run
from service.batching.execution import Execution
from service.batching.item import Awaited, Item, Outcome, Outputs, lane_of
from service.batching.limits import Limits
from service.batching.room import Room
from service.batching.runners import Runners, died
from service.batching.turn import Turn
from service.errors import ServiceError, ShuttingDown
from service.exchange import Exchange
from service.signature import Tensors

logger = logging.getLogger("foldserve.batcher")

# Work that a turn of the event loop brings and does itself, where there are threads to help it.
_LONGEST_TURN_S = 0.25e-3


class Batcher:
    """Runs `run` for its callers, the urgent ones first, else in the order of their arrival.

    `room` admits requests, `execution` runs their batches and can be observed, `runners` are the
    threads. `inline_rows`: requests of up to so many rows run on the event loop.

    Args:
        run: {input name: array} to {output name: array}; may raise, a ServiceError is
            handed on, anything else becomes InferenceFailed and is logged.
        capacity_samples: rows that may wait, the ones running not counted.
        name: the model's name, for the threads and the log.
        limits: how many run at a time, and in what batches.
        run_alone: used in place of `run` for a request that has the machine to itself.
        answer_row_bytes: what the outputs take for each row, as far as that is known before a run.
    """

    def __init__(
        self,
        run: Run,
        capacity_samples: int,
        name: str,
        limits: Limits | None = None,
        run_alone: Run | None = None,
        answer_row_bytes: int = 0,
    ) -> None:
        limits = limits or Limits()
        self.inline_rows = limits.inline_rows
        self.room = Room(capacity_samples, name, limits.runners)
        self.execution = Execution(name, self.room, limits.max_batch_rows, answer_row_bytes)
        self.runners = Runners(run, run_alone or run, self.execution, limits, name)
        self._run = run
        self._name = name
        self._one_shape = limits.one_shape
        self._row_s = limits.row_s
        self._lanes = self.runners.lanes
        self._turn = Turn()

    @property
    def capacity_samples(self) -> int:
        """Rows that may wait, the ones running not counted."""
        return self.room.capacity_samples

    @property
    def max_batch_rows(self) -> int:
        """Rows that are joined at most."""
        return self.execution.max_batch_rows

    @property
    def alive(self) -> bool:
        """Whether the owner can still take work."""
        return self.runners.alive

    @property
    def waiting_samples(self) -> int:
        """Rows on the queue at this moment, the ones running not counted."""
        return self._lanes.rows + self._turn.rows

    @property
    def oldest_wait_s(self) -> float:
        """How long the request at the head of the queue has been waiting, 0 when none is."""
        return self.runners.oldest_wait_s

    def check_room(self, rows: int, time_left_s: float = math.inf) -> None:
        """Raises what `submit` would raise now; ask before spending time on a decode.

        Args:
            rows: of the request.
            time_left_s: until its deadline; a queue that would take longer is as good as full.

        Raises:
            TooManySamples, QueueFull, ShuttingDown, ModelUnavailable.
        """
        if self.runners.closing:
            raise ShuttingDown("The server is stopping.")
        if self.runners.dead:
            raise died(self._name)
        self.room.check(rows, self._lanes.rows + self._turn.rows, time_left_s)

    def check_arrivals(self, requests: int, time_left_s: float) -> None:
        """`check_room` for the last of so many requests that are being read, of the usual size.

        Raises:
            QueueFull, ShuttingDown, ModelUnavailable.
        """
        self.check_room(1, time_left_s)
        self.room.check_arrivals(requests, self.waiting_samples)

    async def submit(
        self,
        inputs: Tensors,
        rows: int,
        deadline: float,
        exchange: Exchange | None = None,
    ) -> Outputs:
        """Run the model on `inputs`.

        Args:
            inputs: {input name: array}, already checked against the signature.
            rows: samples in `inputs`, at least 1, for the room in the queue.
            deadline: on the clock of time.monotonic(), in seconds.
            exchange: the record of the request. It is told its batch before the answer comes, and
                asked before the run and after it whether there is memory for the answer; in the
                thread in which it ran. What that raises becomes the outcome.

        Returns:
            {output name: array}, possibly views of a larger batch.

        Raises:
            ServiceError: what `check_room` raises; DeadlineExceeded; InferenceFailed or
                whatever ServiceError the run or the record raised.
        """
        item = Awaited(inputs, rows, deadline, asyncio.get_running_loop(), exchange)
        if rows <= self.inline_rows:
            self.check_room(rows, deadline - time.monotonic())
        self.enter(item)
        try:
            outcome = await item.future
        except asyncio.CancelledError:
            self.abandon(item)
            raise
        if isinstance(outcome, ServiceError):
            try:
                raise outcome
            finally:
                # Or the error would hold this frame, which holds it and the tensors.
                del outcome, item
        return outcome

    def enter(self, item: Item) -> None:
        """Have an item run; called on its loop, which takes the outcome without any task.

        For rows that the loop itself runs, at the end of this turn, `check_room` was asked before.

        Raises:
            ServiceError: what `check_room` raises, if a runner is to run them.
        """
        if not self._one_shape:
            item.lane = lane_of(item.inputs)
        item.since = time.monotonic()
        if item.rows <= self.inline_rows:
            self._turn.add(item, self)
        else:
            self.runners.put(item, self._admit)

    def abandon(self, item: Item) -> None:
        """Nobody waits for the item any more.

        One that waits for a runner gives its room back at once; the turn of the event loop drops
        its own once they are gone.
        """
        self.runners.abandon(item)

    def retire(self) -> None:
        """Take no more, and end once what waits is finished; returns at once."""
        self.runners.retire()

    def close(self, timeout_s: float) -> bool:
        """`retire`, and wait for the end; False if that took too long."""
        self.runners.retire()
        return self.runners.join(timeout_s)

    def _admit(self, item: Item) -> None:
        self.check_room(item.rows, item.deadline - item.since)

    # --- for the turn of the event loop: see `turn.Work` ----------------------------------

    def run_turn(self, batch: list[Item]) -> list[tuple[Item, Outcome]]:
        return self.execution.outcomes(batch, self._run, 0.0)

    def turn_limit(self) -> int:
        return min(self.inline_rows, self.execution.max_batch_rows)

    def share_turn(self, items: list[Item], rows: int) -> bool:
        """More work than the way to the threads is worth is shared among them."""
        if len(self.runners.threads) < 2:
            return False
        if (rows + self._lanes.rows) * self._row_s <= _LONGEST_TURN_S:
            return False
        return self.runners.share(items)

    def leave_the_loop(self, took_s: float) -> None:
        self.inline_rows = 0
        logger.warning(
            "model %s took %.0f ms on the event loop: it runs in a thread from now on",
            self._name, took_s * 1000,
        )  # fmt: skip
