"""What a V2 request wishes for itself: a time after which it waits no longer, and its turn."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator

import grpc
import httpx
import numpy as np
import pytest
import repository
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http
from conftest import Served
from test_batching import item
from test_v2_grpc import address, given
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.utils import InferenceServerException

from service.batching.item import Awaited, Item, Outcome
from service.batching.lanes import Lanes
from service.batching.turn import Turn
from service.exchange import USUAL_PRIORITY, Exchange
from service.protocols import grpc_messages

ONE = np.ones((1, 1), np.float32)


@pytest.fixture(scope="module")
def served(start, tmp_path_factory: pytest.TempPathFactory) -> Served:
    root = tmp_path_factory.mktemp("wishes")
    repository.publish(root, "asked", repository.as_long_as_asked(), serving={"runners": 1})
    repository.publish(root, "quick", repository.linear(), batch_invariant=True)
    return start(root, "--grpc-port", "0", "--max-batch-size", "1")


@pytest.fixture(params=["http", "grpc"])
def client(served: Served, request: pytest.FixtureRequest) -> Iterator:
    if request.param == "http":
        made = triton_http.InferenceServerClient(served.url.removeprefix("http://"))
    else:
        made = triton_grpc.InferenceServerClient(address(served))
    yield made
    made.close()


def tensor(client, array: np.ndarray):
    if isinstance(client, triton_grpc.InferenceServerClient):
        return given("x", array)
    entry = triton_http.InferInput("x", list(array.shape), "FP32")
    entry.set_data_from_numpy(array)
    return entry


# Turns of the loop in the graph, which takes about two microseconds for each.
LONG = np.full((1, 1), 600_000, np.float32)


@pytest.mark.slow
def test_a_timeout_of_the_request_is_kept(client):
    with pytest.raises(InferenceServerException, match=r"in time|deadline"):
        client.infer("asked", [tensor(client, LONG)], timeout=50_000)
    assert client.infer("asked", [tensor(client, ONE)], timeout=60_000_000).as_numpy("y") == 1


@pytest.mark.slow
def test_the_same_request_without_it_is_answered(client):
    x = tensor(client, np.ones((2, 4), np.float32))
    for timeout in (None, 30_000_000, 0, None):
        assert client.infer("quick", [x], timeout=timeout).as_numpy("scores").shape == (2, 3)


@pytest.mark.slow
def test_one_that_is_too_short_for_anything_is_told_so(client):
    x = tensor(client, np.ones((2, 4), np.float32))
    for _ in range(3):  # the same head each time: what is known of it includes the wish
        with pytest.raises(InferenceServerException, match=r"in time|deadline"):
            client.infer("quick", [x], timeout=1)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["timeout", "priority"])
@pytest.mark.parametrize("value", ["soon", -1, 1.5, True, [1], 2**63])
def test_what_is_no_number_is_refused(served: Served, name: str, value: object):
    body = {
        "parameters": {name: value},
        "inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4]}],
    }
    with served.client() as client:
        answer = client.post("/v2/models/quick/infer", json=body)
        assert answer.status_code == 400
        assert f"parameter '{name}'" in answer.json()["error"]


@pytest.mark.slow
def test_over_grpc_every_kind_of_number_is_one_and_text_is_none(served: Served):
    request = service_pb2.ModelInferRequest(model_name="quick")
    request.inputs.add(name="x", datatype="FP32", shape=[1, 4])
    request.raw_input_contents.append(bytes(16))
    with grpc.insecure_channel(address(served)) as channel:
        call = service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer
        for field, value, refused in (
            ("int64_param", 1, False),
            ("int64_param", -1, True),
            ("string_param", "1", True),
            ("bool_param", True, True),
        ):
            setattr(request.parameters["priority"], field, value)
            if not refused:
                assert call(request).model_name == "quick"
                continue
            with pytest.raises(grpc.RpcError, match="parameter 'priority'") as caught:
                call(request)
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        ours = grpc_messages.classes()["ModelInferRequest"]()
        ours.ParseFromString(request.SerializeToString())
        ours.parameters["priority"].uint64_param = 1  # which this client does not know yet
        unknown = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        assert unknown(ours.SerializeToString())


@pytest.mark.slow
def test_null_is_no_wish(served: Served):
    body = {
        "id": None,
        "parameters": {"timeout": None, "priority": None},
        "inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4]}],
        "outputs": None,
    }
    with served.client() as client:
        assert client.post("/v2/models/quick/infer", json=body).status_code == 200


@pytest.mark.slow
def test_an_urgent_request_goes_before_those_that_wait(served: Served):
    """One runs, four wait, and the urgent one that comes last is answered first of them."""
    order: list[str] = []
    lock = threading.Lock()

    def ask(name: str, priority: int, turns: float) -> None:
        with triton_http.InferenceServerClient(served.url.removeprefix("http://")) as client:
            x = tensor(client, np.full((1, 1), turns, np.float32))
            client.infer("asked", [x], priority=priority)
            with lock:
                order.append(name)

    def waiting() -> int:
        page = httpx.get(f"{served.url}/metrics", trust_env=False).text
        (line,) = [
            each for each in page.splitlines()
            if each.startswith('foldserve_queue_rows{model="asked"')
        ]  # fmt: skip
        return int(line.rpartition(" ")[2])

    def until(rows: int) -> None:
        end = time.monotonic() + 60
        while waiting() != rows:
            assert time.monotonic() < end
            time.sleep(0.002)

    plan = [("later", 3, 20_000.0), *[("usual", 0, 20_000.0)] * 3, ("urgent", 1, 20_000.0)]
    first = threading.Thread(target=ask, args=("first", 0, 3_000_000.0))
    first.start()
    time.sleep(0.3)  # it runs
    threads = []
    for position, each in enumerate(plan):
        threads.append(threading.Thread(target=ask, args=each))
        threads[-1].start()
        until(position + 1)
    for thread in (first, *threads):
        thread.join(120)
    assert order == ["first", "urgent", "usual", "usual", "usual", "later"]


def urgent(rows: int, priority: int, lane: str = "", deadline: float = 1e9) -> Item:
    made = item(rows, lane, deadline)
    made.priority = priority
    return made


def test_urgent_rows_begin_a_batch_and_others_fill_it():
    lanes = Lanes()
    usual = [urgent(1, USUAL_PRIORITY) for _ in range(3)]
    other = urgent(1, USUAL_PRIORITY, "other shape")
    later, first, second = urgent(1, 9), urgent(1, 1), urgent(1, 1)
    for each in (later, *usual, other, first, second):
        lanes.put(each)
    assert lanes.oldest() is usual[0]
    assert lanes.take(4, 0.0)[0] == [first, second, *usual[:2]]
    assert lanes.take(4, 0.0)[0] == [usual[2], later]
    assert lanes.take(4, 0.0)[0] == [other]
    assert not lanes
    assert lanes.rows == 0


def test_late_urgent_rows_do_not_lend_their_turn():
    lanes = Lanes()
    dead = urgent(1, 1, "a", deadline=5.0)
    usual = urgent(1, USUAL_PRIORITY, "a")
    next_best = urgent(1, 1, "b")
    for each in (dead, usual, next_best):
        lanes.put(each)
    assert lanes.take(1, 10.0) == ([next_best], [dead])
    assert lanes.take(1, 10.0) == ([usual], [])


def test_the_turn_of_the_event_loop_keeps_the_order():
    class Work:
        def __init__(self) -> None:
            self.batches: list[list[Item]] = []

        def run_turn(self, batch: list[Item]) -> list[tuple[Item, Outcome]]:
            self.batches.append(batch)
            if len(self.batches) == 1:  # one that comes while others wait still
                self.late = made(USUAL_PRIORITY)
                turn.add(self.late, self)
            return []

        def turn_limit(self) -> int:
            return 2

        def share_turn(self, *_: object) -> bool:
            return False

        def leave_the_loop(self, _: float) -> None:
            raise AssertionError

    turn, work = Turn(), Work()

    def made(priority: int) -> Item:
        loop = asyncio.get_running_loop()
        exchange = Exchange("1")
        exchange.priority = priority
        return Awaited({}, 1, 1e12, loop, exchange)

    async def main() -> list[Item]:
        items = [made(p) for p in (3, USUAL_PRIORITY, 1, USUAL_PRIORITY, 1)]
        for each in items:
            turn.add(each, work)
        for _ in range(10):
            await asyncio.sleep(0)
        return items

    later, usual, first, usual_too, second = asyncio.run(main())
    assert work.batches == [[first, second], [usual, usual_too], [work.late, later]]
    assert turn.rows == 0
