"""ModelStreamInfer: with NVIDIA's own client, and its bounds with calls that are made up."""

from __future__ import annotations

import asyncio
import queue
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest
import repository
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from conftest import Served
from test_metrics import parse, value
from test_v2_grpc import address, given
from tritonclient.grpc import service_pb2
from tritonclient.utils import InferenceServerException

from service.budget import Budget
from service.errors import BodyTimeout, NotFound, ShuttingDown, TooManyConnections
from service.protocols import grpc_infer_stream
from service.protocols.grpc_infer_stream import InferStreams

KEY = "a-key-of-sixteen-letters"
ROWS = np.random.default_rng(3).standard_normal((40, 4)).astype(np.float32)


@pytest.fixture(scope="module")
def served(start, tmp_path_factory: pytest.TempPathFactory) -> Served:
    root = tmp_path_factory.mktemp("streams")
    repository.publish(root, "m", repository.linear())
    repository.publish(root, "asked", repository.as_long_as_asked(), serving={"runners": 1})
    (root.parent / "stream-keys").write_text(f"{KEY}\n")
    keys = str(root.parent / "stream-keys")
    return start(root, "--grpc-port", "0", "--api-keys-file", keys, "--max-body-bytes", "1000000")


class Stream:
    """A stream of tritonclient's; `next` is what its callback was told."""

    def __init__(self, served: Served, key: str | None = KEY, **options) -> None:
        self.told: queue.Queue[tuple] = queue.Queue()
        self.client = triton.InferenceServerClient(address(served))
        headers = {"x-api-key": key} if key else None
        self.client.start_stream(
            lambda result, error: self.told.put((result, error)), headers=headers, **options
        )

    def send(self, model: str, x: np.ndarray, **options) -> None:
        self.client.async_stream_infer(model, [given("x", x)], **options)

    def next(self):
        result, error = self.told.get(timeout=60)
        return error or result

    def close(self) -> None:
        self.client.stop_stream()
        self.client.close()


@pytest.fixture
def stream(served: Served) -> Iterator[Stream]:
    made = Stream(served)
    yield made
    made.close()


@pytest.mark.slow
def test_answers_come_in_the_order_of_the_requests(stream: Stream):
    expected = repository.reference(repository.linear(), {"x": ROWS})["scores"]
    for number, row in enumerate(ROWS):
        stream.send("m", row[None], request_id=str(number), enable_empty_final_response=True)
    for number, wanted in enumerate(expected):
        result = stream.next()
        np.testing.assert_allclose(result.as_numpy("scores")[0], wanted, rtol=1e-5, atol=1e-6)
        response = result.get_response()
        assert (response.id, response.model_name) == (str(number), "m")
        assert response.parameters["triton_final_response"].bool_param


@pytest.mark.slow
def test_a_slow_answer_is_not_overtaken(stream: Stream):
    stream.send("asked", np.full((1, 1), 100_000, np.float32), request_id="slow")
    stream.send("m", ROWS, request_id="quick")
    assert [stream.next().get_response().id for _ in range(2)] == ["slow", "quick"]


@pytest.mark.slow
def test_an_error_takes_the_place_of_its_answer(stream: Stream):
    stream.send("nothing", ROWS)
    stream.send("m", ROWS[:, :3])
    stream.send("asked", np.full((1, 1), 600_000, np.float32), timeout=50_000)
    stream.send("m", ROWS[:1])
    errors = [stream.next() for _ in range(3)]
    assert all(isinstance(each, InferenceServerException) for each in errors)
    assert errors[0].message().startswith("Request for unknown model")
    assert "shape" in errors[1].message()
    assert "in time" in errors[2].message()
    assert stream.next().as_numpy("scores").shape == (1, 3)


@pytest.mark.slow
def test_asynchronous_clients_stream_too(served: Served):
    async def main() -> list:
        async def requests():
            for number, row in enumerate(ROWS):
                yield {
                    "model_name": "m" if number % 2 else "nothing",
                    "inputs": [given("x", row[None])],
                    "request_id": str(number),
                }

        async with triton_aio.InferenceServerClient(address(served)) as client:
            answers = client.stream_infer(requests(), headers={"x-api-key": KEY})
            return [each async for each in answers]

    for number, (result, error) in enumerate(asyncio.run(main())):
        assert bool(result) is bool(number % 2), error
        if result:
            assert result.get_response().id == str(number)
    assert number == len(ROWS) - 1


@pytest.mark.slow
def test_the_id_is_told_of_what_failed_and_rubbish_is_only_that(served: Served):
    with grpc.insecure_channel(address(served)) as channel:
        call = channel.stream_stream("/inference.GRPCInferenceService/ModelStreamInfer")
        unknown = service_pb2.ModelInferRequest(model_name="nothing", id="7").SerializeToString()
        data = call(iter([unknown, b"\xff\xff", b""]), metadata=[("x-api-key", KEY)])
        told = [service_pb2.ModelStreamInferResponse.FromString(each) for each in data]
    assert [each.infer_response.id for each in told] == ["7", "", ""]
    assert all(each.error_message for each in told)
    assert "cannot be read" in told[1].error_message


@pytest.mark.slow
def test_it_needs_a_key_where_keys_are_used(served: Served):
    stream = Stream(served, key=None)
    assert stream.next().status() == "StatusCode.UNAUTHENTICATED"
    stream.close()


@pytest.mark.slow
def test_each_request_counts(served: Served, stream: Stream):
    def count(status: int) -> float:
        with served.client(headers={"x-api-key": KEY}) as client:
            samples = parse(client.get("/metrics").text)
        kind = {"route": "grpc ModelStreamInfer", "model": "m", "code": str(status)}
        return value(samples, "foldserve_requests_total", **kind)

    before = count(200), count(400)
    for x in (ROWS, ROWS[:, :3], ROWS):
        stream.send("m", x)
    for _ in range(3):
        stream.next()
    stream.client.stop_stream()
    assert (count(200), count(400)) == (before[0] + 2, before[1] + 1)


@pytest.mark.slow
def test_the_time_of_a_stream_ends_it(served: Served):
    stream = Stream(served, stream_timeout=0.5)
    stream.send("asked", np.full((1, 1), 3_000_000, np.float32))  # 2.5 s on a fast machine
    told = stream.next()
    if told.status() is None:  # the server's answer was there before the client's clock
        assert "not ready in time" in told.message()
        told = stream.next()
    assert told.status() == "StatusCode.DEADLINE_EXCEEDED"
    stream.close()


@pytest.mark.slow
def test_a_server_that_stops_answers_what_has_come_and_says_so(start, tmp_path: Path):
    repository.publish(tmp_path, "asked", repository.as_long_as_asked())
    served = start(tmp_path, "--grpc-port", "0")
    stream = Stream(served)
    stream.send("asked", np.ones((1, 1), np.float32))
    assert stream.next().as_numpy("y") == 1
    stream.send("asked", np.full((1, 1), 1_000_000, np.float32))
    with served.client() as client:  # it asks, too
        while value(parse(client.get("/metrics").text), "foldserve_requests_in_flight") < 2:
            assert stream.told.empty()
    assert served.stop() == 0
    assert stream.next().as_numpy("y").shape == (1, 1)
    error = stream.next()
    assert error.status() == "StatusCode.UNAVAILABLE"
    assert "stopping" in error.message()
    stream.close()


# --- bounds -------------------------------------------------------------------------------


class Call:
    """A client that sends what it is given, and reads as many answers as it may."""

    def __init__(self, messages: int = 0, reads: int = 0, peer: str = "ipv4:192.0.2.1:5") -> None:
        self.sent: asyncio.Queue[object] = asyncio.Queue()
        for number in range(messages):
            self.sent.put_nowait(b"%d" % number)
        self._may_read = asyncio.Semaphore(reads)
        self.written: list[bytes] = []
        self._peer = peer

    def peer(self) -> str:
        return self._peer

    async def read(self) -> object:
        return await self.sent.get()

    async def write(self, answer: bytes) -> None:
        await self._may_read.acquire()
        self.written.append(answer)

    def read_more(self, count: int) -> None:
        for _ in range(count):
            self._may_read.release()


async def echo(message: bytes, write) -> None:
    await write(message)


async def turn() -> None:
    for _ in range(200):
        await asyncio.sleep(0)


def test_of_a_client_that_does_not_read_only_so_many_are_taken():
    async def main():
        call = Call(messages=100, reads=3)
        asked = []

        async def ask(message: bytes, write) -> None:
            asked.append(message)
            await write(message)

        task = asyncio.ensure_future(InferStreams(Budget(1000), 100, 60).serve(call, ask))
        await turn()
        assert len(call.written) == 3
        assert len(asked) == 3 + grpc_infer_stream._MOST_WAITING
        call.read_more(97)
        call.sent.put_nowait(object())  # the end
        await task
        assert call.written == [b"%d" % number for number in range(100)]

    asyncio.run(main())


def test_who_reads_nothing_for_too_long_is_told_so_and_counts_until_then():
    async def main():
        call, held = Call(messages=5), []

        async def ask(message: bytes, write) -> None:
            held.append(message)
            try:
                await write(message)
            finally:
                held.remove(message)

        budget = Budget(1000)
        task = asyncio.ensure_future(InferStreams(budget, 100, 0.05).serve(call, ask))
        while not held or budget.held:  # until its place is free
            await asyncio.sleep(0.01)
        await turn()
        assert held == [b"0"]  # the library has it yet, and takes no status before
        assert not task.done()
        call.read_more(1)
        with pytest.raises(BodyTimeout):
            await task
        assert not held

    asyncio.run(main())


def test_each_open_stream_counts_as_the_largest_message(monkeypatch: pytest.MonkeyPatch):
    async def main():
        budget = Budget(1000)
        streams = InferStreams(budget, 100, 60)
        assert streams.most == 5
        calls = [Call(peer=f"ipv4:192.0.2.{number}:5") for number in range(5)]
        tasks = [asyncio.ensure_future(streams.serve(each, echo)) for each in calls]
        await turn()
        assert budget.held == 500
        with pytest.raises(TooManyConnections):  # none is silent for long
            await streams.serve(Call(), echo)
        assert budget.held == 500
        monkeypatch.setattr("service.connections.places._SILENT_S", -1)
        monkeypatch.setattr("service.connections.places._LOOK_EVERY_S", 0)
        tasks.append(asyncio.ensure_future(streams.serve(Call(), echo)))
        await turn()
        assert [each.done() for each in tasks] == [True] + [False] * 5
        with pytest.raises(TooManyConnections, match="silent"):
            await tasks[0]
        assert budget.held == 500
        streams.close()
        for each in tasks[1:]:
            with pytest.raises(ShuttingDown):
                await each
        assert budget.held == 0

    asyncio.run(main())


def test_of_one_address_never_all_are_open():
    async def main():
        streams = InferStreams(Budget(1000), 100, 60)
        tasks = [asyncio.ensure_future(streams.serve(Call(), echo)) for _ in range(5)]
        await turn()
        assert [each.done() for each in tasks] == [False] * 4 + [True]
        other = asyncio.ensure_future(streams.serve(Call(peer="ipv4:192.0.2.2:1"), echo))
        await turn()
        assert not other.done()
        with pytest.raises(TooManyConnections):
            await tasks[4]
        for each in (*tasks[:4], other):
            each.cancel()

    asyncio.run(main())


def test_a_client_that_leaves_ends_what_it_had_asked_for():
    async def main():
        begun, ended = [], []

        async def ask(message: bytes, write) -> None:
            begun.append(message)
            try:
                await asyncio.sleep(60)
            finally:
                ended.append(message)

        streams = InferStreams(Budget(1000), 100, 60)
        task = asyncio.ensure_future(streams.serve(Call(messages=3), ask))
        await turn()
        task.cancel()
        await turn()
        assert begun == sorted(ended) == [b"0", b"1", b"2"]

    asyncio.run(main())


@pytest.mark.parametrize("size", [0, 1, 100, 126, 127, 128, 16_300, 16_384, 3_000_000])
def test_answers_are_as_protobuf_writes_them(size: int):
    response = service_pb2.ModelInferResponse(id="a", raw_output_contents=[b"x" * size])
    written = grpc_infer_stream.succeeded(response.SerializeToString())
    read = service_pb2.ModelStreamInferResponse.FromString(written)
    assert not read.error_message
    assert read.infer_response.raw_output_contents[0] == b"x" * size
    assert read.infer_response.parameters["triton_final_response"].bool_param


def test_an_error_has_the_hint_too():
    error = NotFound("Nothing.", hint="Look.")
    read = service_pb2.ModelStreamInferResponse.FromString(grpc_infer_stream.failed(error, b"\xff"))
    assert read.error_message == "Nothing. Look."
