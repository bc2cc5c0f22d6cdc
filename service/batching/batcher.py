"""The owner of a model: threads that run its session, fed by a bounded queue.

Handlers on the event loop put tensors on the queue and await a future, so the loop is never
blocked and health answers while the model is busy. An item is in one of four states:

    waiting -> running -> delivered        the normal way
    waiting -> dropped                     cancelled, or past its deadline before it ran

What waits when a runner is free is batched at that moment, up to `max_batch_rows`, shared
among the runners that are idle; nothing waits for company unless `max_wait_s` asks for it.

Room in the queue is counted in samples (rows), not in requests. A request that is cancelled
or late while it waits gives its room back at once; one that is already running runs to its
end, and its result is thrown away. An item that fails, fails alone: the owner lives on.

The runners give way to the event loop (`cpu.give_way`): however much there is to compute, who asks
for health is answered, and who cannot be served is told so.

A model whose run is shorter than the way to a thread and back may run on the event loop
itself (turn.py).
"""

from __future__ import annotations

import asyncio
import logging
import math
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future

from service import cpu, faults
from service.batching.batch import (
    Answer,
    Count,
    Item,
    NotByRows,
    Outcome,
    Run,
    Told,
    admit,
    counted,
    defect,
    deliver,
    execute,
    lane_of,
    late,
    not_in_time,
    one_by_one,
    settle,
)
from service.batching.deadlines import Deadlines
from service.batching.lanes import Lanes
from service.batching.limits import Limits, Ran
from service.batching.room import Room
from service.batching.turn import Turn
from service.errors import ModelUnavailable, ServiceError, ShuttingDown
from service.signature import Tensors

logger = logging.getLogger("foldserve.batcher")

# Work that a turn of the event loop brings and does itself, where there are threads to help it.
_LONGEST_TURN_S = 0.25e-3


class Batcher:
    """Runs `run` for its callers, in the order of their arrival.

    `observe` may be set to be told of each batch, from the thread that ran it. It must not hold
    the ServedModel: its threads live as long as that does.

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
        self.room = Room(capacity_samples, name, limits.runners)
        self.max_batch_rows = limits.max_batch_rows
        self.inline_rows = limits.inline_rows
        self.observe: Callable[[Ran], object] | None = None
        self._max_wait_s = limits.max_wait_s
        self._one_shape = limits.one_shape
        self._row_s = limits.row_s
        self._run = run
        self._run_alone = run_alone or run
        self._answer_row_bytes = answer_row_bytes
        self._name = name
        self._lanes = Lanes()
        self._closing = False
        self._dead = False
        self._idle = 0
        self._turn = Turn()
        self._running: dict[int, list[Item]] = {}  # by runner
        self._deadlines = Deadlines(self)
        self._changed = threading.Condition()
        self._threads = [
            threading.Thread(target=self._own, args=(i,), name=f"owner-{name}-{i}", daemon=True)
            for i in range(limits.runners)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def capacity_samples(self) -> int:
        """Rows that may wait, the ones running not counted."""
        return self.room.capacity_samples

    @property
    def alive(self) -> bool:
        """Whether the owner can still take work."""
        return not self._closing and not self._dead and all(t.is_alive() for t in self._threads)

    @property
    def waiting_samples(self) -> int:
        """Rows on the queue at this moment, the ones running not counted."""
        return self._lanes.rows + self._turn.rows

    @property
    def oldest_wait_s(self) -> float:
        """How long the request at the head of the queue has been waiting, 0 when none is."""
        with self._changed:
            head = self._lanes.oldest()
            return 0.0 if head is None else time.monotonic() - head.since

    def check_room(self, rows: int, patience_s: float = math.inf) -> None:
        """Raises what `submit` would raise now; ask before spending time on a decode.

        Args:
            rows: of the request.
            patience_s: until its deadline; a queue that would take longer is as good as full.

        Raises:
            TooManySamples, QueueFull, ShuttingDown, ModelUnavailable.
        """
        if self._closing:
            raise ShuttingDown("The server is stopping.")
        if self._dead:
            raise ModelUnavailable(f"The worker of model {self._name!r} has died.")
        self.room.check(rows, self.waiting_samples, patience_s)

    def check_arrivals(self, requests: int, patience_s: float) -> None:
        """`check_room` for the last of so many requests that are being read, of the usual size.

        Raises:
            QueueFull, ShuttingDown, ModelUnavailable.
        """
        self.check_room(1, patience_s)
        self.room.check_arrivals(requests, self.waiting_samples)

    async def submit(
        self,
        inputs: Tensors,
        rows: int,
        deadline: float,
        request: str = "",
        told: Told | None = None,
        count: Count | None = None,
    ) -> Tensors:
        """Run the model on `inputs`.

        Args:
            inputs: {input name: array}, already checked against the signature.
            rows: samples in `inputs`, for the room in the queue.
            deadline: on the clock of time.monotonic(), in seconds.
            request: id of the request, for the log.
            told: when it ran, before the answer comes; in the thread in which it ran.
            count: counts the bytes of the answer, before the run and after it, in the same thread;
                what it raises becomes the outcome.

        Returns:
            {output name: array}, possibly views of a larger batch.

        Raises:
            ServiceError: what `check_room` raises; DeadlineExceeded; InferenceFailed or
                whatever ServiceError the run or `count` raised.
        """
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Outcome] = loop.create_future()
        lane = () if self._one_shape else lane_of(inputs)
        item = Item(inputs, rows, deadline, answer, loop, request, lane, told, count)
        if 0 < rows <= self.inline_rows:
            self.check_room(rows, deadline - item.since)
            self._turn.add(item, loop, self)
            try:
                outcome = await answer
            finally:
                item.gone = True
        else:
            outcome = await self._in_a_thread(item, answer, loop)
        if isinstance(outcome, ServiceError):
            try:
                raise outcome
            finally:
                # Or the error would hold this frame, which holds it and the tensors.
                del outcome, answer, item
        return outcome

    def enter(
        self,
        inputs: Tensors,
        rows: int,
        deadline: float,
        answer: Answer,
        loop: asyncio.AbstractEventLoop,
        request: str,
        told: Told,
        count: Count | None = None,
    ) -> None:
        """`submit` on the event loop without a task: `answer` is told at the end of the turn.

        Args:
            inputs, rows, deadline, request, told, count: as in `submit`; rows from 1 to
                `inline_rows`.
            answer: takes the outcome; dropped without one if it says that it is done by then.
            loop: the one that runs.

        Raises:
            ServiceError: what `check_room` raises.
        """
        self.check_room(rows, deadline - time.monotonic())
        lane = () if self._one_shape else lane_of(inputs)
        item = Item(inputs, rows, deadline, answer, loop, request, lane, told, count)
        self._turn.add(item, loop, self)

    def call(self, inputs: Tensors) -> Tensors:
        """`submit` from outside the event loop: blocks, needs no room, is never joined.

        Raises:
            ServiceError: as `submit`.
        """
        answer: Future[Outcome] = Future()
        self._put(Item(inputs, 0, math.inf, answer, lane=(object(),)))
        outcome = answer.result()
        if isinstance(outcome, ServiceError):
            try:
                raise outcome
            finally:
                del outcome, answer
        return outcome

    def retire(self) -> None:
        """Take no more, and end once what waits is finished; returns at once."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()

    def close(self, timeout_s: float) -> bool:
        """`retire`, and wait for the end; False if that took too long."""
        self.retire()
        end = time.monotonic() + timeout_s
        for thread in self._threads:
            thread.join(max(0.0, end - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    # --- in a thread --------------------------------------------------------------------

    async def _in_a_thread(
        self, item: Item, answer: asyncio.Future[Outcome], loop: asyncio.AbstractEventLoop
    ) -> Outcome:
        self._put(item)
        wait_s = max(0.0, item.deadline - time.monotonic())
        timer = loop.call_later(wait_s, settle, answer, not_in_time())
        try:
            return await answer
        finally:
            timer.cancel()
            self.abandon(item)

    def _put(self, item: Item) -> None:
        with self._changed:
            self.check_room(item.rows, item.deadline - item.since)
            self._lanes.put(item)
            self._changed.notify()

    def under_way(self) -> list[Item]:
        """What waits for a runner, and what runs in one."""
        with self._changed:
            waiting = list(self._lanes)
        # The runners do not ask for the lock: this copy is made in one step.
        running = list(self._running.values())
        return [*waiting, *(item for batch in running for item in batch)]

    def abandon(self, item: Item) -> None:
        """Nobody waits for the item any more: free its room if it has not been taken."""
        item.gone = True
        if not item.taken:
            with self._changed:
                self._lanes.drop(item)

    def _take(self) -> tuple[list[Item], Run] | None:
        """The next batch and how to run it, None when closing and nothing is left."""
        with self._changed:
            self._idle += 1
            try:
                while True:
                    wait_s = self._wait_s()
                    if wait_s is not None and wait_s <= 0:
                        limit = self.max_batch_rows
                        if self._max_wait_s <= 0:
                            # The other idle runners are woken too: leave them their share. What
                            # has waited for company, though, is to run together.
                            share = math.ceil(self._lanes.rows / self._idle)
                            limit = min(limit, max(share, 1))
                        batch, expired = self._lanes.take(limit, time.monotonic())
                        if expired:
                            deliver([(item, late()) for item in expired])
                        if batch:
                            everyone_idle = self._idle == len(self._threads)
                            alone = len(batch) == 1 and everyone_idle and not self._lanes
                            return batch, self._run_alone if alone else self._run
                    elif wait_s is None and self._closing:
                        return None
                    else:
                        self._changed.wait(wait_s)
            finally:
                self._idle -= 1

    def _wait_s(self) -> float | None:
        """How long the next batch has to wait for company, None when there is no next one."""
        head = self._lanes.oldest()
        if head is None:
            return None
        full = head.rows == 0 or self._lanes.rows >= self.max_batch_rows
        if self._max_wait_s <= 0 or self._closing or full:
            return 0.0
        return min(head.since + self._max_wait_s, head.deadline) - time.monotonic()

    def _own(self, runner: int) -> None:
        cpu.give_way()
        work = None
        free = time.monotonic()
        try:
            while (work := self._take()) is not None:
                self._running[runner] = work[0]
                deliver(self._outcomes(*work, free))
                del self._running[runner]
                work = None  # an idle owner must not keep the last request's tensors alive
                free = time.monotonic()
        except BaseException:  # the thread itself is broken, for example out of memory
            with self._changed:
                self._dead = True
                self._running.pop(runner, None)
                left = [*(work[0] if work else ()), *self._lanes.clear()]
            error = ModelUnavailable(f"The worker of model {self._name!r} has died.")
            deliver([(item, error) for item in left])
            raise

    # --- on the event loop --------------------------------------------------------------

    def run_turn(self, batch: list[Item]) -> list[tuple[Item, Outcome]]:
        """A batch of a turn."""
        return self._outcomes(batch, self._run, 0.0)

    def turn_limit(self) -> int:
        """Rows of it."""
        return min(self.inline_rows, self.max_batch_rows)

    def share_turn(self, items: list[Item], rows: int) -> bool:
        """More work than the way to the threads is worth is shared among them."""
        if len(self._threads) < 2 or (rows + self._lanes.rows) * self._row_s <= _LONGEST_TURN_S:
            return False
        with self._changed:
            if self._closing or self._dead:
                return False
            left = [item for item in items if not item.answer.done()]
            for item in left:
                self._lanes.put(item)
            self._changed.notify_all()
        if left and left[0].loop is not None:
            self._deadlines.watch(left, left[0].loop)
        return True

    def leave_the_loop(self, took_s: float) -> None:
        """Runs take too long there."""
        self.inline_rows = 0
        logger.warning(
            "model %s took %.0f ms on the event loop: it runs in a thread from now on",
            self._name, took_s * 1000,
        )  # fmt: skip

    # --- both ---------------------------------------------------------------------------

    def _outcomes(self, batch: list[Item], run: Run, free: float) -> list[tuple[Item, Outcome]]:
        started = time.monotonic()
        refused: list[tuple[Item, Outcome]] = []
        try:
            batch, refused = admit(batch, self._answer_row_bytes)
            try:
                ran = execute(run, batch, self._name) if batch else []
            except NotByRows as reason:
                if self.max_batch_rows > 1:
                    self.max_batch_rows = 1
                    logger.error("model %s is not batched any more: %s", self._name, reason)
                ran = one_by_one(run, batch, self._name)
            return [*refused, *[(item, counted(item, outcome)) for item, outcome in ran]]
        except Exception:  # noqa: BLE001  a defect; the owner and the loop live on
            faults.report(logger, f"a batch of model {self._name} could not be run")
            return [*refused, *[(item, defect()) for item in batch]]
        finally:
            if batch:
                self._count(batch, free, started, time.monotonic())

    def _count(self, batch: list[Item], free: float, started: float, ended: float) -> None:
        took_s = ended - started
        rows = sum([item.rows for item in batch])
        try:
            self.room.learn(rows, len(batch), took_s)
            for item in batch:
                if item.told is not None:
                    item.told(free, started, ended, rows)
            if self.observe is not None:
                self.observe(Ran(rows, len(batch), took_s))
        except Exception:  # noqa: BLE001  whoever only looks on must not end anything
            faults.report(logger, f"a batch of model {self._name} could not be counted")
