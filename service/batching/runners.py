"""The threads that run a model's session, and the queue from which they take their batches.

What waits when a runner is free is batched at that moment, up to `max_batch_rows`, and shared
among the runners that are idle; nothing waits for more requests unless `max_wait_s` asks for it.

The runners have a lower priority than the event loop (`cpu.give_way`): however much there is to
compute, health checks are answered, and requests that cannot be served are refused at once.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Sequence

from service import cpu
from service.batching.batch import Run
from service.batching.execution import Execution
from service.batching.item import Item
from service.batching.lanes import Lanes
from service.batching.limits import Limits
from service.batching.settling import Deadlines, deliver, late
from service.errors import ModelUnavailable


class Runners:
    """Started at once; they end after `retire`, when the queue is empty.

    `lanes`: the queue. `closing`: no more items are taken. `dead`: a thread is broken.

    Args:
        run: {input name: array} to {output name: array}; may raise.
        run_alone: used in place of `run` for a request that has the machine to itself.
        execution: runs the batches.
        limits: how many threads, and how long the first item of a batch waits for others.
        name: the model's, for the threads and for messages.
    """

    def __init__(
        self, run: Run, run_alone: Run, execution: Execution, limits: Limits, name: str
    ) -> None:
        self.lanes = Lanes()
        self.closing = False
        self.dead = False
        self._run = run
        self._run_alone = run_alone
        self._execution = execution
        self._max_wait_s = limits.max_wait_s
        self._name = name
        self._idle = 0
        self._running: dict[int, list[Item]] = {}  # by runner
        self._deadlines = Deadlines(self)
        self._changed = threading.Condition()
        self.threads = [
            threading.Thread(target=self._own, args=(i,), name=f"owner-{name}-{i}", daemon=True)
            for i in range(limits.runners)
        ]
        for thread in self.threads:
            thread.start()

    @property
    def alive(self) -> bool:
        """Whether they can still take work."""
        return not self.closing and not self.dead and all(t.is_alive() for t in self.threads)

    @property
    def oldest_wait_s(self) -> float:
        """How long the request at the head of the queue has been waiting, 0 when none is."""
        with self._changed:
            head = self.lanes.oldest()
            return 0.0 if head is None else time.monotonic() - head.since

    def put(self, item: Item, admit: Callable[[Item], object]) -> None:
        """Add an item to the queue, and answer it at its deadline at the latest.

        Args:
            item: what to run.
            admit: raises if there is no room for the item. It is called while nothing else can be
                added to the queue or taken from it.
        """
        with self._changed:
            admit(item)
            self.lanes.put(item)
            self._changed.notify()
        self._deadlines.watch([item], item.loop)

    def share(self, items: Sequence[Item]) -> bool:
        """Take items of the event loop, and answer each at its deadline at the latest.

        Returns:
            False, and nothing is taken, if no more work can be done.
        """
        with self._changed:
            if self.closing or self.dead:
                return False
            left = [item for item in items if not item.gone]
            for item in left:
                self.lanes.put(item)
            self._changed.notify_all()
        if left:
            self._deadlines.watch(left, left[0].loop)
        return True

    def under_way(self) -> list[Item]:
        """What waits for a runner, and what runs in one."""
        with self._changed:
            waiting = list(self.lanes)
        # The runners do not ask for the lock: this copy is made in one step.
        running = list(self._running.values())
        return [*waiting, *(item for batch in running for item in batch)]

    def abandon(self, item: Item) -> None:
        """Nobody waits for the item any more: free its room if no runner has taken it."""
        if not item.taken:
            with self._changed:
                self.lanes.drop(item)

    def retire(self) -> None:
        """Take no more, and end once what waits is finished; returns at once."""
        with self._changed:
            self.closing = True
            self._changed.notify_all()

    def join(self, timeout_s: float) -> bool:
        """Wait for the end; False if that took too long."""
        end = time.monotonic() + timeout_s
        for thread in self.threads:
            thread.join(max(0.0, end - time.monotonic()))
        return not any(thread.is_alive() for thread in self.threads)

    def _own(self, runner: int) -> None:
        cpu.give_way()
        work = None
        free = time.monotonic()
        try:
            while (work := self._take()) is not None:
                self._running[runner] = work[0]
                deliver(self._execution.outcomes(*work, free))
                del self._running[runner]
                work = None  # an idle runner must not keep the last request's tensors alive
                free = time.monotonic()
        except BaseException:  # the thread itself is broken, for example out of memory
            with self._changed:
                self.dead = True
                self._running.pop(runner, None)
                left = [*(work[0] if work else ()), *self.lanes.clear()]
            error = died(self._name)
            deliver([(item, error) for item in left])
            raise

    def _take(self) -> tuple[list[Item], Run] | None:
        """The next batch and how to run it, None when closing and nothing is left."""
        with self._changed:
            self._idle += 1
            try:
                while True:
                    wait_s = self._wait_s()
                    if wait_s is not None and wait_s <= 0:
                        batch, expired = self.lanes.take(self._limit(), time.monotonic())
                        if expired:
                            deliver([(item, late()) for item in expired])
                        if batch:
                            everyone_idle = self._idle == len(self.threads)
                            alone = len(batch) == 1 and everyone_idle and not self.lanes
                            return batch, self._run_alone if alone else self._run
                    elif wait_s is None and self.closing:
                        return None
                    else:
                        self._changed.wait(wait_s)
            finally:
                self._idle -= 1

    def _limit(self) -> int:
        """Rows of the next batch at most."""
        most = self._execution.max_batch_rows
        if self._max_wait_s > 0:
            return most  # what has waited for each other is to run together
        # The other idle runners are woken too, and each of them gets a share.
        share = math.ceil(self.lanes.rows / self._idle)
        return min(most, max(share, 1))

    def _wait_s(self) -> float | None:
        """How long the next batch has to wait for more requests, None when there is no next one."""
        head = self.lanes.oldest()
        if head is None:
            return None
        full = self.lanes.has_with(head, self._execution.max_batch_rows)
        if self._max_wait_s <= 0 or self.closing or full:
            return 0.0
        # Half of the time that the request has is left for its run.
        wait_s = min(self._max_wait_s, (head.deadline - head.since) / 2)
        return head.since + wait_s - time.monotonic()


def died(name: str) -> ModelUnavailable:
    """The error for requests of a model of which a thread is broken."""
    return ModelUnavailable(f"The worker of model {name!r} has died.")
