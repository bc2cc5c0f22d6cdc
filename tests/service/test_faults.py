"""A defect in what only looks on, or in whoever waits, hurts nobody else and wedges nothing."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import repository
import uvicorn

from service import device, errors, faults
from service.app import create_app
from service.batching import execution
from service.batching.batcher import Batcher
from service.batching.item import Awaited
from service.batching.limits import Limits
from service.batching.settling import deliver, settle
from service.connections.connection import connection_class
from service.connections.lifetime import ConnectionLimits
from service.context import Context
from service.exchange import Exchange
from service.models import model
from service.models.registry import Registry
from service.settings import Settings
from service.signature import Tensors
from service.telemetry.access_log import AccessLog
from service.telemetry.metrics import Metrics

INLINE = Limits(max_batch_rows=8, inline_rows=8)
IN_A_THREAD = Limits(runners=2, max_batch_rows=8)
SHARED = Limits(runners=2, max_batch_rows=1, inline_rows=8, row_s=1.0)


@pytest.fixture(autouse=True)
def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faults, "_seen", {})


def double(inputs: Tensors) -> Tensors:
    return {"y": inputs["x"] * 2}


def soon(seconds: float = 60) -> float:
    return time.monotonic() + seconds


def x(value: float) -> Tensors:
    return {"x": np.array([value])}


def broken(*_: object) -> None:
    raise RuntimeError("an observer of the test")


class Unwritable(Exchange):
    """A record in which nothing can be noted."""

    batch = property(lambda _: None, broken)  # type: ignore[assignment]


async def ask(batcher: Batcher, value: float, exchange: Exchange | None = None) -> float:
    answer = await batcher.submit(x(value), 1, soon(), exchange)
    return float(answer["y"][0])


@pytest.mark.parametrize("limits", [INLINE, IN_A_THREAD, SHARED])
@pytest.mark.parametrize("where", ["observe", "record", "learn", "execute"])
def test_the_model_serves_on_whatever_fails_beside_its_runs(
    limits: Limits, where: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    batcher = Batcher(double, 64, "m", limits)
    if where == "observe":
        batcher.execution.observe = broken
    elif where == "learn":
        monkeypatch.setattr(batcher.room, "learn", broken)
    elif where == "execute":
        monkeypatch.setattr(execution, "execute", broken)

    async def main() -> list[float | BaseException]:
        record = Unwritable("1") if where == "record" else None
        async with asyncio.timeout(60):
            first = await asyncio.gather(
                *(ask(batcher, i, record) for i in range(5)), return_exceptions=True
            )
            monkeypatch.undo()
            batcher.execution.observe = None
            assert await asyncio.gather(*(ask(batcher, i) for i in range(5))) == [0, 2, 4, 6, 8]
        return first

    first = asyncio.run(main())
    if where == "execute":
        assert all(type(each) is errors.ServiceError for each in first)
    else:
        assert first == [0, 2, 4, 6, 8]
    assert batcher.alive
    assert batcher.waiting_samples == 0
    assert caplog.text.count("RuntimeError: an observer of the test") == 1
    assert batcher.close(60)


class Unsettled(Awaited):
    """Whoever waits, and cannot be told."""

    def take(self, _: object) -> None:
        raise RuntimeError("an answer of the test")


@pytest.mark.parametrize("limits", [INLINE, SHARED])
def test_an_answer_that_fails_does_not_take_the_others_along(limits: Limits):
    batcher = Batcher(double, 64, "m", limits)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(60):
            before = asyncio.create_task(ask(batcher, 1))
            await asyncio.sleep(0)
            batcher.enter(Unsettled(x(2), 1, soon(), loop))
            after = asyncio.create_task(ask(batcher, 3))
            assert await asyncio.gather(before, after) == [2, 6]
            assert await ask(batcher, 4) == 8

    asyncio.run(main())
    assert batcher.close(60)


def test_an_answer_of_a_batch_may_fail_and_the_next_is_given():
    good: list[object] = []

    class Settled(Unsettled):
        def take(self, outcome: object) -> None:
            good.append(outcome)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        items = [kind({}, 1, soon(), loop) for kind in (Unsettled, Settled)]
        await asyncio.to_thread(deliver, [(item, {}) for item in items])
        await asyncio.sleep(0)
        assert good == [{}]
        settle(items[0], {})

    asyncio.run(main())


def test_the_same_fault_is_told_once_a_minute(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    logger = logging.getLogger("foldserve.test")

    def fail(what: str) -> None:
        with faults.contained(logger, what):
            raise ValueError(what)

    for _ in range(5):
        fail("one place")
    fail("another place")
    assert [record.message for record in caplog.records] == ["one place", "another place"]
    monkeypatch.setattr(faults, "_EVERY_S", 0.0)
    fail("one place")
    assert caplog.records[-1].message == "one place (and 4 times since it was last said)"


def test_what_is_no_mere_exception_passes():
    with pytest.raises(KeyboardInterrupt), faults.contained(logging.getLogger(), "it"):
        raise KeyboardInterrupt


class BrokenMetrics(Metrics):
    def finish(self, _: object) -> None:
        raise RuntimeError("a metric of the test")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("models")
    repository.publish(root, "m", repository.linear(), batch_invariant=True)
    return root


@pytest.fixture(params=["metrics", "observer"])
def url(models: Path, request: pytest.FixtureRequest) -> Iterator[str]:
    """A real server in a thread whose metrics or whose observer always fails."""
    loader = partial(model.load, choice=device.choose("cpu"), threads=2, capacity_samples=512)
    registry = Registry(models, loader)
    registry.load()
    metrics = BrokenMetrics("0") if request.param == "metrics" else Metrics("0")
    observers: list[Any] = [] if request.param == "metrics" else [broken]
    settings = Settings(models=models)
    app = create_app(Context(registry, settings, metrics=metrics, observers=observers))
    limits = ConnectionLimits(100, 65536, 60, 60, 60)
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            port=0,
            http=connection_class(limits),
            lifespan="off",
            interface="asgi3",
            log_config=None,
        )
    )
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join(60)
    assert not thread.is_alive()
    assert registry.close(60)


def test_a_server_whose_observers_fail_answers_on_the_same_connection(url: str):
    with httpx.Client(base_url=url, timeout=60, trust_env=False) as client:
        for _ in range(3):  # the quick way, the usual way, and the framework's
            assert client.post("/predict", json={"inputs": [[1.0, 2.0, 3.0, 4.0]]}).is_success
            large = {"inputs": [[1.0, 2.0, 3.0, 4.0]] * 500}
            assert len(client.post("/predict", json=large).json()["outputs"]["scores"]) == 500
            assert client.get("/models").is_success
            assert client.post("/predict", json={}).status_code == 400


def test_a_line_that_cannot_be_written_does_not_end_the_log(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("service.telemetry.access_log._PAUSE_S", 0.01)
    log = AccessLog(1)
    log._lines.append((None, "GET"))  # type: ignore[arg-type]  no exchange: it has no id
    end = time.monotonic() + 60
    while "could not be written" not in caplog.text:
        assert time.monotonic() < end
        time.sleep(0.01)
    assert log._writer.is_alive()
    log.close()
