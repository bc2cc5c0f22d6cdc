"""Small predictions without a task: the same answers and records as the usual way gives."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import threading
import weakref
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import uvicorn
from repository import linear, pair, publish, reference

from service import assembly, device
from service.app import create_app
from service.connections.auth import Access, KeyFile
from service.context import Context
from service.models.registry import Registry
from service.settings import Settings
from service.settings_read import parse
from service.telemetry.metrics import Metrics

X = np.linspace(-1, 1, 4, dtype=np.float32)[None]
BODY = json.dumps({"inputs": X.tolist()}).encode()
PREDICT = "/models/m/predict"
KEY = "k" * 16


def head(path: str, length: int | None, **headers: str) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: x"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    lines.append("Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n"


def whole(path: str, body: bytes, **headers: str) -> bytes:
    """The request that may take the quick way."""
    return head(path, len(body), **headers) + body


def chunked(path: str, body: bytes, **headers: str) -> bytes:
    """The same one, which must take the usual way."""
    chunk = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
    return head(path, None, **headers) + chunk + b"0\r\n\r\n"


class Pipe(asyncio.Transport):
    """A transport that keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.closed = False

    def get_extra_info(self, name, default=None):
        return {"sockname": ("127.0.0.1", 1), "peername": ("127.0.0.1", 2)}.get(name, default)

    def write(self, data):
        self.written += data

    def is_closing(self):
        return self.closed

    def close(self):
        self.closed = True

    def can_write_eof(self):
        return False

    def abort(self):
        self.closed = True

    def pause_reading(self):
        pass

    def resume_reading(self):
        pass

    def get_write_buffer_size(self):
        return 0

    def set_write_buffer_limits(self, high=None, low=None):
        pass


class Bench:
    """An application and connections to it, in this process."""

    def __init__(
        self, root: Path, *flags: str, access: Access | None = None, threads: int = 1
    ) -> None:
        self.settings: Settings = parse(["--models", str(root), *flags], {})
        self.metrics = Metrics("0")
        self.registry = Registry(
            root,
            partial(
                assembly.load_counted,
                metrics=self.metrics,
                choice=device.choose("cpu"),
                threads=threads,
                capacity_samples=self.settings.queue_capacity_samples,
            ),
        )
        self.registry.load()
        for model in self.registry.served():
            model.batcher.inline_rows = 8  # whatever the machine measured
        context = Context(self.registry, self.settings, access, metrics=self.metrics)
        self.budget = context.budget
        self._config = uvicorn.Config(
            create_app(context), http=assembly.protocol(context), log_config=None, ws="none",
            access_log=False, lifespan="off", server_header=False, interface="asgi3",
            proxy_headers=False,
        )  # fmt: skip
        self._config.load()
        self._state = uvicorn.server.ServerState()
        self._state.default_headers = [(b"x-content-type-options", b"nosniff")]

    def connect(self):
        """A connection on the running loop."""
        connection = self._config.http_protocol_class(self._config, self._state, {})
        connection.connection_made(Pipe())
        return connection

    def count(self, status: int, route: str = "/models/{name}/predict") -> int:
        return self.metrics.requests.get((route, "m", status), 0)

    def at_rest(self) -> bool:
        model = self.registry.find("m")
        busy = self.metrics.in_flight, self.budget.held, model.batcher.waiting_samples
        return busy == (0, 0, 0) and not self._state.tasks


Make = Callable[..., Bench]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("models")
    publish(root, "m", linear(), test={"x": X}, batch_invariant=True)
    publish(root, "pair", pair(), batch_invariant=True)
    return root


@pytest.fixture
def bench(models: Path) -> Iterator[Make]:
    made: list[Bench] = []

    def make(*flags: str, access: Access | None = None, threads: int = 1) -> Bench:
        made.append(Bench(models, *flags, access=access, threads=threads))
        return made[-1]

    yield make
    for each in made:
        each.registry.close(5)


def parts(written: bytes) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of the one answer in `written`."""
    top, _, body = written.partition(b"\r\n\r\n")
    first, *lines = top.decode().split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines)
    assert len(headers) == len(lines)
    assert int(headers["content-length"]) == len(body)
    return int(first.split()[1]), headers, body


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.001)


async def answered(connection) -> tuple[int, dict[str, str], bytes]:
    pipe = connection.transport
    async with asyncio.timeout(60):
        while connection.answering or not pipe.written:
            await asyncio.sleep(0)
    return parts(pipe.written)


V2 = {"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": X[0].tolist()}]}
REQUESTS: dict[str, tuple[str, bytes, dict[str, str]]] = {
    "good": (PREDICT, BODY, {}),
    "id": (PREDICT, BODY, {"X_Request_ID": "mine"}),
    "timing": (PREDICT, BODY, {"X_Server_Timing": "1"}),
    "version": ("/models/m/versions/1/predict", BODY, {}),
    "raw": (PREDICT, X.tobytes(), {"Content_Type": "application/octet-stream"}),
    "raw back": (
        PREDICT + "?output=scores",
        BODY,
        {"Accept": "application/octet-stream"},
    ),
    "v2": ("/v2/models/m/infer", json.dumps(V2).encode(), {}),
    "tfs": ("/v1/models/m:predict", json.dumps({"instances": X.tolist()}).encode(), {}),
    "no json": (PREDICT, b"{", {}),
    "empty": (PREDICT, b"", {}),
    "shape": (PREDICT, b'{"inputs": [[1, 2]]}', {}),
    "v2 shape": ("/v2/models/m/infer", json.dumps({"inputs": []}).encode(), {}),
    "timeout": (PREDICT, BODY, {"X_Timeout_Ms": "soon"}),
    "type": (PREDICT, BODY, {"Content_Type": "text/html"}),
    "not served": ("/models/n/predict", BODY, {}),
    "version not served": ("/models/m/versions/7/predict", BODY, {}),
    "no default": ("/predict", BODY, {}),
    "many rows": (PREDICT, json.dumps({"inputs": X.tolist() * 9}).encode(), {}),
}


@pytest.mark.parametrize(("path", "body", "headers"), REQUESTS.values(), ids=REQUESTS.keys())
def test_both_ways_say_the_same(bench: Make, path: str, body: bytes, headers: dict[str, str]):
    served = bench()

    async def main():
        found = []
        for made in (whole, chunked):
            connection = served.connect()
            connection.data_received(made(path, body, **headers))
            found.append((not served._state.tasks, *await answered(connection)))
        return found

    (quick, *ours), (task, *theirs) = asyncio.run(main())
    served_quickly = path != "/predict" and "/n/" not in path and "/7/" not in path
    assert quick == served_quickly
    assert not task
    status, told, answer = ours
    assert (status, answer) == (theirs[0], theirs[2])
    if headers.get("X_Request_ID") is None:
        assert told.pop("x-request-id") != theirs[1].pop("x-request-id")
    assert told.keys() == theirs[1].keys()
    if "X_Server_Timing" in headers:
        stages = [re.sub(r"[\d.]+", "", h.pop("server-timing")) for h in (told, theirs[1])]
        assert stages[0] == stages[1]
        assert all(stage in stages[0] for stage in ("decode", "compute", "encode"))
    assert told == theirs[1]
    assert served.at_rest()
    assert sum(served.metrics.requests.values()) == 2
    assert sum(served.metrics.errors.values()) == (2 if status >= 400 else 0)


def test_the_answer_is_right(bench: Make):
    served = bench()

    async def main():
        connection = served.connect()
        connection.data_received(whole(PREDICT, BODY))
        return await answered(connection)

    status, headers, body = asyncio.run(main())
    assert status == 200
    assert headers["x-content-type-options"] == "nosniff"
    scores = json.loads(body)["outputs"]["scores"]
    np.testing.assert_allclose(scores, reference(linear(), {"x": X})["scores"], rtol=1e-5)


def test_a_body_in_pieces_and_the_next_request_on_the_connection(bench: Make):
    served = bench()

    async def main():
        connection = served.connect()
        sent = whole(PREDICT, BODY)
        for begin in range(0, len(sent), 7):
            connection.data_received(sent[begin : begin + 7])
            await asyncio.sleep(0)
        first = await answered(connection)
        connection.transport.written = b""
        connection.data_received(sent)
        return first, await answered(connection)

    first, second = asyncio.run(main())
    assert first[0] == second[0] == 200
    assert first[2] == second[2]


def test_a_body_that_does_not_come_gets_a_task_and_a_time_out(bench: Make):
    served = bench("--body-timeout-ms", "1")

    async def main():
        connection = served.connect()
        connection.data_received(whole(PREDICT, BODY)[:-1])
        async with asyncio.timeout(60):
            while not connection.transport.written:
                await asyncio.sleep(0.001)
        written = connection.transport.written
        connection.connection_lost(None)
        await asyncio.gather(*served._state.tasks)
        return written

    assert asyncio.run(main()).startswith(b"HTTP/1.1 408 ")
    assert served.at_rest()


def test_a_body_is_no_head(bench: Make):
    """Neither in a read of its own, nor when it is refused in the read that brings it."""
    served = bench("--max-header-bytes", "200")

    async def main():
        connection = served.connect()
        sent = whole(PREDICT, BODY + b" " * 300)
        connection.data_received(sent[:-300])
        connection.data_received(sent[-300:])
        first = await answered(connection)
        connection.transport.written = b""
        connection.data_received(whole(PREDICT, b"{" * 300))
        second = await answered(connection)
        connection.transport.written = b""
        connection.data_received(sent)
        return first[0], second[0], (await answered(connection))[0]

    assert asyncio.run(main()) == (200, 400, 200)
    assert served.metrics.errors == {"malformed_json": 1}


def test_pipelined_requests_are_answered_in_their_order(bench: Make):
    served = bench()

    async def main():
        connection = served.connect()
        sent = [whole(PREDICT, BODY, X_Request_ID=f"id{i}") for i in range(3)]
        connection.data_received(b"".join(sent))
        async with asyncio.timeout(60):
            while connection.transport.written.count(b"HTTP/1.1 200 ") < 3:
                await asyncio.sleep(0)
        return connection.transport.written

    written = asyncio.run(main())
    assert [written.index(b"id%d" % i) for i in range(3)] == sorted(
        written.index(b"id%d" % i) for i in range(3)
    )


def test_more_than_the_queue_holds_is_refused_at_once(bench: Make):
    """What the loop reads in one turn is bounded too: no backlog, whatever comes."""
    served = bench("--queue-capacity-samples", "16")

    async def main():
        connections = [served.connect() for _ in range(50)]
        for connection in connections:
            connection.data_received(whole(PREDICT, BODY))
        early = sum(bool(c.transport.written) for c in connections)
        waiting = served.registry.find("m").batcher.waiting_samples
        return early, waiting, [await answered(c) for c in connections]

    early, waiting, answers = asyncio.run(main())
    assert (early, waiting) == (34, 16)
    assert [status for status, _, _ in answers] == [200] * 16 + [503] * 34
    for status, headers, body in answers:
        if status == 503:
            assert headers["retry-after"] == "1"
            assert json.loads(body)["code"] == "queue_full"
    assert (served.count(200), served.count(503)) == (16, 34)
    assert served.at_rest()


def test_who_hangs_up_is_not_run(bench: Make):
    served = bench()

    async def main():
        gone, stays = served.connect(), served.connect()
        for connection in (gone, stays):
            connection.data_received(whole(PREDICT, BODY))
        gone.connection_lost(None)
        await answered(stays)
        return gone.transport.written

    assert asyncio.run(main()) == b""
    assert (served.count(499), served.count(200)) == (1, 1)
    assert served.metrics.batch_rows["m"].all().counts[0] == 1  # a batch of one row
    assert served.at_rest()


def test_who_hangs_up_while_a_runner_is_awaited_gives_the_room_back(bench: Make):
    served = bench(threads=2)
    batcher = served.registry.find("m").batcher
    batcher._row_s = 1.0  # so that a turn is shared among the runners
    run, go = batcher.runners._run, threading.Event()

    def held(inputs):
        assert go.wait(60)
        return run(inputs)

    batcher.runners._run = batcher.runners._run_alone = held

    async def main():
        connections = [served.connect() for _ in range(4)]
        for first, second in (connections[:2], connections[2:]):
            await until(lambda: batcher.waiting_samples == 0)  # a runner has each of the first two
            for connection in (first, second):
                connection.data_received(whole(PREDICT, BODY))
        await until(lambda: batcher.runners.lanes.rows == 2)
        gone, *stay = reversed(connections)
        gone.connection_lost(None)
        assert batcher.waiting_samples == 1
        go.set()
        return gone.transport.written, [(await answered(c))[0] for c in stay]

    assert asyncio.run(main()) == (b"", [200] * 3)
    assert (served.count(499), served.count(200)) == (1, 3)
    assert served.at_rest()


def test_who_hangs_up_before_the_end_of_the_body_is_counted(bench: Make):
    served = bench()

    async def main():
        connection = served.connect()
        connection.data_received(whole(PREDICT, BODY)[:-1])
        connection.connection_lost(None)
        await asyncio.gather(*served._state.tasks)
        return connection.transport.written

    assert asyncio.run(main()) == b""
    assert served.count(499) == 1
    assert served.at_rest()


def test_a_connection_that_shuts_down_answers_what_is_under_way(bench: Make):
    served = bench()

    async def main():
        half, whole_one, idle = (served.connect() for _ in range(3))
        half.data_received(whole(PREDICT, BODY)[:-3])
        whole_one.data_received(whole(PREDICT, BODY))
        for connection in (half, whole_one, idle):
            connection.shutdown()
        half.data_received(BODY[-3:])
        return [await answered(c) for c in (half, whole_one)], idle.transport.closed

    answers, closed = asyncio.run(main())
    assert closed
    for status, headers, _ in answers:
        assert (status, headers["connection"]) == (200, "close")


def test_keys_are_asked_for(bench: Make, tmp_path: Path):
    keys = tmp_path / "keys"
    keys.write_text(KEY + "\n")
    served = bench(access=Access(KeyFile(keys, "--api-keys-file")))

    async def main():
        found = []
        for headers in ({}, {"X_API_Key": "x" * 16}, {"X_API_Key": KEY}):
            connection = served.connect()
            connection.data_received(whole(PREDICT, BODY, **headers))
            found.append((await answered(connection))[0])
        return found

    assert asyncio.run(main()) == [401, 401, 200]
    assert served.at_rest()


def test_pages_of_other_origins_take_the_usual_way(bench: Make):
    served = bench("--cors-origins", "https://example.org")

    async def main():
        found = []
        for headers in ({}, {"Origin": "https://example.org"}):
            connection = served.connect()
            connection.data_received(whole(PREDICT, BODY, **headers))
            found.append((not served._state.tasks, await answered(connection)))
        return found

    (quick, plain), (task, other) = asyncio.run(main())
    assert quick
    assert not task
    assert plain[0] == other[0] == 200
    assert other[1]["access-control-allow-origin"] == "https://example.org"


def test_a_binary_head_that_comes_again_means_the_same(bench: Make):
    """The JSON of a binary request is read once; the values are each request's own."""
    served = bench()

    def request(x: np.ndarray, cut: int = 0, **more: object) -> bytes:
        entry = {
            "name": "x", "shape": list(x.shape), "datatype": "FP32",
            "parameters": {"binary_data_size": x.nbytes},
        }  # fmt: skip
        text = json.dumps(
            {"inputs": [entry], "parameters": {"binary_data_output": True}, **more}
        ).encode()
        body = text + x.tobytes()
        return whole(
            "/v2/models/m/infer", body[: len(body) - cut],
            Inference_Header_Content_Length=str(len(text)),
        )  # fmt: skip

    async def main():
        connection = served.connect()
        random = np.random.default_rng(0)
        for rows in (1, 2, 1, 2, 1):
            x = random.standard_normal((rows, 4)).astype(np.float32)
            connection.transport.written = b""
            connection.data_received(request(x))
            status, headers, body = await answered(connection)
            length = int(headers["inference-header-content-length"])
            (told,) = json.loads(body[:length])["outputs"]
            got = np.frombuffer(body[length:], np.float32).reshape(told["shape"])
            assert status == 200
            np.testing.assert_allclose(got, reference(linear(), {"x": x})["scores"], rtol=1e-5)
        connection.transport.written = b""
        connection.data_received(request(X, id="7"))
        _, headers, body = await answered(connection)
        length = int(headers["inference-header-content-length"])
        assert json.loads(body[:length])["id"] == "7"
        connection.transport.written = b""
        connection.data_received(request(X, cut=4))
        assert (await answered(connection))[0] == 400

    asyncio.run(main())
    assert len(served.registry.find("m").signature.kept) == 2


def test_a_server_on_a_socket(start, models: Path):
    served = start(models)
    host, port = served.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        for _ in range(3):
            connection.sendall(whole(PREDICT, BODY))
            received = b""
            while not received.endswith(b"}"):
                received += connection.recv(65536)
            assert parts(received)[0] == 200
    assert served.stop() == 0
    assert served.err == ""


def test_an_idle_connection_keeps_no_model_alive(tmp_path: Path):
    """It and what is kept of its head may be there for longer than a version is served."""
    publish(tmp_path, "m", linear(), test={"x": X}, batch_invariant=True)
    served = Bench(tmp_path)

    async def main():
        connection = served.connect()
        connection.data_received(whole(PREDICT, BODY))
        assert (await answered(connection))[0] == 200
        assert connection.plans.known
        watched = weakref.ref(served.registry.find("m"))
        served.registry.unload("m")
        await until(lambda: watched() is None)
        return connection

    asyncio.run(main())
    served.registry.close(5)
