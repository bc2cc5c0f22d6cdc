"""The steps of a prediction hold for every way by which it comes: admission, deadlines."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from repository import linear, publish
from test_quick import BODY, PREDICT, Bench, X, answered, chunked, whole

from service.batching import item
from service.codecs import json_
from service.context import Context
from service.errors import DeadlineExceeded, QueueFull, ServiceError
from service.exchange import Exchange
from service.protocols import grpc_messages, v2_grpc
from service.protocols.call import Call

CLASSES = grpc_messages.classes()
WAYS: dict[str, Callable[..., bytes]] = {"without a task": whole, "in a task": chunked}


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Bench]:
    publish(tmp_path / "models", "m", linear(), test={"x": X}, batch_invariant=True)
    made = Bench(tmp_path / "models")
    yield made
    made.registry.close(5)


def grpc_call(served: Bench, seconds: float = 60) -> tuple[v2_grpc.Methods, bytes]:
    request = CLASSES["ModelInferRequest"](model_name="m", raw_input_contents=[X.tobytes()])
    request.inputs.add(name="x", datatype="FP32", shape=X.shape)
    context = Context(served.registry, served.settings)
    return v2_grpc.Methods(context, CLASSES), request.SerializeToString()


def infer(methods: v2_grpc.Methods, data: bytes, seconds: float = 60) -> bytes:
    async def main() -> bytes:
        call = methods.table()["ModelInfer"]
        return await call(data, Exchange("1"), time.monotonic() + seconds)

    return asyncio.run(main())


def test_grpc_is_admitted_before_its_message_is_read(
    served: Bench, monkeypatch: pytest.MonkeyPatch
):
    methods, data = grpc_call(served)
    answer = CLASSES["ModelInferResponse"].FromString(infer(methods, data))
    assert np.frombuffer(answer.raw_output_contents[0], np.float32).size
    monkeypatch.setattr(methods, "read", lambda *_: pytest.fail("it was read"))
    model = served.registry.find("m")
    model.batcher._turn.rows += 256  # its queue looks full
    with pytest.raises(QueueFull):
        infer(methods, data)
    model.batcher._turn.rows -= 256
    unknown = CLASSES["ModelInferRequest"](model_name="other").SerializeToString()
    with pytest.raises(ServiceError, match="other"):
        infer(methods, unknown)


@pytest.mark.parametrize("way", WAYS)
def test_a_decode_that_passes_the_deadline_is_answered_so(
    served: Bench, way: str, monkeypatch: pytest.MonkeyPatch
):
    decode = json_.decode

    def slow(*args):
        time.sleep(0.03)
        return decode(*args)

    monkeypatch.setattr(json_, "decode", slow)
    ran = []
    served.registry.find("m").batcher.execution.observe = ran.append

    async def main():
        connection = served.connect()
        connection.data_received(WAYS[way](PREDICT, BODY, X_Timeout_Ms="10"))
        late = await answered(connection)
        connection.transport.written = b""
        connection.data_received(WAYS[way](PREDICT, BODY, X_Timeout_Ms="60000"))
        return late, await answered(connection)

    (status, _, body), good = asyncio.run(main())
    assert (status, json.loads(body)["code"]) == (504, DeadlineExceeded.code)
    assert good[0] == 200
    assert len(ran) == 1
    assert served.at_rest()


def test_a_grpc_decode_that_passes_the_deadline_is_answered_so(
    served: Bench, monkeypatch: pytest.MonkeyPatch
):
    methods, data = grpc_call(served)
    read = methods.read

    def slow(*args):
        time.sleep(0.03)
        return read(*args)

    monkeypatch.setattr(methods, "read", slow)
    with pytest.raises(DeadlineExceeded):
        infer(methods, data, seconds=0.01)
    assert infer(methods, data)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("step", ["decode", "encode"])
def test_who_waits_for_a_thread_is_told_at_the_deadline(
    served: Bench, way: str, step: str, monkeypatch: pytest.MonkeyPatch
):
    """All threads of the pool are busy, for longer than the request may take."""
    if step == "decode":
        monkeypatch.setattr(Call, "light", property(lambda _: False))
    else:
        monkeypatch.setattr(Call, "light_answer", lambda *_: False)
        monkeypatch.setattr(item, "COUNTED_BYTES", -1)  # nothing is small
    go = threading.Event()

    async def main():
        connection = served.connect()
        pool = connection.plans.pool
        for _ in range(2):
            pool.submit(go.wait, 60)
        connection.data_received(WAYS[way](PREDICT, BODY, X_Timeout_Ms="50"))
        try:
            return await answered(connection)
        finally:
            go.set()

    status, _, body = asyncio.run(main())
    assert (status, json.loads(body)["code"]) == (504, DeadlineExceeded.code)
    assert served.at_rest()
