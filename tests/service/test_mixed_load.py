"""Thousands of concurrent requests of all kinds against real sessions: not one wrong row.

Good requests of different sizes and shapes, poison, cancellations and deadlines that are too
short, all at once, for each way in which a model can be run. Each answer is compared with
onnxruntime's own for that very request.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import repository
from onnx import TensorProto, helper

from service import device, errors
from service.batching.choose import RunSettings
from service.models import model
from service.signature import Tensors

pytestmark = pytest.mark.slow

REQUESTS = 4000
AT_ONCE = 400


def gathering():
    """Two inputs, two outputs, open time axis: y = table[index] summed over time, z = b * 2.

    An index of 9 is poison: the Gather refuses it, and the whole run with it.
    """
    return repository.graph(
        [
            helper.make_node("Gather", ["table", "index"], ["rows"]),
            helper.make_node("ReduceSum", ["rows", "time"], ["y"], keepdims=0),
            helper.make_node("Add", ["b", "b"], ["z"]),
        ],
        [
            repository.value("index", TensorProto.INT64, ["batch", "time"]),
            repository.value("b", TensorProto.FLOAT, ["batch", 3]),
        ],
        [
            repository.value("y", TensorProto.FLOAT, ["batch", 2]),
            repository.value("z", TensorProto.FLOAT, ["batch", 3]),
        ],
        {
            "table": np.random.default_rng(0).standard_normal((9, 2)).astype(np.float32),
            "time": np.array([1], np.int64),
        },
    )


def fixed_time():
    """The same with 4 steps of time: one lane only."""
    made = gathering()
    made.graph.input[0].type.tensor_type.shape.dim[1].Clear()
    made.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 4
    return made


WAYS = {
    "one runner": (gathering, RunSettings(runners=1, max_batch_rows=16)),
    "three runners": (gathering, RunSettings(runners=3, max_batch_rows=16)),
    "waiting for company": (gathering, RunSettings(runners=2, max_batch_rows=16, max_wait_s=0.002)),
    "never batched": (gathering, RunSettings(runners=2, max_batch_rows=1)),
    "event loop": (fixed_time, RunSettings(max_batch_rows=16)),
}


@pytest.mark.parametrize("way", WAYS)
def test_no_row_is_ever_wrong(tmp_path: Path, way: str, monkeypatch: pytest.MonkeyPatch):
    make, settings = WAYS[way]
    if way == "event loop":  # however busy the machine is while this is measured
        monkeypatch.setattr("service.batching.choose._INLINE_S", 60.0)
        monkeypatch.setattr("service.batching.choose._INLINE_BATCH_S", 60.0)
        monkeypatch.setattr("service.batching.turn.TOO_LONG_S", 60.0)
    folder = repository.publish(tmp_path, "m", make(), batch_invariant=True)
    served = model.load(folder, "m", 1, device.choose("cpu"), 2, 1_000_000, settings)
    assert (served.running.limits.inline_rows > 0) == (way == "event loop")
    reference = repository.Reference(make())
    random = np.random.default_rng(5)
    batches: list[int] = []
    served.batcher.execution.observe = lambda ran: batches.append(ran.requests)
    places = asyncio.Semaphore(AT_ONCE)

    def request() -> tuple[Tensors, int]:
        rows = int(random.integers(1, 12 if random.random() < 0.9 else 40))
        steps = 4 if make is fixed_time else int(random.integers(1, 4))
        return {
            "index": random.integers(-9, 9, (rows, steps)),
            "b": random.standard_normal((rows, 3)).astype(np.float32),
        }, rows

    async def submit(inputs: Tensors, rows: int, seconds: float = 600) -> Tensors:
        served.signature.check(inputs)
        return await served.batcher.submit(inputs, rows, time.monotonic() + seconds)

    async def good() -> str:
        inputs, rows = request()
        answer = await submit(inputs, rows)
        expected = reference(inputs)
        assert set(answer) == {"y", "z"}
        np.testing.assert_allclose(answer["y"], expected["y"], rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(answer["z"], expected["z"])
        return "good"

    async def poison() -> str:
        inputs, rows = request()
        inputs["index"][int(random.integers(rows)), 0] = 9
        with pytest.raises(errors.InputRefused):
            await submit(inputs, rows)
        return "poison"

    async def leaves() -> str:
        task = asyncio.create_task(submit(*request()))
        for _ in range(int(random.integers(4))):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        return "left"

    async def hurried() -> str:
        inputs, rows = request()
        try:
            answer = await submit(inputs, rows, float(random.random() * 0.004))
        except (errors.DeadlineExceeded, errors.QueueFull):
            return "hurried"
        np.testing.assert_array_equal(answer["z"], inputs["b"] * 2)
        return "hurried"

    kinds = [good] * 7 + [poison, leaves, hurried]

    async def one(i: int) -> str:
        async with places:
            return await kinds[i % len(kinds)]()

    async def main() -> Counter[str]:
        return Counter(await asyncio.gather(*(one(i) for i in range(REQUESTS))))

    tenth = REQUESTS // 10
    assert asyncio.run(main()) == {
        "good": 7 * tenth, "poison": tenth, "left": tenth, "hurried": tenth,
    }  # fmt: skip
    assert served.batcher.waiting_samples == 0
    assert served.batcher.alive
    assert served.batcher.close(60)
    assert (max(batches) > 1) == (way != "never batched")
