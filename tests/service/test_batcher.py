"""The owner of a model: order, room, deadlines, cancellation, failure, end."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import weakref
from collections.abc import Iterator

import numpy as np
import pytest

from service import errors
from service.batching.batcher import Batcher
from service.exchange import Exchange
from service.signature import Tensors

FOREVER = float("inf")


class Gate:
    """A model that waits for `go`, and remembers what it ran and in which thread."""

    def __init__(self) -> None:
        self.go = threading.Semaphore(0)
        self.entered = threading.Semaphore(0)
        self.ran: list[float] = []
        self.threads: set[int] = set()

    def __call__(self, inputs: Tensors) -> Tensors:
        self.entered.release()
        assert self.go.acquire(timeout=30)
        value = float(inputs["x"][0])
        self.ran.append(value)
        self.threads.add(threading.get_ident())
        if value < 0:
            raise RuntimeError("a secret of the session")
        if value == 99:
            raise errors.InputRefused("no 99")
        return {"y": inputs["x"] + 1}


@pytest.fixture
def gate() -> Gate:
    return Gate()


@pytest.fixture
def batcher(gate: Gate) -> Iterator[Batcher]:
    made = Batcher(gate, capacity_samples=4, name="m")
    yield made
    gate.go.release(1000)
    assert made.close(timeout_s=30)


def x(value: float, rows: int = 1) -> Tensors:
    return {"x": np.full(rows, value)}


def soon(seconds: float = 30) -> float:
    return time.monotonic() + seconds


def answer(batcher: Batcher, inputs: Tensors) -> Tensors:
    """What one request gets, in an event loop of its own."""
    return asyncio.run(batcher.submit(inputs, 1, soon()))


async def entered(gate: Gate) -> None:
    assert await asyncio.to_thread(gate.entered.acquire, timeout=30)


async def until(condition) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.001)


def test_answers_in_order_from_one_thread_that_is_not_the_loop(gate: Gate):
    batcher = Batcher(gate, capacity_samples=20, name="m")

    async def main():
        gate.go.release(20)
        answers = await asyncio.gather(*(batcher.submit(x(i), 1, soon()) for i in range(20)))
        assert [float(a["y"][0]) for a in answers] == [i + 1 for i in range(20)]

    asyncio.run(main())
    assert batcher.close(timeout_s=30)
    assert gate.ran == list(range(20))
    assert len(gate.threads) == 1
    assert threading.get_ident() not in gate.threads


def test_room_is_counted_in_samples_that_wait(gate: Gate, batcher: Batcher):
    async def main():
        running = asyncio.create_task(batcher.submit(x(0, 4), 4, soon()))
        await entered(gate)
        assert batcher.waiting_samples == 0  # what runs does not wait
        waiting = asyncio.create_task(batcher.submit(x(1, 3), 3, soon()))
        await until(lambda: batcher.waiting_samples == 3)
        with pytest.raises(errors.QueueFull) as caught:
            await batcher.submit(x(2, 2), 2, soon())
        assert caught.value.retry_after_s is not None
        assert caught.value.retry_after_s >= 1
        last = asyncio.create_task(batcher.submit(x(3), 1, soon()))
        await until(lambda: batcher.waiting_samples == 4)
        gate.go.release(3)
        await asyncio.gather(running, waiting, last)
        assert batcher.waiting_samples == 0

    asyncio.run(main())
    assert gate.ran == [0, 1, 3]


def test_more_rows_than_the_whole_queue_is_for_good(batcher: Batcher):
    with pytest.raises(errors.TooManySamples):
        asyncio.run(batcher.submit(x(0, 5), 5, soon()))


def test_a_late_item_is_answered_at_its_deadline_and_never_runs(gate: Gate, batcher: Batcher):
    async def main():
        running = asyncio.create_task(batcher.submit(x(0), 1, soon()))
        await entered(gate)
        with pytest.raises(errors.DeadlineExceeded):
            await batcher.submit(x(1), 4, soon(0.02))
        assert batcher.waiting_samples == 0  # its room is free again
        gate.go.release()
        await running

    asyncio.run(main())
    gate.go.release()
    answer(batcher, x(5))
    assert gate.ran == [0, 5]


def test_an_item_past_its_deadline_is_dropped_even_if_the_loop_is_busy(
    gate: Gate, batcher: Batcher
):
    async def main():
        running = asyncio.create_task(batcher.submit(x(0), 1, soon()))
        await entered(gate)
        late = asyncio.create_task(batcher.submit(x(1), 1, soon(0.02)))
        await until(lambda: batcher.waiting_samples == 1)
        time.sleep(0.03)  # the loop's own timer cannot fire
        gate.go.release()
        while batcher.waiting_samples:
            time.sleep(0.001)
        with pytest.raises(errors.DeadlineExceeded):
            await late
        await running

    asyncio.run(main())
    gate.go.release()
    answer(batcher, x(5))
    assert gate.ran == [0, 5]


def test_a_run_that_outlives_its_deadline_is_thrown_away(gate: Gate, batcher: Batcher):
    async def main():
        with pytest.raises(errors.DeadlineExceeded):
            await batcher.submit(x(0), 1, soon(0.02))
        gate.go.release(2)
        assert float((await batcher.submit(x(1), 1, soon()))["y"][0]) == 2

    asyncio.run(main())
    assert gate.ran == [0, 1]


def test_a_cancelled_item_frees_its_room_and_never_runs(gate: Gate, batcher: Batcher):
    async def main():
        running = asyncio.create_task(batcher.submit(x(0), 1, soon()))
        await entered(gate)
        waiting = asyncio.create_task(batcher.submit(x(1), 4, soon()))
        await until(lambda: batcher.waiting_samples == 4)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert batcher.waiting_samples == 0
        running.cancel()  # already on its way: runs, and nobody listens
        gate.go.release(2)
        assert float((await batcher.submit(x(2), 1, soon()))["y"][0]) == 3

    asyncio.run(main())
    assert gate.ran == [0, 2]


def test_a_failure_is_the_own_failure_of_one_item(
    gate: Gate, batcher: Batcher, caplog: pytest.LogCaptureFixture
):
    async def main():
        gate.go.release(4)
        values = (1, -1, 99, 2)
        return await asyncio.gather(
            *(batcher.submit(x(v), 1, soon(), Exchange(f"id{v}")) for v in values),
            return_exceptions=True,
        )

    good, failed, refused, after = asyncio.run(main())
    assert float(good["y"][0]) == 2
    assert float(after["y"][0]) == 3
    assert isinstance(failed, errors.InferenceFailed)
    assert "secret" not in str(failed.body())
    assert isinstance(refused, errors.InputRefused)
    assert batcher.alive
    assert "id-1" in caplog.text
    assert "a secret of the session" in caplog.text


def test_close_finishes_what_waits_and_refuses_the_rest(gate: Gate, batcher: Batcher):
    async def main():
        tasks = [asyncio.create_task(batcher.submit(x(i), 1, soon())) for i in range(3)]
        await entered(gate)
        closing = asyncio.create_task(asyncio.to_thread(batcher.close, 30))
        await until(lambda: not batcher.alive)
        with pytest.raises(errors.ShuttingDown):
            await batcher.submit(x(9), 1, soon())
        gate.go.release(3)
        assert [float((await t)["y"][0]) for t in tasks] == [1, 2, 3]
        assert await closing

    asyncio.run(main())


def test_close_gives_up_on_a_run_that_hangs(gate: Gate, batcher: Batcher):
    async def main():
        task = asyncio.create_task(batcher.submit(x(0), 1, soon()))
        await entered(gate)
        assert not batcher.close(timeout_s=0.01)
        gate.go.release()
        await task

    asyncio.run(main())


def test_a_dead_owner_fails_what_waits_and_says_so(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    gate = Gate()

    def run(inputs: Tensors) -> Tensors:
        gate(inputs)
        raise SystemExit

    batcher = Batcher(run, 4, "m")

    async def main():
        first = asyncio.create_task(batcher.submit(x(0), 1, soon(0.5)))
        await entered(gate)
        second = asyncio.create_task(batcher.submit(x(1), 1, soon()))
        await until(lambda: batcher.waiting_samples == 1)
        gate.go.release()
        with pytest.raises(errors.ModelUnavailable):
            await second
        assert not batcher.alive
        with pytest.raises(errors.ModelUnavailable):
            await batcher.submit(x(2), 1, soon())
        with pytest.raises(errors.ServiceError):
            await first

    asyncio.run(main())


def test_a_loop_that_has_gone_does_not_hurt_the_owner(gate: Gate, batcher: Batcher):
    async def leave():
        task = asyncio.create_task(batcher.submit(x(0), 1, soon()))
        await entered(gate)
        task.cancel()

    asyncio.run(leave())
    gate.go.release(2)
    assert float(answer(batcher, x(1))["y"][0]) == 2


def test_an_idle_owner_keeps_no_tensor_alive(gate: Gate, batcher: Batcher):
    async def main() -> weakref.ref[np.ndarray]:
        inputs = x(1)
        seen = weakref.ref(inputs["x"])
        gate.go.release()
        await batcher.submit(inputs, 1, soon())
        return seen

    seen = asyncio.run(main())
    end = soon()
    while seen() is not None and time.monotonic() < end:
        gc.collect()
        time.sleep(0.001)
    assert seen() is None


# --- a queue that takes longer than a request can wait ------------------------------------


def test_a_queue_beyond_the_deadline_is_as_good_as_full(gate: Gate, batcher: Batcher):
    """Known: a row takes a second. One waits, so an answer would take some two seconds."""

    async def main():
        running = asyncio.create_task(batcher.submit(x(0), 1, soon()))
        await entered(gate)
        waiting = asyncio.create_task(batcher.submit(x(1), 1, soon()))
        await until(lambda: batcher.waiting_samples == 1)
        batcher.room.seconds_per_row = 1.0
        batcher.check_room(1, time_left_s=5.0)
        with pytest.raises(errors.QueueFull, match="longer than this request can wait") as refused:
            batcher.check_room(1, time_left_s=2.0)
        assert refused.value.retry_after_s == 1
        with pytest.raises(errors.QueueFull):
            await batcher.submit(x(2), 1, soon(2.0))
        gate.go.release(2)
        await asyncio.gather(running, waiting)
        batcher.check_room(1, time_left_s=0.001)  # nothing waits: who knows how long it takes

    asyncio.run(main())


def test_requests_that_arrive_together_are_counted_by_their_usual_size(batcher: Batcher):
    batcher.room.rows_per_request = 1.5
    batcher.check_arrivals(2, FOREVER)
    with pytest.raises(errors.QueueFull, match="arrive at the same time"):
        batcher.check_arrivals(3, FOREVER)
    batcher.room.rows_per_request = (
        9.0  # larger than the queue: a lone one may be smaller than that
    )
    batcher.check_arrivals(1, FOREVER)


def test_a_failed_request_leaves_nothing_for_the_collector(gate: Gate, batcher: Batcher):
    """An error holds the frames that it came through, and they must not hold the error."""

    async def main() -> weakref.ref[np.ndarray]:
        gate.go.release()
        inputs = x(99)
        watched = weakref.ref(inputs["x"])
        with pytest.raises(errors.InputRefused):
            await batcher.submit(inputs, 1, soon())
        del inputs
        await until(lambda: watched() is None)
        return watched

    gc.disable()
    try:
        assert asyncio.run(main())() is None
    finally:
        gc.enable()
