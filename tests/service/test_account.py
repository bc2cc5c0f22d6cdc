"""What a connection holds besides its request: counted while it is there, and not after."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from repository import linear, publish
from test_quick import BODY, PREDICT, Bench, Pipe, X, answered, head, parts, until, whole

from service.connections.connection import Connection

LIVE = b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n"


class Unread(Pipe):
    """A transport whose client reads nothing until `read`."""

    def __init__(self) -> None:
        super().__init__()
        self.unread = 0
        self.connection: Connection | None = None
        self.low = -1

    def set_write_buffer_limits(self, high=None, low=None):
        self.high, self.low = high, low

    def write(self, data):
        super().write(data)
        self.unread += len(data)
        if self.unread > self.high and not self.connection.write_paused:
            self.connection.pause_writing()

    def get_write_buffer_size(self):
        return self.unread

    def read(self, size: int) -> None:
        self.unread -= size
        if self.unread <= self.low and self.connection.write_paused:
            self.connection.resume_writing()


@pytest.fixture
def served(tmp_path: Path):
    publish(tmp_path / "models", "m", linear(), test={"x": X}, batch_invariant=True)
    made = Bench(tmp_path / "models")
    yield made
    made.registry.close(5)


def connect(served: Bench) -> Connection:
    connection = served._config.http_protocol_class(served._config, served._state, {})
    transport = Unread()
    transport.connection = connection
    connection.connection_made(transport)
    return connection


def test_an_answer_is_held_whole_until_its_last_byte_has_left(served: Bench):
    """Not what is left of it: the bytes that have been sent are still there, too."""

    async def main():
        connection = connect(served)
        pipe = connection.transport
        pipe.write(b"x" * 1_000_000)
        connection.answered(keep_alive=True, size=1_000_000)
        assert served.budget.held == 1_000_000
        pipe.read(990_000)
        connection.check_time(0.0)
        assert served.budget.held == 1_000_000
        assert connection.write_paused
        pipe.read(10_000)
        assert served.budget.held == 0
        assert not connection.write_paused

    asyncio.run(main())


def test_an_answer_whose_rest_does_not_stop_the_writing_is_seen_to_go(served: Bench):
    async def main():
        connection = connect(served)
        connection.transport.unread = 5000  # of a megabyte, the system has taken the rest
        connection.answered(keep_alive=True, size=1_000_000)
        assert served.budget.held == 1_000_000
        connection.transport.unread = 0
        connection.check_time(1.0)
        assert served.budget.held == 0

    asyncio.run(main())


def test_small_answers_that_nobody_reads_are_counted_after_a_second(served: Bench):
    async def main():
        connection = connect(served)
        pipe = connection.transport
        for _ in range(3):
            connection.data_received(LIVE)
            await answered_all(connection)
        assert served.budget.held == 0
        connection.check_time(1.0)
        assert served.budget.held == len(pipe.written)
        connection.connection_lost(None)
        assert served.budget.held == 0

    asyncio.run(main())


async def answered_all(connection: Connection) -> None:
    await until(lambda: not connection.answering)


def test_what_is_piled_up_behind_a_request_is_counted(served: Bench):
    async def main():
        connection = connect(served)
        piled = LIVE * 200
        connection.data_received(head(PREDICT, 10**5) + b"[" * 10**5 + piled)
        assert connection.behind == piled
        waiting = served.budget.held
        assert waiting >= len(piled)
        connection.connection_lost(None)
        await until(lambda: served.budget.held == 0)

    asyncio.run(main())


def test_piles_for_which_there_is_no_memory_end_with_the_answer(served: Bench):
    served.budget.limit = 200_000

    async def main():
        other = connect(served)
        other.account.take(170_000)
        connection = connect(served)
        connection.data_received(whole(PREDICT, BODY) + LIVE * 2000)
        assert connection.last
        assert connection.behind == b""
        pipe = connection.transport
        await until(lambda: b"200 OK" in pipe.written)
        status, _, body = parts(pipe.written)
        assert status == 200
        assert "scores" in json.loads(body)["outputs"]
        assert connection.ended is not None  # and nothing of what came behind it is answered
        assert served.metrics.errors == {"too_many_bytes": 1}
        other.account.take(0)
        connection.connection_lost(None)
        await until(served.at_rest)

    asyncio.run(main())


def test_a_head_in_pieces_is_counted_and_refused_when_there_is_no_memory(served: Bench):
    async def main():
        connection = connect(served)
        begin = b"GET /health/live HTTP/1.1\r\nHost: x\r\n"
        connection.data_received(begin + b"X-A: " + b"a" * 10_000)
        assert served.budget.held == len(begin) + 10_005
        connection.data_received(b"\r\n\r\n")
        await answered(connection)
        assert served.budget.held == 0
        served.budget.limit = 15_000
        other = connect(served)
        other.account.take(12_000)
        connection.transport.written = b""
        connection.data_received(begin + b"X-A: " + b"a" * 10_000)
        status, headers, body = parts(connection.transport.written)
        assert (status, headers["retry-after"]) == (503, "1")
        assert json.loads(body)["code"] == "too_many_bytes"
        other.connection_lost(None)
        other.account.take(0)

    asyncio.run(main())


def test_a_small_body_that_is_awaited_is_counted(served: Bench):
    async def main():
        connection = connect(served)
        body = BODY + b" " * 9000
        connection.data_received(head(PREDICT, len(body)) + body[:5])
        assert served.budget.held == len(body)
        connection.data_received(body[5:])
        status, _, _ = await answered(connection)
        assert status == 200
        assert served.at_rest()
        served.budget.limit = 15_000
        other = connect(served)
        other.account.take(12_000)
        connection.transport.written = b""
        connection.data_received(head(PREDICT, len(body)) + body[:5])
        status, _, answer = parts(connection.transport.written)
        assert (status, json.loads(answer)["code"]) == (503, "too_many_bytes")
        other.account.take(0)

    asyncio.run(main())


def test_a_head_of_many_lines_is_refused_while_it_comes(served: Bench):
    async def main():
        connection = connect(served)
        connection.data_received(b"GET / HTTP/1.1\r\nHost: x\r\n")
        connection.data_received(b"a:\r\n" * 150)
        return parts(connection.transport.written)

    status, _, body = asyncio.run(main())
    assert status == 431
    assert json.loads(body)["code"] == "headers_too_large"


def test_a_budget_is_not_needed():
    from service.connections.lifetime import ConnectionLimits, Lifetime

    limits = ConnectionLimits(100, 4096, 60, 60, 60)
    one = type("Own", (Lifetime,), {"limits": limits})(None)
    one.hold_waiting(10**9)
    assert one.account.held == 0
