"""What is done with is freed at once: cycles wait for a collector that counts objects alone."""

from __future__ import annotations

import asyncio
import gc
import time
import weakref
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from repository import answer, linear, publish
from test_quick import BODY, PREDICT, Bench, X, answered, whole

from service import device
from service.models import model

pytestmark = pytest.mark.slow

LATE = whole(PREDICT, BODY, X_Timeout_Ms="20")
SHAPE = whole(PREDICT, b'{"inputs": [[1]]}')


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Bench]:
    publish(tmp_path, "m", linear(), test={"x": X}, batch_invariant=True)
    made = Bench(tmp_path)
    yield made
    made.registry.close(5)


@pytest.fixture
def collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.set_debug(0)
    gc.garbage.clear()
    gc.enable()


def slowly(served: Bench, seconds: float) -> None:
    batcher = served.registry.find("m").batcher
    run = batcher._run

    def slow(inputs):
        time.sleep(seconds)
        return run(inputs)

    batcher._run = batcher.runners._run = batcher.runners._run_alone = slow


@pytest.mark.parametrize(
    ("request_", "inline_rows", "run_s", "status"),
    [
        (whole(PREDICT, BODY), 8, 0, 200),
        (SHAPE, 8, 0, 400),
        (whole(PREDICT, BODY), 0, 0, 200),
        (SHAPE, 0, 0, 400),
        # Long enough to be listened to for a hang-up meanwhile.
        (whole(PREDICT, BODY), 0, 0.05, 200),
        (LATE, 0, 0.06, 504),
    ],
)
def test_a_request_leaves_nothing_behind(
    served: Bench, collector: None, request_: bytes, inline_rows: int, run_s: float, status: int
):
    slowly(served, run_s)
    served.registry.find("m").batcher.inline_rows = inline_rows

    async def ask() -> int:
        connection = served.connect()
        connection.data_received(request_)
        found = await answered(connection)
        connection.connection_lost(None)
        del connection
        await asyncio.sleep(max(0.005, 2 * run_s))  # until the run of a late one is over, too
        return found[0]

    async def main() -> Counter[str]:
        assert await ask() == status  # what is made once is made now
        gc.collect()
        await ask()
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        return Counter(type(each).__name__ for each in gc.garbage)

    assert asyncio.run(main()) == {}


def test_a_model_that_nobody_uses_any_more_is_freed_with_its_session(
    tmp_path: Path, collector: None
):
    folder = publish(tmp_path, "m", linear(), test={"x": X}, batch_invariant=True)
    served = model.load(folder, "m", 1, device.choose("cpu"), 2, 256)
    assert isinstance(answer(served, {"x": X})["scores"], np.ndarray)
    session = weakref.ref(served.batcher._run.__self__)  # type: ignore[attr-defined]
    del served
    end = time.monotonic() + 60
    while session() is not None and time.monotonic() < end:  # its threads end
        time.sleep(0.005)
    assert session() is None
