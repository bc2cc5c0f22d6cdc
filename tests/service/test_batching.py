"""Batches: what is joined, what never is, and that each request gets its own rows."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
import time
import weakref
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from service import errors
from service.batching import turn
from service.batching.batcher import Batcher
from service.batching.item import Awaited, Item, lane_of
from service.batching.lanes import Lanes
from service.batching.limits import Limits, Ran
from service.signature import Tensors

POISON = -1.0


class Model:
    """y = x + 1 by rows; remembers the rows of each run; holds every run until `go`."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.entered = threading.Semaphore(0)
        self.ran: list[list[float]] = []
        self.lock = threading.Lock()

    def __call__(self, inputs: Tensors) -> Tensors:
        self.entered.release()
        assert self.go.wait(timeout=60)
        x = inputs["x"]
        with self.lock:
            self.ran.append(np.ravel(x).tolist())
        if (x == POISON).any():
            raise RuntimeError("a poisonous row")
        return {"y": x + 1}


@pytest.fixture
def model() -> Model:
    return Model()


@pytest.fixture
def make(model: Model) -> Iterator[Callable[..., Batcher]]:
    made: list[Batcher] = []

    def begin(run=model, capacity: int = 1000, run_alone=None, **limits) -> Batcher:
        made.append(Batcher(run, capacity, "m", Limits(**limits), run_alone))
        return made[-1]

    yield begin
    model.go.set()
    for one in made:
        assert one.close(timeout_s=60)


def x(*values: float) -> Tensors:
    return {"x": np.array(values)}


def soon(seconds: float = 60) -> float:
    return time.monotonic() + seconds


async def until(condition) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.001)


async def entered(model: Model) -> None:
    assert await asyncio.to_thread(model.entered.acquire, timeout=60)


def ask(batcher: Batcher, *values: float, deadline: float | None = None) -> asyncio.Task[Tensors]:
    return asyncio.create_task(
        batcher.submit(x(*values), len(values), soon() if deadline is None else deadline)
    )


async def busy_with(batcher: Batcher, model: Model) -> asyncio.Task[Tensors]:
    """The runner holds a request of its own; what is asked now waits."""
    first = ask(batcher, 100)
    await entered(model)
    return first


def rows(answer: Tensors) -> list[float]:
    return answer["y"].tolist()


def test_what_waits_is_joined_the_moment_the_owner_is_free(model: Model, make):
    batcher = make(max_batch_rows=8)

    async def main():
        first = await busy_with(batcher, model)
        asked = [ask(batcher, 1), ask(batcher, 2, 3), ask(batcher, 4)]
        await until(lambda: batcher.waiting_samples == 4)
        model.go.set()
        assert [rows(a) for a in await asyncio.gather(*asked)] == [[2], [3, 4], [5]]
        assert rows(await first) == [101]

    asyncio.run(main())
    assert model.ran == [[100], [1, 2, 3, 4]]


def test_samples_count_and_not_requests(model: Model, make):
    """At most 4 rows are joined; a request of 6 is one run by itself, nothing jumps ahead."""
    batcher = make(max_batch_rows=4)

    async def main():
        first = await busy_with(batcher, model)
        asked = []
        total = 0
        for values in ((1, 2, 3), (4, 5), (6,), (10, 11, 12, 13, 14, 15), (7,), (8, 9), (1, 1)):
            asked.append(ask(batcher, *values))
            total += len(values)
            await until(lambda total=total: batcher.waiting_samples == total)
        model.go.set()
        await asyncio.gather(first, *asked)

    asyncio.run(main())
    assert model.ran == [
        [100], [1, 2, 3], [4, 5, 6], [10, 11, 12, 13, 14, 15], [7, 8, 9], [1, 1],
    ]  # fmt: skip


def test_a_poisonous_request_fails_alone(model: Model, make, caplog: pytest.LogCaptureFixture):
    batcher = make(max_batch_rows=8)

    async def main():
        first = await busy_with(batcher, model)
        asked = [ask(batcher, 1), ask(batcher, POISON), ask(batcher, 2, 3)]
        await until(lambda: batcher.waiting_samples == 4)
        model.go.set()
        await first
        return await asyncio.gather(*asked, return_exceptions=True)

    one, bad, two = asyncio.run(main())
    assert (rows(one), rows(two)) == ([2], [3, 4])
    assert isinstance(bad, errors.InferenceFailed)
    assert model.ran == [[100], [1, POISON, 2, 3], [1], [POISON], [2, 3]]
    assert len([r for r in caplog.records if r.levelno >= logging.ERROR]) == 1
    assert "a poisonous row" in caplog.text
    assert batcher.alive


def test_the_cancelled_and_the_late_are_dropped_before_the_batch_forms(model: Model, make):
    batcher = make(max_batch_rows=8)

    async def main():
        first = await busy_with(batcher, model)
        gone, late, good = ask(batcher, 1), ask(batcher, 2, deadline=soon(0.02)), ask(batcher, 3)
        await until(lambda: batcher.waiting_samples == 3)
        gone.cancel()
        with pytest.raises(errors.DeadlineExceeded):
            await late
        assert batcher.waiting_samples == 1
        model.go.set()
        await first
        assert rows(await good) == [4]

    asyncio.run(main())
    assert model.ran == [[100], [3]]


def test_those_who_leave_during_a_failing_batch_are_not_run_again(make):
    go, entered_ = threading.Event(), threading.Event()
    ran: list[list[float]] = []

    def run(inputs: Tensors) -> Tensors:
        ran.append(inputs["x"].tolist())
        if len(ran) == 1:
            return inputs
        if len(ran) == 2:
            entered_.set()
            assert go.wait(60)
            raise RuntimeError
        return {"y": inputs["x"]}

    batcher = make(run, max_batch_rows=8, max_wait_s=60)

    async def main():
        await ask(batcher, *range(8))  # a full batch: it does not wait for others
        asked = [ask(batcher, *values) for values in ((1, 1, 1), (2, 2, 2), (3, 3))]
        await asyncio.to_thread(entered_.wait, 60)
        asked[1].cancel()
        await asyncio.wait(asked[1:2])
        go.set()
        await asyncio.gather(asked[0], asked[2])

    asyncio.run(main())
    assert ran[2:] == [[1, 1, 1], [3, 3]]


def test_only_equal_shapes_and_dtypes_are_joined_and_every_lane_has_its_turn(model: Model, make):
    batcher = make(max_batch_rows=3, one_shape=False)

    def put(array: np.ndarray) -> asyncio.Task[Tensors]:
        return asyncio.create_task(batcher.submit({"x": array}, len(array), soon()))

    async def main():
        first = put(np.full((1, 5), 9.0))
        await entered(model)
        asked = []
        for array in (
            np.full((1, 1), 1.0), np.full((1, 1), 2.0), np.full((1, 2), 3.0),
            np.full((1, 1), 4.0), np.full((1, 1), 5.0), np.full((1, 2), 6.0),
            np.full((1, 1), 7.0, np.float32),
        ):  # fmt: skip
            asked.append(put(array))
            await until(lambda: batcher.waiting_samples == len(asked))
        model.go.set()
        answers = await asyncio.gather(*asked)
        assert [a["y"].shape for a in answers] == [(1, 1), (1, 1), (1, 2), (1, 1), (1, 1), (1, 2),
                                                   (1, 1)]  # fmt: skip
        assert answers[-1]["y"].dtype == np.float32
        await first

    asyncio.run(main())
    # The lane of the first comes first and takes 4 along; then the lane of 3, before 5.
    assert model.ran == [[9] * 5, [1, 2, 4], [3, 3, 6, 6], [5], [7]]


def test_outputs_without_the_rows_that_went_in_end_batching(make, caplog: pytest.LogCaptureFixture):
    """One sum a run, whatever the rows: joined, it would be a wrong answer for everybody."""
    model = Model()
    runs: list[int] = []

    def total(inputs: Tensors) -> Tensors:
        runs.append(len(inputs["x"]))
        return {"y": model(inputs)["y"].sum(keepdims=True)}

    batcher = make(total, max_batch_rows=8)

    async def main():
        first = await busy_with(batcher, model)
        asked = [ask(batcher, 1, 2), ask(batcher, 3, 4, 5)]
        await until(lambda: batcher.waiting_samples == 5)
        model.go.set()
        await first
        assert [rows(a) for a in await asyncio.gather(*asked)] == [[5], [15]]
        again = [ask(batcher, i, i) for i in range(8)]
        assert [rows(a) for a in await asyncio.gather(*again)] == [[2 * i + 2] for i in range(8)]

    asyncio.run(main())
    assert batcher.max_batch_rows == 1
    assert runs == [1, 5, 2, 3] + [2] * 8
    assert caplog.text.count("not batched any more") == 1


def test_an_output_of_as_many_rows_as_one_request_is_not_taken_for_its_own(make):
    """The check is on the whole batch, so a constant of two rows is noticed too."""
    model = Model()

    def constant(inputs: Tensors) -> Tensors:
        model(inputs)
        return {"y": np.array([7.0, 8.0])}

    batcher = make(constant, max_batch_rows=8)

    async def main():
        first = await busy_with(batcher, model)
        asked = [ask(batcher, 1), ask(batcher, 2, 3)]
        await until(lambda: batcher.waiting_samples == 3)
        model.go.set()
        await first
        assert [rows(a) for a in await asyncio.gather(*asked)] == [[7, 8], [7, 8]]

    asyncio.run(main())


def test_idle_runners_share_what_waits_and_run_at_the_same_time(model: Model, make):
    batcher = make(runners=2, max_batch_rows=8)

    async def main():
        await until(lambda: batcher.runners._idle == 2)
        with batcher.runners._changed:  # all six are there before a runner can look
            asked = [ask(batcher, i) for i in range(6)]
            await until(lambda: batcher.waiting_samples == 6)
        await entered(model)
        await entered(model)
        model.go.set()
        await asyncio.gather(*asked)

    asyncio.run(main())
    assert sorted(model.ran) == [[0, 1, 2], [3, 4, 5]]


def test_a_request_that_is_alone_may_have_a_session_of_its_own(model: Model, make):
    alone: list[float] = []

    def run_alone(inputs: Tensors) -> Tensors:
        alone.extend(inputs["x"].tolist())
        return model(inputs)

    batcher = make(runners=2, run_alone=run_alone)

    async def main():
        first = await busy_with(batcher, model)
        second = ask(batcher, 1)
        await entered(model)
        model.go.set()
        await asyncio.gather(first, second)
        await until(lambda: batcher.runners._idle == 2)
        await ask(batcher, 2)

    asyncio.run(main())
    assert alone == [100, 2]


def test_a_wait_for_company_ends_when_the_batch_is_full(model: Model, make):
    model.go.set()
    batcher = make(max_batch_rows=4, max_wait_s=3600)

    async def main():
        asked = [ask(batcher, i) for i in range(4)]
        await asyncio.gather(*asked)

    asyncio.run(main())
    assert model.ran == [[0, 1, 2, 3]]


@pytest.mark.parametrize("runners", [2, 4])
def test_what_has_waited_for_company_is_one_batch_however_many_runners(
    model: Model, make, runners: int
):
    model.go.set()
    batcher = make(runners=runners, max_batch_rows=64, max_wait_s=0.1)

    async def main():
        asked = [ask(batcher, i) for i in range(8)]
        await asyncio.gather(*asked)

    asyncio.run(main())
    assert model.ran == [list(range(8))]


def test_more_than_a_batch_holds_is_as_few_batches_as_can_be(model: Model, make):
    model.go.set()
    batcher = make(runners=2, max_batch_rows=4, max_wait_s=3600)

    async def main():
        await until(lambda: batcher.runners._idle == 2)
        with batcher.runners._changed:
            asked = [ask(batcher, i) for i in range(8)]
            await until(lambda: batcher.waiting_samples == 8)
        await asyncio.gather(*asked)

    asyncio.run(main())
    assert sorted(model.ran) == [[0, 1, 2, 3], [4, 5, 6, 7]]


def test_a_wait_for_company_ends_by_itself_and_leaves_time_to_run(model: Model, make):
    model.go.set()
    batcher = make(max_batch_rows=4, max_wait_s=0.005)
    waiting = make(max_batch_rows=4, max_wait_s=3600)

    async def main():
        assert rows(await ask(batcher, 1)) == [2]
        assert rows(await ask(waiting, 2, deadline=soon(3))) == [3]

    asyncio.run(main())
    assert model.ran == [[1], [2]]


@pytest.mark.parametrize("runners", [1, 2])
def test_two_within_the_window_are_one_run_whatever_else_waits(model: Model, make, runners: int):
    """What waits in another lane neither fills their batch nor ends their wait."""
    model.go.set()
    batcher = make(runners=runners, max_batch_rows=3, max_wait_s=1, one_shape=False)

    async def main():
        first = ask(batcher, 1)
        await until(lambda: batcher.waiting_samples == 1)
        other = asyncio.ensure_future(batcher.submit({"x": np.ones((2, 5))}, 2, soon()))
        await until(lambda: batcher.waiting_samples == 3)
        await asyncio.sleep(0.05)
        assert model.ran == []
        await asyncio.gather(first, ask(batcher, 2), other)

    asyncio.run(main())
    assert sorted(map(len, model.ran)) == [2, 10]
    assert [1, 2] in model.ran


def test_closing_does_not_wait_for_company(model: Model, make):
    model.go.set()
    batcher = make(max_batch_rows=4, max_wait_s=3600)

    async def main():
        task = ask(batcher, 1)
        await until(lambda: batcher.waiting_samples == 1)
        assert await asyncio.to_thread(batcher.close, 60)
        assert rows(await task) == [2]

    asyncio.run(main())


def test_each_batch_is_observed(model: Model, make):
    seen: list[Ran] = []
    batcher = make(max_batch_rows=8)
    batcher.execution.observe = seen.append

    async def main():
        first = await busy_with(batcher, model)
        asked = [ask(batcher, 1), ask(batcher, 2, 3)]
        await until(lambda: batcher.waiting_samples == 3)
        assert batcher.oldest_wait_s > 0
        model.go.set()
        await asyncio.gather(first, *asked)

    asyncio.run(main())
    assert [(ran.rows, ran.requests) for ran in seen] == [(1, 1), (3, 2)]
    assert batcher.oldest_wait_s == 0


# --- on the event loop ------------------------------------------------------------------


@pytest.fixture
def quick(model: Model) -> Model:
    model.go.set()
    return model


def test_one_turn_of_the_loop_is_one_batch_in_the_loops_own_thread(quick: Model, make):
    threads = set()

    def run(inputs: Tensors) -> Tensors:
        threads.add(threading.get_ident())
        return quick(inputs)

    batcher = make(run, max_batch_rows=8, inline_rows=4)

    async def main():
        asked = [ask(batcher, i) for i in range(6)]
        assert [rows(a) for a in await asyncio.gather(*asked)] == [[i + 1] for i in range(6)]
        assert batcher.waiting_samples == 0

    asyncio.run(main())
    assert quick.ran == [[0, 1, 2, 3], [4, 5]]
    assert threads == {threading.get_ident()}


@pytest.mark.parametrize(
    ("row_s", "runners", "shared"), [(1, 2, True), (1, 1, False), (0, 2, False)]
)
def test_a_turn_with_much_work_is_shared_by_the_runners(
    quick: Model, make, row_s: float, runners: int, shared: bool
):
    threads = set()

    def run(inputs: Tensors) -> Tensors:
        threads.add(threading.get_ident())
        return quick(inputs)

    batcher = make(run, max_batch_rows=2, inline_rows=8, runners=runners, row_s=row_s)

    async def main():
        asked = [ask(batcher, i) for i in range(6)]
        late, cancelled = ask(batcher, 7, deadline=soon(-1)), ask(batcher, 8)
        asyncio.get_running_loop().call_soon(cancelled.cancel)
        answers = await asyncio.gather(*asked)
        with pytest.raises(errors.DeadlineExceeded):
            await late
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        return answers

    assert [rows(a) for a in asyncio.run(main())] == [[i + 1] for i in range(6)]
    assert sorted(x for ran in quick.ran for x in ran) == list(range(6))
    assert (threading.get_ident() not in threads) == shared
    assert batcher.waiting_samples == 0


def test_a_larger_request_still_runs_in_a_thread(quick: Model, make):
    batcher = make(max_batch_rows=8, inline_rows=2)
    asyncio.run(batcher.submit(x(1, 2, 3), 3, soon()))
    assert quick.ran == [[1, 2, 3]]


def test_on_the_loop_poison_cancelled_and_late_requests_are_their_own_affair(quick: Model, make):
    batcher = make(max_batch_rows=8, inline_rows=8, capacity=6)

    async def main():
        asked = [
            ask(batcher, 1), ask(batcher, POISON), ask(batcher, 2),
            ask(batcher, 3, deadline=soon(-1)), ask(batcher, 4), ask(batcher, 5), ask(batcher, 6),
        ]  # fmt: skip
        asyncio.get_running_loop().call_soon(asked[2].cancel)
        return await asyncio.gather(*asked, return_exceptions=True)

    one, poison, cancelled, late, four, five, full = asyncio.run(main())
    assert [rows(a) for a in (one, four, five)] == [[2], [5], [6]]
    assert isinstance(poison, errors.InferenceFailed)
    assert isinstance(cancelled, asyncio.CancelledError)
    assert isinstance(late, errors.DeadlineExceeded)
    assert isinstance(full, errors.QueueFull)
    assert quick.ran == [[1, POISON, 4, 5], [1], [POISON], [4], [5]]
    assert batcher.waiting_samples == 0


def test_a_run_on_the_loop_that_outlives_a_deadline_is_no_answer(make):
    def run(inputs: Tensors) -> Tensors:
        time.sleep(0.05)
        return {"y": inputs["x"]}

    batcher = make(run, max_batch_rows=8, inline_rows=8)

    async def main():
        answers = await asyncio.gather(
            ask(batcher, 1, deadline=soon(0.01)), ask(batcher, 2), return_exceptions=True
        )
        assert isinstance(answers[0], errors.DeadlineExceeded)
        assert rows(answers[1]) == [2]

    asyncio.run(main())


def test_one_by_one_looks_at_the_clock_before_each(make):
    """A batch that fails takes its time again for each of its requests."""
    ran: list[list[float]] = []
    deadline = soon(1)

    def run(inputs: Tensors) -> Tensors:
        ran.append(inputs["x"].tolist())
        if len(ran[-1]) > 1:
            raise RuntimeError
        time.sleep(max(0.0, deadline - time.monotonic()))
        return {"y": inputs["x"]}

    batcher = make(run, max_batch_rows=8, inline_rows=8)

    async def main():
        asked = [ask(batcher, i, deadline=deadline) for i in (1, 2, 3)]
        answers = await asyncio.gather(*asked, return_exceptions=True)
        assert [type(each) for each in answers] == [errors.DeadlineExceeded] * 3

    asyncio.run(main())
    assert ran == [[1, 2, 3], [1]]


@pytest.mark.parametrize("by_task", [True, False])
def test_what_leaves_the_loop_keeps_its_deadline(model: Model, make, by_task: bool):
    """Both runners hang: who waits for them is told at its own time, and gives its room back."""
    batcher = make(max_batch_rows=1, inline_rows=8, runners=2, row_s=1.0, capacity=8)

    async def main():
        loop = asyncio.get_running_loop()
        said: list[tuple[int, object]] = []

        def enter(value: int, deadline: float) -> None:
            if by_task:
                task = ask(batcher, value, deadline=deadline)
                task.add_done_callback(lambda task: said.append((value, task.exception())))
                return
            item = Awaited(x(value), 1, deadline, loop)
            item.future.add_done_callback(lambda answer: said.append((value, answer.result())))
            batcher.enter(item)

        enter(0, soon(0.5))  # these two run, and a later one has less time
        enter(1, soon(0.6))
        await entered(model)
        await entered(model)
        enter(2, soon(60))
        enter(3, soon(0.05))
        await until(lambda: len(said) == 3)
        assert [value for value, _ in said] == [3, 0, 1]
        assert {type(error) for _, error in said} == {errors.DeadlineExceeded}
        assert batcher.waiting_samples == 1
        model.go.set()
        await until(lambda: len(said) == 4)
        assert said[3][0] == 2
        assert not isinstance(said[3][1], errors.ServiceError)
        await until(lambda: len(model.ran) == 3)  # also what nobody waits for any more

    asyncio.run(main())
    assert sorted(x for ran in model.ran for x in ran) == [0, 1, 2]


@pytest.mark.parametrize("by_task", [True, False])
def test_who_leaves_after_a_turn_was_shared_gives_its_room_back(model: Model, make, by_task: bool):
    batcher = make(max_batch_rows=1, inline_rows=8, runners=2, row_s=1.0)

    async def main():
        loop = asyncio.get_running_loop()
        stay = [ask(batcher, 0), ask(batcher, 1)]  # both runners have one
        await entered(model)
        await entered(model)
        if by_task:
            leaves = ask(batcher, 2)
        else:
            item = Awaited(x(2), 1, soon(), loop)
            batcher.enter(item)
        stay.append(ask(batcher, 3))
        await until(lambda: batcher.runners.lanes.rows == 2)
        if by_task:
            leaves.cancel()
            await asyncio.wait([leaves])
        else:
            batcher.abandon(item)
        assert batcher.waiting_samples == 1
        model.go.set()
        assert [rows(answer) for answer in await asyncio.gather(*stay)] == [[1], [2], [4]]

    asyncio.run(main())
    assert sorted(x for ran in model.ran for x in ran) == [0, 1, 3]


def test_the_timer_of_deadlines_does_not_keep_a_model_alive():
    def run(inputs: Tensors) -> Tensors:
        return {"y": inputs["x"]}

    async def main():
        batcher = Batcher(run, 8, "m", Limits(runners=2, inline_rows=8, row_s=1.0))
        gone = weakref.ref(batcher)
        await ask(batcher, 1, deadline=soon(3600))
        assert await asyncio.to_thread(batcher.close, 60)
        del batcher
        gc.collect()
        assert gone() is None

    asyncio.run(main())


def test_a_turn_of_a_loop_that_has_gone_does_not_hurt_the_next(quick: Model, make):
    batcher = make(max_batch_rows=8, inline_rows=8)

    loop = asyncio.new_event_loop()
    task = loop.create_task(batcher.submit(x(1), 1, soon()))
    loop.call_soon(loop.stop)  # after the task has asked, before the end of its turn
    loop.run_forever()
    task._log_destroy_pending = False  # type: ignore[attr-defined]
    loop.close()
    assert batcher.waiting_samples == 1
    assert rows(asyncio.run(batcher.submit(x(2), 1, soon()))) == [3]
    assert batcher.waiting_samples == 0


def test_a_model_that_turns_out_slow_leaves_the_loop(
    quick: Model, make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr(turn, "TOO_LONG_S", -1.0)
    batcher = make(max_batch_rows=8, inline_rows=8)

    async def main():
        for i in range(5):
            assert rows(await batcher.submit(x(i), 1, soon())) == [i + 1]

    asyncio.run(main())
    assert batcher.inline_rows == 0
    assert caplog.text.count("runs in a thread from now on") == 1


# --- the waiting line -------------------------------------------------------------------


def item(rows: int, lane: str = "", deadline: float = 1e9) -> Item:
    loop = asyncio.new_event_loop()
    made = Awaited({}, rows, deadline, loop)
    made.lane, made.since = (lane,), time.monotonic()
    loop.close()
    return made


def test_a_flooded_lane_does_not_starve_another():
    lanes = Lanes()
    for _ in range(10):
        lanes.put(item(1, "flooded"))
    rare = item(1, "rare")
    lanes.put(rare)
    served = []
    while rare not in served:
        for _ in range(4):  # the flood goes on
            lanes.put(item(1, "flooded"))
        batch, _ = lanes.take(4, 0.0)
        assert len({i.lane for i in batch}) == 1
        served += batch
    assert len(served) <= 13  # the ten before it, and what filled the last of their batches


def test_the_lanes_account_for_every_row():
    random = np.random.default_rng(0)
    lanes = Lanes()
    waiting: list[Item] = []
    for step in range(3000):
        kind = random.integers(0, 5)
        if kind < 3:
            new = item(int(random.integers(1, 6)), str(random.integers(0, 4)),
                       float(step + random.integers(1, 60)))  # fmt: skip
            lanes.put(new)
            waiting.append(new)
        elif kind == 3 and waiting:
            left = waiting.pop(int(random.integers(0, len(waiting))))
            assert lanes.drop(left)
            assert not lanes.drop(left)
        else:
            batch, expired = lanes.take(8, float(step))
            if waiting and len(expired) < len(waiting):
                assert batch
            assert sum(i.rows for i in batch) <= 8
            assert all(i.deadline > step for i in batch)
            assert all(i.deadline <= step for i in expired)
            for taken in (*batch, *expired):
                waiting.remove(taken)
        assert lanes.rows == sum(i.rows for i in waiting)
        assert bool(lanes) == bool(waiting)
        assert lanes.oldest() is (min(waiting, key=lambda i: i.since) if waiting else None)
    assert set(lanes.clear()) == set(waiting)


def test_a_lane_is_names_shapes_and_dtypes():
    a = {"a": np.zeros((1, 2)), "b": np.zeros((1, 3), np.float32)}
    same = {"b": np.ones((7, 3), np.float32), "a": np.ones((7, 2))}
    assert lane_of(a) == lane_of(same)
    for other in (
        {**a, "a": np.zeros((1, 3))},
        {**a, "b": np.zeros((1, 3))},
        {"a": a["a"], "c": a["b"]},
    ):
        assert lane_of(a) != lane_of(other)
