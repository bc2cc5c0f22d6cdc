"""What a server takes under requests that want much of its memory, measured from outside.

Each of these took hundreds of megabytes before it was counted. The server's own peak (VmHWM) is
compared with what it took before, so that neither the runtime nor the model matters.
"""

from __future__ import annotations

import gc
import io
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import pytest
import repository
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

grpc = pytest.importorskip("grpc")

MIB = 1024 * 1024
ROW_BYTES = MIB
# Beside what is counted: buffers of sockets, what is being made, what the C library keeps.
SLACK = 160 * MIB

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not Path("/proc/self/status").exists(), reason="reads a process's memory from /proc"
    ),
]


def memory(pid: int, field: str = "VmHWM") -> int:
    """A field of the process's status, in bytes: VmHWM is the most it ever had, VmRSS is now."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise AssertionError(field)


def grown(pid: int, work: Callable[[], object]) -> int:
    """By how much the peak of the process is above what it had before `work`."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")  # the peak begins anew
    before = memory(pid, "VmRSS")
    work()
    return memory(pid) - before


def wide() -> onnx.ModelProto:
    """(batch, 1) to (batch, 262144): a megabyte of answer for each row."""
    weight = np.ones((1, ROW_BYTES // 4), np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "wide",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", ROW_BYTES // 4])],
        [numpy_helper.from_array(weight, "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("models")
    repository.publish(root, "wide", wide())
    repository.publish(
        root,
        "vision",
        repository.elementwise("Neg", TensorProto.FLOAT, ("batch", 3, 32, 32)),
        preprocessing={"height": 32, "width": 32},
    )
    return root


@pytest.fixture
def held() -> Iterator[list[socket.socket]]:
    """Connections, closed at the end whatever came of the test."""
    connections: list[socket.socket] = []
    yield connections
    for connection in connections:
        connection.close()


def answers_unread(held: list[socket.socket], url: str, clients: int, rows: int) -> None:
    """Connections whose answers of so many megabytes nobody reads."""
    host, port = url.removeprefix("http://").split(":")
    body = b'{"inputs": [' + b",".join([b"[1]"] * rows) + b"]}"
    head = (
        "POST /models/wide/predict HTTP/1.1\r\nHost: x\r\nAccept: application/octet-stream\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    for _ in range(clients):
        connection = socket.socket()
        held.append(connection)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(60)
        connection.connect((host, int(port)))
        connection.sendall(head.encode() + body)


@pytest.mark.parametrize("rows", [8, 16])
def test_answers_that_nobody_reads_are_counted_and_given_back(
    start, models: Path, held: list[socket.socket], rows: int
):
    served = start(models, "--max-in-flight-bytes", str(64 * MIB), "--body-timeout-ms", "60000")
    pid, url = served.process.pid, served.url

    def ask() -> None:
        answers_unread(held, url, 80, rows)
        first = [connection.recv(12) for connection in held]
        assert {b"HTTP/1.1 200", b"HTTP/1.1 503"} == set(first)

    most = grown(pid, ask)
    assert most < 64 * MIB + SLACK, f"{most / MIB:.0f} MB"
    with served.client() as client:

        def counted() -> int:
            found = re.search(
                r"^foldserve_bodies_held_bytes (\d+)$", client.get("/metrics").text, re.M
            )
            assert found
            return int(found[1])

        assert 32 * MIB < counted() <= 64 * MIB
        for connection in held:
            connection.close()
        end = time.monotonic() + 60
        while counted():
            assert time.monotonic() < end
            time.sleep(0.1)
        assert client.post("/models/wide/predict", json={"inputs": [[1]]}).status_code == 200
    assert served.stop() == 0


def test_an_answer_that_is_read_slowly_arrives_whole(
    start, models: Path, held: list[socket.socket]
):
    served = start(models, "--max-in-flight-bytes", str(8 * MIB))
    answers_unread(held, served.url, 1, 16)  # more than the budget, and alone
    with held[0].makefile("rb") as file:
        assert file.readline().startswith(b"HTTP/1.1 200")
        while file.readline() != b"\r\n":
            pass
        time.sleep(0.5)
        assert np.frombuffer(file.read(16 * MIB), np.float32).sum() == 4 * MIB
    assert served.stop() == 0
    gc.collect()


def png(mode: str, side: int, **options) -> bytes:
    stream = io.BytesIO()
    Image.new(mode, (side, side)).save(stream, "PNG", **options)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("mode", "options", "pixel_bytes"),
    [("RGBA", {}, 4), ("P", {"transparency": 0}, 1), ("LA", {}, 4), ("RGB", {}, 4)],
)
def test_a_small_file_of_many_pixels(
    start, models: Path, mode: str, options: dict[str, int], pixel_bytes: int
):
    side = 6000
    file = png(mode, side, **options)
    assert len(file) < 200_000
    served = start(models)
    with served.client() as client:

        def ask() -> None:
            answer = client.post(
                "/models/vision/predict", content=file, headers={"content-type": "image/png"}
            )
            assert answer.status_code == 200, answer.text[:300]

        most = grown(served.process.pid, ask)
    assert most < side * side * pixel_bytes + 100 * MIB, f"{most / MIB:.0f} MB"
    assert served.stop() == 0


def test_pictures_at_the_same_time_are_counted_by_their_pixels(start, models: Path):
    file = png("RGBA", 6000)
    served = start(models, "--max-in-flight-bytes", str(200 * MIB))
    with served.client() as client:

        def ask(_: int) -> int:
            return client.post(
                "/models/vision/predict", content=file, headers={"content-type": "image/png"}
            ).status_code

        codes: list[int] = []
        with ThreadPoolExecutor(8) as pool:
            most = grown(served.process.pid, lambda: codes.extend(pool.map(ask, range(16))))
    assert set(codes) <= {200, 503}
    assert 200 in codes
    assert most < 200 * MIB + 100 * MIB, f"{most / MIB:.0f} MB"
    assert served.stop() == 0


def infer(port: int, message: bytes, metadata: tuple = ()) -> str:
    options = [("grpc.max_send_message_length", -1), ("grpc.use_local_subchannel_pool", 1)]
    with grpc.insecure_channel(f"127.0.0.1:{port}", options=options) as channel:
        call = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        try:
            call(message, metadata=metadata, timeout=60)
        except grpc.RpcError as error:
            return error.code().name
        return "OK"


@pytest.mark.parametrize("keys", [True, False])
def test_grpc_reads_no_message_that_may_not_come_in(
    start, models: Path, tmp_path: Path, held: list[socket.socket], keys: bool
):
    """40 messages of 16 MB: without a key, or while an answer that is not read takes all room."""
    file = tmp_path / "keys"
    file.write_text("a-key-of-sixteen-characters\n")
    flags = ["--api-keys-file", str(file)] if keys else ["--max-in-flight-bytes", str(8 * MIB)]
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    served = start(models, "--grpc-port", str(port), *flags)
    url = served.url
    if not keys:
        answers_unread(held, url, 1, 16)
    for connection in held:
        assert connection.recv(12) == b"HTTP/1.1 200"
    from service.protocols import grpc_messages

    request = grpc_messages.classes()["ModelInferRequest"](model_name="wide")
    request.inputs.add(name="x", datatype="FP32", shape=[4 * MIB - 64, 1])
    request.inputs[0].contents.fp32_contents.extend([0.0] * (4 * MIB - 64))
    message = request.SerializeToString()
    lock = threading.Lock()
    said: list[str] = []

    def ask(_: int) -> None:
        code = infer(port, message)
        with lock:
            said.append(code)

    def crowd() -> None:
        with ThreadPoolExecutor(20) as pool:
            list(pool.map(ask, range(40)))

    most = grown(served.process.pid, crowd)
    for connection in held:
        connection.close()
    assert set(said) == {"UNAUTHENTICATED" if keys else "UNAVAILABLE"}
    assert most < 100 * MIB, f"{most / MIB:.0f} MB, {said}"
    assert served.stop() == 0
