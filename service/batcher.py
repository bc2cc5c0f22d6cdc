"""The owner of a model: one thread that runs its session, fed by a bounded queue.

Handlers on the event loop put tensors on the queue and await a future, so the loop is never
blocked and health answers while the model is busy. An item is in one of four states:

    waiting -> running -> delivered        the normal way
    waiting -> dropped                     cancelled, or past its deadline before it ran

Room in the queue is counted in samples (rows), not in requests. A request that is cancelled
or late while it waits gives its room back at once; one that is already running runs to its
end, and its result is thrown away. An item that fails, fails alone: the owner lives on.
"""

from __future__ import annotations

import asyncio
import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress

from service.errors import (
    DeadlineExceeded,
    InferenceFailed,
    ModelUnavailable,
    QueueFull,
    ServiceError,
    ShuttingDown,
    TooManySamples,
)
from service.signature import Tensors

logger = logging.getLogger("foldserve.batcher")

Outcome = Tensors | ServiceError
_LONGEST_RETRY_S = 60


class _Item:
    """A request on its way: what to run, until when, and whom to tell."""

    __slots__ = ("deadline", "deliver", "inputs", "request", "rows", "taken")

    def __init__(
        self,
        inputs: Tensors,
        rows: int,
        deadline: float,
        deliver: Callable[[Outcome], object],
        request: str,
    ) -> None:
        self.inputs = inputs
        self.rows = rows
        self.deadline = deadline
        self.deliver = deliver
        self.request = request
        self.taken = False


class Batcher:
    """Runs `run` in its own thread for one caller at a time, in the order of arrival.

    Args:
        run: {input name: array} to {output name: array}; may raise, a ServiceError is
            handed on, anything else becomes InferenceFailed and is logged.
        capacity_samples: rows that may wait, the ones running not counted.
        name: the model's name, for the thread and the log.
    """

    def __init__(self, run: Callable[[Tensors], Tensors], capacity_samples: int, name: str) -> None:
        self.capacity_samples = capacity_samples
        self._run = run
        self._name = name
        self._items: deque[_Item] = deque()
        self._waiting_rows = 0
        self._seconds_per_row = 0.0
        self._closing = False
        self._dead = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._own, name=f"owner-{name}", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether the owner can still take work."""
        return self._thread.is_alive() and not self._closing and not self._dead

    @property
    def waiting_samples(self) -> int:
        """Rows on the queue at this moment, the ones running not counted."""
        return self._waiting_rows

    def check_room(self, rows: int) -> None:
        """Raises what `submit` would raise now; ask before spending time on a decode.

        Raises:
            TooManySamples, QueueFull, ShuttingDown, ModelUnavailable.
        """
        if self._closing:
            raise ShuttingDown("The server is stopping.")
        if self._dead or not self._thread.is_alive():
            raise ModelUnavailable(f"The worker of model {self._name!r} has died.")
        if rows > self.capacity_samples:
            raise TooManySamples(
                f"The request has {rows} rows, the queue holds {self.capacity_samples}."
            )
        if self._waiting_rows + rows > self.capacity_samples:
            wait_s = math.ceil(self._waiting_rows * self._seconds_per_row)
            raise QueueFull(
                f"{self._waiting_rows} of {self.capacity_samples} samples are waiting "
                f"for model {self._name!r}; there is no room for {rows} more.",
                retry_after_s=min(max(wait_s, 1), _LONGEST_RETRY_S),
            )

    async def submit(
        self, inputs: Tensors, rows: int, deadline: float, request: str = ""
    ) -> Tensors:
        """Run the model on `inputs` in its owner thread.

        Args:
            inputs: {input name: array}, already checked against the signature.
            rows: samples in `inputs`, for the room in the queue.
            deadline: on the clock of time.monotonic(), in seconds.
            request: id of the request, for the log.

        Returns:
            {output name: array}.

        Raises:
            ServiceError: what `check_room` raises; DeadlineExceeded; InferenceFailed or
                whatever ServiceError the run raised.
        """
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Outcome] = loop.create_future()

        def settle(outcome: Outcome) -> None:
            if not answer.done():
                answer.set_result(outcome)

        def deliver(outcome: Outcome) -> None:
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(settle, outcome)

        item = _Item(inputs, rows, deadline, deliver, request)
        self._put(item)
        late = DeadlineExceeded("The answer was not ready in time.")
        timer = loop.call_later(max(0.0, deadline - time.monotonic()), settle, late)
        try:
            outcome = await answer
        finally:
            timer.cancel()
            self._abandon(item)
        if isinstance(outcome, ServiceError):
            raise outcome
        return outcome

    def call(self, inputs: Tensors) -> Tensors:
        """`submit` for warm-up and self-test, outside the event loop: blocks, needs no room.

        Raises:
            ServiceError: as `submit`.
        """
        answer: Future[Outcome] = Future()
        self._put(_Item(inputs, 0, math.inf, answer.set_result, "start-up"))
        outcome = answer.result()
        if isinstance(outcome, ServiceError):
            raise outcome
        return outcome

    def close(self, timeout_s: float) -> bool:
        """Take no more, finish what waits, end the thread; False if that took too long."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _put(self, item: _Item) -> None:
        with self._changed:
            self.check_room(item.rows)
            self._items.append(item)
            self._waiting_rows += item.rows
            self._changed.notify()

    def _abandon(self, item: _Item) -> None:
        """Nobody waits for the item any more: free its room if it has not been taken."""
        if item.taken:
            return
        with self._changed, suppress(ValueError):  # the owner may have taken it just now
            self._items.remove(item)
            self._waiting_rows -= item.rows

    def _take(self) -> _Item | None:
        """The next item to run, None when closing and nothing is left."""
        with self._changed:
            while True:
                while self._items:
                    item = self._items.popleft()
                    item.taken = True
                    self._waiting_rows -= item.rows
                    if time.monotonic() < item.deadline:
                        return item
                    item.deliver(DeadlineExceeded("The request waited until its deadline."))
                if self._closing:
                    return None
                self._changed.wait()

    def _own(self) -> None:
        try:
            while (item := self._take()) is not None:
                item.deliver(self._outcome(item))
                del item  # an idle owner must not keep the last request's tensors alive
        finally:
            # Reached without `close` only if the thread itself is broken.
            with self._changed:
                self._dead = True
                left, self._items, self._waiting_rows = self._items, deque(), 0
            for item in left:
                item.deliver(ModelUnavailable(f"The worker of model {self._name!r} has died."))

    def _outcome(self, item: _Item) -> Outcome:
        started = time.monotonic()
        try:
            return self._run(item.inputs)
        except ServiceError as error:
            return error
        except Exception:
            logger.exception("model %s failed on request %s", self._name, item.request)
            return InferenceFailed("The model could not be run on this input.")
        finally:
            per_row = (time.monotonic() - started) / max(item.rows, 1)
            smoothed = self._seconds_per_row or per_row
            self._seconds_per_row = 0.8 * smoothed + 0.2 * per_row
