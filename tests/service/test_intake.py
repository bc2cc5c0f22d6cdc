"""Large bodies are read into their place, whatever the pieces, and nothing else is taken."""

from __future__ import annotations

import asyncio
import io
import json
import socket
import struct
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from onnx import TensorProto
from repository import elementwise, publish
from test_connections import LIVE, answer, closed, connect
from test_metrics import until
from test_quick import Bench, answered

from service.connections.asgi import STRAIGHT_BYTES
from service.connections.intake import Intake

pytestmark = pytest.mark.slow

if TYPE_CHECKING:  # other folders have a conftest of their own
    from conftest import Served

X = np.random.default_rng(0).standard_normal((1, 150_000)).astype(np.float32)
OCTETS = {"Content-Type": "application/octet-stream", "Accept": "application/octet-stream"}
V2_HEAD = json.dumps(
    {
        "inputs": [{"name": "x", "shape": [1, X.size], "datatype": "FP32",
                    "parameters": {"binary_data_size": X.nbytes}}],
        "parameters": {"binary_data_output": True},
    }
).encode()  # fmt: skip


@pytest.fixture(scope="module")
def served(start, tmp_path_factory: pytest.TempPathFactory) -> Served:
    root = tmp_path_factory.mktemp("models")
    publish(root, "m", elementwise("Identity", TensorProto.FLOAT, ("batch", "n")))
    return start(root, "--body-timeout-ms", "3000", "--max-in-flight-bytes", "2400000")


def post(body: bytes, path: str = "/models/m/predict", **headers: object) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: x", f"Content-Length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


def npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


JSON = json.dumps({"inputs": X.astype(float).tolist()}).encode()
RAW = post(X.tobytes(), X_Shape=f"1,{X.size}", **OCTETS)
REQUESTS = {
    "raw": RAW,
    "npy": post(npy(X), Content_Type="application/x-npy", Accept="application/octet-stream"),
    "json": post(JSON, Content_Type="application/json", Accept="application/octet-stream"),
    "v2": post(
        V2_HEAD + X.tobytes(), "/v2/models/m/infer", Inference_Header_Content_Length=len(V2_HEAD)
    ),
}


def right(body: bytes) -> bool:
    return np.array_equal(np.frombuffer(body[-X.nbytes :], np.float32), X[0])


@pytest.mark.parametrize("kind", REQUESTS)
def test_pieces_and_what_follows_on_the_connection(served: Served, kind: str):
    sent = REQUESTS[kind]
    assert len(sent) > 2 * STRAIGHT_BYTES
    with connect(served) as connection:
        for _ in range(2):
            for begin in range(0, len(sent), 100_001):
                connection.sendall(sent[begin : begin + 100_001])
                time.sleep(0.002)
            status, _, body = answer(connection)
            assert status == 200, body
            assert right(body)
        connection.sendall(LIVE)
        assert answer(connection)[0] == 200


def test_requests_that_are_sent_without_waiting(served: Served):
    with connect(served) as connection:
        connection.sendall(RAW + RAW + LIVE)
        with connection.makefile("rb") as file:  # one for all: it reads ahead
            bodies = []
            for _ in range(3):
                lines = list(iter(file.readline, b"\r\n"))
                assert lines[0].startswith(b"HTTP/1.1 200 ")
                (length,) = [int(v[15:]) for v in lines if v.lower().startswith(b"content-length:")]
                bodies.append(file.read(length))
    assert right(bodies[0])
    assert right(bodies[1])
    assert json.loads(bodies[2]) == {"status": "live"}


def test_a_body_that_stops_is_given_up_and_who_leaves_is_forgotten(served: Served):
    half = RAW[: len(RAW) // 2]
    with connect(served) as stops, connect(served) as leaves, served.client() as client:
        for connection in (stops, leaves):
            connection.sendall(half)
        until(client, "foldserve_bodies_held_bytes", 2 * X.nbytes)
        leaves.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        leaves.close()
        until(client, "foldserve_bodies_held_bytes", X.nbytes)
        status, headers, body = answer(stops)
        assert (status, headers["connection"]) == (408, "close")
        assert json.loads(body)["code"] == "body_timeout"
        stops.sendall(RAW[len(half) :])  # read, and dropped
        assert closed(stops)
        until(client, "foldserve_bodies_held_bytes", 0)


def test_bodies_for_which_there_is_no_memory(served: Served):
    with connect(served) as first, connect(served) as second, connect(served) as third:
        for connection in (first, second, third):
            connection.sendall(RAW[: len(RAW) // 2])
        with served.client() as client:
            until(client, "foldserve_bodies_held_bytes", 3 * X.nbytes)
            assert client.post("/models/m/predict", content=X.tobytes()).status_code == 503
        for connection in (first, second, third):
            connection.sendall(RAW[len(RAW) // 2 :])
            assert right(answer(connection)[2])


def test_the_parser_never_sees_the_rest_of_the_body(tmp_path: Path):
    publish(tmp_path, "m", elementwise("Identity", TensorProto.FLOAT, ("batch", "n")))
    made = Bench(tmp_path)
    protocols: list[object] = []

    async def main():
        connection = made.connect()
        connection.transport.set_protocol = protocols.append
        connection.data_received(RAW[:1000])
        async with asyncio.timeout(60):
            while not protocols:
                await asyncio.sleep(0)
        (intake,) = protocols
        assert isinstance(intake, Intake)
        view = intake.get_buffer(-1)
        rest = RAW[1000:]
        assert len(view) == len(rest)
        view[:] = rest
        intake.buffer_updated(len(rest))
        first = await answered(connection)
        connection.transport.written = b""
        connection.data_received(post(b"{", Content_Type="application/json"))
        return connection, first, await answered(connection)

    connection, (status, _, body), (second, _, _) = asyncio.run(main())
    made.registry.close(5)
    assert status == 200
    assert right(body)
    assert second == 400
    assert protocols[1:] == [connection]
    assert made.at_rest()


class Connection:
    """Counts what it is told."""

    def __init__(self) -> None:
        self.told: list[object] = []

    def still_coming(self) -> None:
        pass

    def body_complete(self) -> None:
        self.told.append("complete")

    def connection_lost(self, exc: Exception | None) -> None:
        self.told.append(exc)

    def eof_received(self) -> bool:
        self.told.append("eof")
        return True

    def pause_writing(self) -> None:
        self.told.append("pause")

    def resume_writing(self) -> None:
        self.told.append("resume")


@pytest.mark.parametrize("front", [0, 1, 63, 64, 150])
def test_what_comes_behind_the_front_is_aligned(front: int):
    content = bytes(range(256)) * 2
    intake = Intake(Connection(), len(content), content[:7], front)
    for size in (1, 200, 304):
        view = intake.get_buffer(-1)
        assert not intake.complete
        view[:size] = content[len(content) - len(view) :][:size]
        intake.buffer_updated(size)
    assert intake.complete
    assert bytes(intake.body) == content
    place = np.frombuffer(intake.body, np.uint8).__array_interface__["data"][0]
    assert (place + front) % 16 == 0


def test_what_nobody_wants_takes_no_memory():
    owner = Connection()
    intake = Intake(owner, 10**6, b"x")
    intake.drop()
    left = 10**6 - 1
    while left:
        view = intake.get_buffer(-1)
        assert 0 < len(view) <= min(left, 64 * 1024)
        intake.buffer_updated(len(view))
        left -= len(view)
    assert owner.told == ["complete"]
    intake.pause_writing()
    intake.resume_writing()
    assert intake.eof_received()
    intake.connection_lost(None)
    assert owner.told == ["complete", "pause", "resume", "eof", None]
