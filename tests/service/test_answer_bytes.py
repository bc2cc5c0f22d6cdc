"""The bytes of answers are counted where they are made, however far behind the event loop is."""

from __future__ import annotations

import asyncio
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import repository
from onnx import TensorProto

from service.batching.batcher import Batcher
from service.batching.limits import Limits
from service.budget import Budget
from service.errors import ServiceError, TooManyBytes
from service.exchange import COUNTED_BYTES, Exchange
from service.manifest import Manifest
from service.signature import Signature, Tensors

ROW = 2 * COUNTED_BYTES
LIMITS = {
    "in threads": Limits(runners=2),
    "in batches": Limits(runners=2, max_batch_rows=3),
    "on the event loop": Limits(runners=1, max_batch_rows=3, inline_rows=3),
}


class Model:
    """y = x, each value of it in a row of ROW bytes; `ran` is the rows that it was run on."""

    def __init__(self, *, by_rows: bool = True) -> None:
        self.ran = 0
        self._lock = threading.Lock()
        self._by_rows = by_rows

    def __call__(self, inputs: Tensors) -> Tensors:
        x = inputs["x"]
        with self._lock:
            self.ran += len(x)
        y = np.repeat(x[:, None], ROW // 8, axis=1)
        return {"y": y if self._by_rows or len(x) == 1 else y[:1]}


def crowd(batcher: Batcher, budget: Budget, requests: int) -> list[Tensors | BaseException]:
    """Requests that have all been run, or refused, before the event loop looks at the first."""

    async def main() -> list[Tensors | BaseException]:
        books = [Exchange(str(i), budget) for i in range(requests)]
        tasks = [
            asyncio.ensure_future(
                batcher.submit({"x": np.array([float(i)])}, 1, time.monotonic() + 60, each)
            )
            for i, each in enumerate(books)
        ]
        while not (batcher.waiting_samples or any(task.done() for task in tasks)):
            await asyncio.sleep(0)
        end = time.monotonic() + 60
        while not batcher.inline_rows and (batcher.waiting_samples or batcher.runners.under_way()):
            assert time.monotonic() < end
            time.sleep(0.001)  # the loop itself waits: nothing is taken from it
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        served = [outcome for outcome in outcomes if isinstance(outcome, dict)]
        assert budget.held == len(served) * ROW
        for each in books:
            each.release()
        return outcomes

    outcomes = asyncio.run(main())
    assert budget.held == 0
    for i, outcome in enumerate(outcomes):
        if isinstance(outcome, dict):
            assert np.array_equal(outcome["y"], np.full((1, ROW // 8), float(i)))
        else:
            assert type(outcome) is TooManyBytes
    return outcomes


@pytest.mark.parametrize("where", LIMITS)
def test_what_has_no_room_for_its_answer_is_not_run(where: str):
    model = Model()
    batcher = Batcher(model, 64, "m", LIMITS[where], answer_row_bytes=ROW)
    outcomes = crowd(batcher, Budget(5 * ROW), 10)
    assert len([outcome for outcome in outcomes if isinstance(outcome, dict)]) == 4
    assert model.ran == 4
    assert batcher.close(60)


@pytest.mark.parametrize("where", LIMITS)
@pytest.mark.parametrize("by_rows", [True, False])
def test_an_answer_of_unknown_size_is_counted_once_it_is_there(where: str, by_rows: bool):
    model = Model(by_rows=by_rows)
    batcher = Batcher(model, 64, "m", LIMITS[where])
    outcomes = crowd(batcher, Budget(5 * ROW), 10)
    assert len([outcome for outcome in outcomes if isinstance(outcome, dict)]) == 4
    assert batcher.close(60)


def test_a_batch_that_falls_apart_runs_only_what_has_room():
    model = Model(by_rows=False)
    batcher = Batcher(model, 64, "m", Limits(runners=1, max_batch_rows=10), answer_row_bytes=ROW)
    outcomes = crowd(batcher, Budget(5 * ROW), 10)
    assert len([outcome for outcome in outcomes if isinstance(outcome, dict)]) == 4
    assert batcher.close(60)


def test_what_was_made_before_still_counts_while_the_model_runs():
    budget = Budget(10 * ROW)
    picture = Exchange("a", budget)
    picture.hold(1000)
    picture.make(3 * ROW)  # the tensors, which are there until the answer is
    picture.expect(ROW)
    assert budget.held == 3 * ROW
    picture.expect(4 * ROW)
    assert budget.held == 4 * ROW
    picture.answer(5000)
    assert budget.held == 5000
    picture.release()
    assert budget.held == 0


def test_small_answers_are_not_counted():
    budget = Budget(10)
    small = Exchange("a", budget)
    small.expect(COUNTED_BYTES)
    small.answer(COUNTED_BYTES)
    assert budget.held == 0


def test_a_request_that_ends_while_it_is_counted_leaves_nothing_behind():
    class Interrupted(Budget):
        """The request ends, in another thread, while it is counted."""

        def take(self, size: int, own: int = 0) -> None:
            super().take(size, own)
            end.start()
            end.join(0.1)

    budget = Interrupted(10 * ROW)
    books = Exchange("a", budget)
    end = threading.Thread(target=books.release)
    books.expect(ROW)
    end.join()
    assert budget.held == 0
    books.expect(2 * ROW)  # nobody waits for it any more
    assert budget.held == 0


def test_the_size_of_a_row_of_the_answer(tmp_path: Path):
    def row_bytes(name: str, model) -> int:
        folder = repository.publish(tmp_path, name, model)
        return Signature.of(
            Manifest.model_validate_json((folder / "model.json").read_text())
        ).answer_row_bytes()

    assert row_bytes("linear", repository.linear(classes=3)) == 12
    assert row_bytes("pair", repository.pair()) == 2 * 4 + 2
    assert row_bytes("fixed", repository.linear(batch=2)) == 0  # its rows are not the request's
    free = repository.elementwise("Neg", TensorProto.FLOAT, ("batch", "time"))
    assert row_bytes("free", free) == 0
    assert row_bytes("text", repository.sums_of_text()) == 0


def test_a_refusal_before_the_run_says_nothing_of_how_long_runs_take():
    batcher = Batcher(Model(), 64, "m", Limits(), answer_row_bytes=ROW)
    seen: list[object] = []
    batcher.execution.observe = seen.append

    class Refusing(Exchange):
        def expect(self, _: int) -> None:
            raise TooManyBytes("no room")

    async def main() -> None:
        with pytest.raises(ServiceError, match="no room"):
            await batcher.submit({"x": np.ones(1)}, 1, time.monotonic() + 60, Refusing("1"))

    asyncio.run(main())
    assert seen == []
    assert batcher.room.seconds_per_row == 0
    assert batcher.close(60)
