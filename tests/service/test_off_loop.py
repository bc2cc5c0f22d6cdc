"""Large bodies are decoded, and large answers encoded, in a thread: the loop stays free."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto
from repository import elementwise, publish
from test_quick import Bench, answered, whole

from service.codecs import json_, tfs, v2, v2_grpc
from service.context import Context
from service.exchange import Exchange
from service.protocols import grpc_messages
from service.protocols.v2_grpc import Methods

LARGE, SMALL = 70_000, 10


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("models")
    publish(root, "m", elementwise("Identity", TensorProto.FLOAT, ("batch", "n")))
    return root


def where(monkeypatch: pytest.MonkeyPatch, module: object, name: str) -> list[bool]:
    """For each call of a function whether it ran on the main thread, as the loop does here."""
    ran: list[bool] = []
    function: Callable = getattr(module, name)

    def spy(*args):
        ran.append(threading.current_thread() is threading.main_thread())
        return function(*args)

    monkeypatch.setattr(module, name, spy)
    return ran


def v2_body(row: list[float]) -> bytes:
    entry = {"name": "x", "shape": [1, len(row)], "datatype": "FP32", "data": row}
    return json.dumps({"inputs": [entry]}).encode()


ROUTES = {
    "ours": ("/models/m/predict", json_, lambda row: json.dumps({"inputs": [row]}).encode()),
    "v2": ("/v2/models/m/infer", v2, v2_body),
    "tfs": ("/v1/models/m:predict", tfs, lambda row: json.dumps({"instances": [row]}).encode()),
}


@pytest.mark.parametrize("size", [LARGE, SMALL])
@pytest.mark.parametrize("protocol", ROUTES)
def test_over_http(monkeypatch: pytest.MonkeyPatch, models: Path, protocol: str, size: int):
    path, codec, made = ROUTES[protocol]
    decoded, encoded = where(monkeypatch, codec, "decode"), where(monkeypatch, codec, "encode")
    served = Bench(models)
    row = np.linspace(0, 1, size, dtype=np.float32)

    async def main():
        connection = served.connect()
        connection.data_received(whole(path, made(row.tolist())))
        return await answered(connection)

    status, _, body = asyncio.run(main())
    served.registry.close(5)
    assert status == 200
    answer = json.loads(body)
    flat = answer.get("predictions") or answer["outputs"]
    values = (
        flat[0]["data"] if protocol == "v2" else flat["y"][0] if protocol == "ours" else flat[0]
    )
    np.testing.assert_array_equal(np.asarray(values, np.float32), row)
    assert decoded == encoded == [size == SMALL]


@pytest.mark.parametrize("size", [LARGE, SMALL])
def test_over_grpc(monkeypatch: pytest.MonkeyPatch, models: Path, size: int):
    decoded, encoded = where(monkeypatch, v2_grpc, "decode"), where(monkeypatch, v2_grpc, "encode")
    served = Bench(models)
    classes = grpc_messages.classes()
    request = classes["ModelInferRequest"](model_name="m")
    entry = request.inputs.add(name="x", datatype="FP32")
    entry.shape.extend([1, size])
    row = np.linspace(0, 1, size, dtype=np.float32)
    entry.contents.fp32_contents.extend(row.tolist())

    async def main():
        context = Context(served.registry, served.settings)
        infer = Methods(context, classes).table()["ModelInfer"]
        loop = asyncio.get_running_loop()
        return await infer(request.SerializeToString(), Exchange("1"), loop.time() + 60)

    response = classes["ModelInferResponse"].FromString(asyncio.run(main()))
    served.registry.close(5)
    (data,) = response.raw_output_contents
    np.testing.assert_array_equal(np.frombuffer(data, np.float32), row)
    # Numbers one by one for a thread if they are many; raw contents are only copied.
    assert decoded == [size == SMALL]
    assert encoded == [True]
