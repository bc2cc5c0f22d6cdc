"""Refusals at the headers: the same answer as from the route, for next to nothing."""

from __future__ import annotations

import json
import math
import socket
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import repository
from test_connections import LIVE, answer, closed, connect
from test_metrics import until

from service.batching.room import Room
from service.connections import head as heads
from service.connections.auth import Access
from service.connections.gate import Gate
from service.connections.plan import _MANY, Plan, Plans
from service.connections.routes import HotRoutes
from service.context import Context
from service.errors import QueueFull
from service.protocols.predict import Predict
from service.settings_read import parse
from service.telemetry.metrics import Metrics


class Queue:
    """A batcher that has so much room."""

    def __init__(self, room: int) -> None:
        self.places = room
        self.room = Room(256, "m", 1)
        self.time_left_s: list[float] = []

    def check_arrivals(self, requests: int, time_left_s: float) -> None:
        self.time_left_s.append(time_left_s)
        if requests > self.places:
            self.room.full_at = time.monotonic()
            raise QueueFull("full", retry_after_s=1)


class Asked:
    """Plans of a server with one model, and the key files that are given."""

    def __init__(self, queue: Queue, access: Access | None = None, origins: str = "") -> None:
        self.queue = queue
        self.model: Any = SimpleNamespace(name="m", version=1, batcher=queue)
        self.metrics = Metrics("0")
        settings = parse(["--cors-origins", origins], {})
        registry: Any = SimpleNamespace(find=lambda *_: self.model)
        context = Context(registry, settings, access, metrics=self.metrics)
        routes = HotRoutes(None, Predict(context), {})  # type: ignore[arg-type]
        gate = Gate(routes, context)
        self.plans = Plans(gate, routes, context, cors=bool(origins))
        self.defaults: list[tuple[bytes, bytes]] = []

    def plan(self, *lines: str, length: int = 10**6) -> Plan:
        """By default one of a request that takes a task, as its body is large."""
        head = ["POST /models/m/predict HTTP/1.1", "Host: x", f"Content-Length: {length}", *lines]
        return self.plans.make(heads.read("\r\n".join([*head, "", ""]).encode(), 9999))

    def let_in(self, plan: Plan, turn: float = 1.0) -> bool:
        return self.plans.refuse(plan, self.model, self.defaults, turn) is None


def test_a_model_is_asked_only_after_its_queue_was_full(monkeypatch: pytest.MonkeyPatch):
    asked = Asked(Queue(room=0))
    plan = asked.plan()
    assert asked.let_in(plan)
    assert asked.queue.time_left_s == []
    asked.queue.room.full_at = time.monotonic()
    assert not asked.let_in(plan, 2.0)
    assert not asked.let_in(asked.plan(length=10), 2.0)
    clock = time.monotonic
    monkeypatch.setattr("service.connections.plan.time.monotonic", lambda: clock() + 99)
    assert asked.let_in(plan, 99.0)  # long after
    assert asked.metrics.requests == {("/models/{name}/predict", "m", 503): 2}
    assert asked.metrics.errors == {"queue_full": 2}


def test_a_crowd_in_one_turn_is_let_in_as_far_as_there_is_room():
    asked = Asked(Queue(room=_MANY + 3))
    found = [asked.let_in(asked.plan()) for _ in range(3 * _MANY)]
    assert found == [True] * (_MANY + 3) + [False] * (2 * _MANY - 3)
    asked.queue.room.full_at = -math.inf
    assert asked.let_in(asked.plan(), 2.0)  # the next turn begins anew


def test_the_deadline_of_the_client_counts_and_strangers_are_left_to_the_routes(tmp_path: Path):
    keys = tmp_path / "keys"
    keys.write_text("a-key-that-is-long-enough\n")
    asked = Asked(Queue(room=0), Access.of(keys, None))
    asked.queue.room.full_at = time.monotonic()
    key, timeout = "X-API-Key: a-key-that-is-long-enough", "X-Timeout-Ms: 250"
    assert not asked.let_in(asked.plan(key, timeout))
    assert asked.queue.time_left_s == [0.25]
    assert asked.let_in(asked.plan())
    assert asked.let_in(asked.plan("X-API-Key: wrong"))
    assert asked.queue.time_left_s == [0.25]


def test_pages_are_left_to_the_routes_if_their_answers_have_other_headers():
    for origins, found in (("", True), ("https://app.example.org", False)):
        asked = Asked(Queue(room=0), origins=origins)
        assert (asked.plan("Origin: https://app.example.org").found is not None) == found


# --- a real server ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def busy(start, tmp_path_factory: pytest.TempPathFactory):
    """A server with room for one, where one runs and one waits, both for a long time."""
    root = tmp_path_factory.mktemp("busy")
    repository.publish(root, "slow", repository.as_long_as_asked())
    served = start(root, "--queue-capacity-samples", "1", "--runners", "1",
                   "--drain-timeout-ms", "0", "--request-timeout-ms", "600000")  # fmt: skip
    held = []
    with served.client() as client:
        for waiting in (0, 1):
            held.append(connect(served))
            held[-1].sendall(post("/predict", body=b'{"inputs": [[1e12]]}'))
            until(client, "foldserve_requests_in_flight", 2 + waiting)  # with the one that asks
            until(client, "foldserve_queue_rows", waiting, model="slow", version="1")
    yield served
    for connection in held:
        connection.close()
    served.process.kill()
    served.end()


def post(path: str, *lines: str, body: bytes = b'{"inputs": [[1.0]]}') -> bytes:
    head = [f"POST {path} HTTP/1.1", "Host: x", f"Content-Length: {len(body)}", *lines]
    return "\r\n".join([*head, "", ""]).encode() + body


def refused(connection: socket.socket) -> tuple[dict[str, str], bytes]:
    status, headers, body = answer(connection)
    assert status == 503, body
    assert int(headers["retry-after"]) >= 1
    assert headers["content-type"] == "application/json"
    assert headers["x-content-type-options"] == "nosniff"
    return headers, body


def test_the_route_and_the_connection_refuse_in_the_same_words(busy):
    with connect(busy) as connection:
        answers = []
        for number in range(3):
            connection.sendall(post("/predict", f"X-Request-ID: mine-{number}"))
            headers, body = refused(connection)
            assert headers["x-request-id"] == f"mine-{number}"
            answers.append((sorted(headers), body))
        assert answers[0] == answers[1] == answers[2]
        assert json.loads(answers[0][1])["code"] == "queue_full"
        for _ in range(2):
            connection.sendall(post("/v2/models/slow/infer"))
            headers, body = refused(connection)
            assert list(json.loads(body)) == ["error"]
            assert len(headers["x-request-id"]) == 32
        connection.sendall(LIVE)
        assert answer(connection)[0] == 200


def test_early_refusals_are_counted_as_the_others(busy):
    labels = {"route": "/models/{name}/predict", "model": "slow", "code": "503"}
    with connect(busy) as connection, busy.client() as client:
        for _ in range(5):
            connection.sendall(post("/models/slow/predict"))
            refused(connection)
        until(client, "foldserve_requests_total", 5, **labels)


def test_a_large_body_behind_a_refusal_is_dropped_and_the_connection_goes_on(busy):
    """More than --max-header-bytes: what comes behind the answer is no head."""
    large = b" " * 3_000_000
    with connect(busy) as connection:
        for _ in range(3):
            message = post("/predict", body=large)
            connection.sendall(message[:200])
            refused(connection)
            connection.sendall(message[200:])
        connection.sendall(LIVE)
        assert answer(connection)[0] == 200


def test_an_expected_body_that_is_not_wanted_ends_the_connection(busy):
    """The client may or may not send it now: what comes next could be either."""
    with connect(busy) as connection:
        head = post("/predict", "Expect: 100-continue").partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
        connection.sendall(head)
        refused(connection)
        assert closed(connection)


def test_a_client_that_closes_each_time(busy):
    with connect(busy) as connection:
        connection.sendall(post("/predict", "Connection: close"))
        headers, _ = refused(connection)
        assert headers["connection"] == "close"
        assert closed(connection)


def test_pipelined_requests_are_refused_one_by_one(busy):
    with connect(busy) as connection:
        connection.sendall(post("/predict") * 20 + LIVE)
        with connection.makefile("rb") as file:
            for _ in range(20):
                assert file.readline() == b"HTTP/1.1 503 Service Unavailable\r\n"
                length = 0
                while (line := file.readline().lower()) != b"\r\n":
                    if line.startswith(b"content-length:"):
                        length = int(line.split(b":")[1])
                file.read(length)
            assert file.readline() == b"HTTP/1.1 200 OK\r\n"
