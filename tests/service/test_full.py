"""A flood of small predictions: refused by its headers, in the words of the route."""

from __future__ import annotations

import asyncio
import json
import re
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from repository import answer, linear, publish
from test_quick import BODY, KEY, PREDICT, Bench, X, answered, head, parts, whole

from service import cpu
from service.connections import head as heads
from service.connections import plan as plans
from service.connections.auth import Access, KeyFile
from service.connections.connection import Connection
from service.connections.prediction import Prediction


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Bench]:
    publish(tmp_path / "models", "m", linear(), test={"x": X}, batch_invariant=True)
    keys = tmp_path / "keys"
    keys.write_text(KEY + "\n")
    made = Bench(tmp_path / "models", access=Access(KeyFile(keys, "--api-keys-file")))
    yield made
    made.registry.close(5)


class Waiting:
    """Makes the queue of the model look full."""

    def __init__(self, served: Bench) -> None:
        self.turn = served.registry.find("m").batcher._turn

    def __enter__(self) -> None:
        self.turn.rows += 256

    def __exit__(self, *_: object) -> None:
        self.turn.rows -= 256


async def no_longer_fresh() -> None:
    await asyncio.sleep(2 * plans._FRESH_S)


def ask(connection, body: bytes = BODY, path: str = PREDICT, key: str = KEY, **headers: str):
    connection.transport.written = b""
    connection.data_received(whole(path, body, X_API_Key=key, **headers))
    return connection.transport.written


def test_the_second_refusal_is_ready_made_and_says_the_same(
    served: Bench, monkeypatch: pytest.MonkeyPatch
):
    taken = []
    begin = Prediction.begin

    def spy(self, body):
        taken.append(self._plan.head.path)
        return begin(self, body)

    monkeypatch.setattr(Prediction, "begin", spy)
    v2 = "/v2/models/m/infer"

    async def main():
        connection = served.connect()
        with Waiting(served):
            ours = [ask(connection, X_Request_ID=f"mine-{i}") for i in range(3)]
            theirs = [ask(connection, path=v2) for _ in range(2)]
        await no_longer_fresh()
        complete = ask(connection), connection.answering
        return ours, theirs, complete

    ours, theirs, (last, answering) = asyncio.run(main())
    assert taken == [PREDICT, PREDICT]
    told = [parts(answer) for answer in ours]
    assert [headers.pop("x-request-id") for _, headers, _ in told] == ["mine-0", "mine-1", "mine-2"]
    # The route and the ready-made answer have the same lines; their order may differ.
    assert told[0] == told[1] == told[2]
    assert told[0][0] == 503
    assert told[0][1]["retry-after"] == "1"
    assert json.loads(told[0][2])["code"] == "queue_full"
    assert [list(json.loads(parts(answer)[2])) for answer in theirs] == [["error"]] * 2
    assert last == b""  # there is room again: it waits for its run
    assert answering
    assert served.count(503) == 3
    assert served.metrics.errors == {"queue_full": 5}


def test_nothing_is_kept_of_a_body_that_is_still_to_come(served: Bench):
    async def main():
        connection = served.connect()
        sent = whole(PREDICT, BODY, X_API_Key=KEY)
        with Waiting(served):
            ask(connection)
            connection.transport.written = b""
            connection.data_received(sent[: -len(BODY)])
            refusal = connection.transport.written
            assert connection._awaited is None
        for byte in BODY:  # after the refusal, and then a request that is answered
            connection.data_received(bytes([byte]))
        await no_longer_fresh()
        ask(connection)
        return refusal, await answered(connection)

    refusal, (status, _, _) = asyncio.run(main())
    assert parts(refusal)[0] == 503
    assert status == 200
    assert served.at_rest()


def test_who_has_no_key_is_told_so_and_not_how_full_it_is(served: Bench):
    async def main():
        connection = served.connect()
        with Waiting(served):
            ask(connection)
            return parts(ask(connection, key="x" * 16))[0]

    assert asyncio.run(main()) == 401


def test_another_deadline_is_another_question(served: Bench):
    """What the queue cannot do in a millisecond it may do in a minute."""
    model = served.registry.find("m")
    model.batcher.room.seconds_per_row = 0.01

    async def main():
        hurried, unhurried = served.connect(), served.connect()
        for _ in range(3):
            model.batcher._turn.rows = 100  # one second of work
            refusal = ask(hurried, X_Timeout_Ms="500")
            assert ask(unhurried, X_Timeout_Ms="30000") == b""
            assert parts(refusal)[0] == 503
            unhurried = served.connect()  # the one before waits for its turn

    asyncio.run(main())


def test_the_last_request_of_a_connection_closes_it(served: Bench):
    async def main():
        connection = served.connect()
        with Waiting(served):
            ask(connection)
            refusal = ask(connection, Connection="close")
        return parts(refusal), connection.transport.closed

    (status, headers, _), closed = asyncio.run(main())
    assert (status, headers["connection"], closed) == (503, "close", True)


def test_after_a_while_nobody_looks(served: Bench, monkeypatch: pytest.MonkeyPatch):
    connection_time = time.monotonic

    async def main():
        connection = served.connect()
        with Waiting(served):
            ask(connection)
            monkeypatch.setattr(
                "service.connections.plan.time.monotonic", lambda: connection_time() + 6
            )
            begun: list[object] = []
            monkeypatch.setattr(Prediction, "begin", lambda *_: begun.append(_) or True)
            ask(connection)
            return len(begun)

    assert asyncio.run(main()) == 1


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="nice is of a process there")
def test_runners_give_way(served: Bench):
    import os

    mine = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    model = served.registry.find("m")
    model.batcher.inline_rows = 0
    answer(model, {"x": X})  # a thread of it has begun
    ids = [thread.native_id for thread in model.batcher.runners.threads]
    theirs = {os.getpriority(os.PRIO_PROCESS, each) for each in ids if each}
    assert theirs == {min(mine + cpu._NICE_STEPS, 19)}


def flood(served: Bench, *reads: bytes, first: int = 1) -> tuple[bytes, set[bytes]]:
    """What is written for reads of one connection of a full model, after `first` requests.

    Also the heads that are kept.
    """

    async def main():
        connection = served.connect()
        with Waiting(served):
            for _ in range(first):
                ask(connection, X_First="1")
            connection.transport.written = b""
            for read in reads:
                connection.data_received(read)
        return connection.transport.written, set(connection.plans.known)

    return asyncio.run(main())


SENT = whole(PREDICT, BODY, X_API_Key=KEY)
HEAD = SENT[: -len(BODY)]
FULL = b"HTTP/1.1 503 "


def test_the_same_head_again_is_not_read_again(served: Bench, monkeypatch: pytest.MonkeyPatch):
    read = heads.read
    found = []

    def spy(data: bytes, limit: int) -> heads.Head:
        found.append(data)
        return read(data, limit)

    monkeypatch.setattr(heads, "read", spy)
    other = whole(PREDICT, BODY, X_API_Key=KEY, X_Other="1")
    written, kept = flood(served, SENT, SENT, SENT, other, SENT)
    assert written.count(FULL) == 5
    assert found[1:] == [HEAD, other[: -len(BODY)]]  # behind the first one, which the route refused
    assert kept == set(found[1:])
    ids = set(re.findall(rb"x-request-id: (\w+)", written))
    assert len(ids) == 5
    assert served.count(503) == 6


LONG = head(PREDICT, 2 * len(SENT), X_API_Key=KEY)  # whose body can hold requests
NAMELESS = SENT.replace(b"Content-Length: %d\r\n" % len(BODY), b"")
BEGUN = PREDICT.encode().join(
    [b"POST ", b" HTTP/1.1\r\nContent-Length: %d\r\nX-More: " % len(BODY)]
)
MINE = whole(PREDICT, BODY, X_API_Key=KEY, X_Request_ID="mine")


@pytest.mark.parametrize(
    ("reads", "answers", "kept"),
    [
        ((SENT,), 1, {HEAD}),
        ((SENT[:-4], SENT[-4:]), 1, {HEAD}),  # the body may come in pieces
        ((HEAD, *(bytes([byte]) for byte in BODY)), 1, {HEAD}),
        ((SENT + SENT,), 2, {HEAD}),  # two in one read: both begin where a head does
        ((SENT + SENT[:30], SENT[30:]), 2, {HEAD}),
        ((SENT[:30], SENT[30:]), 1, set()),
        ((SENT[: len(HEAD) - 1], SENT[len(HEAD) - 1 :]), 1, set()),
        ((BEGUN, NAMELESS), 1, set()),  # ends like a request, and is a part of one
        ((MINE,), 1, set()),  # has to be told, and does not come again
        # The rest of a body that looks like a request, and a request behind it.
        ((LONG + SENT, SENT), 1, {LONG}),
        ((LONG + SENT, SENT + SENT, SENT), 3, {LONG, HEAD}),
        ((LONG + SENT, SENT + SENT[:30], SENT[30:]), 2, {LONG}),
    ],
)
def test_only_a_head_that_came_in_one_read_is_kept(
    served: Bench, reads: tuple[bytes, ...], answers: int, kept: set[bytes]
):
    written, known = flood(served, *reads)
    assert written.count(b"HTTP/1.1 ") == written.count(FULL) == answers
    assert known == kept


def test_the_table_is_bounded(served: Bench):
    requests = [
        whole(PREDICT, BODY, X_API_Key=KEY, X_Number=str(number))
        for number in range(plans._MOST_PLANS + 5)
    ]
    written, known = flood(served, *requests)
    assert written.count(FULL) == len(requests)
    assert len(known) == 5


def test_a_long_head_is_not_kept(served: Bench):
    long = whole(PREDICT, BODY, X_API_Key=KEY, X_Long="x" * plans._LONGEST_HEAD)
    written, known = flood(served, long)
    assert written.count(FULL) == 1
    assert known == set()


def refused_before_its_body_has_come(served: Bench) -> Connection:
    """A connection on which the last five bytes of a refused request are still to come."""
    connection = served.connect()
    with Waiting(served):
        ask(connection)
        ask(connection)
        connection.data_received(SENT[:-5])
    return connection


def test_a_request_behind_a_dropped_body_is_answered(served: Bench):
    async def main():
        connection = refused_before_its_body_has_come(served)
        assert connection.in_body
        assert connection.since is None  # the time for heads does not run
        await no_longer_fresh()
        connection.transport.written = b""
        connection.data_received(SENT[-5:] + SENT)
        return await answered(connection)

    assert asyncio.run(main())[0] == 200


def test_a_body_that_never_comes_ends_the_connection(served: Bench):
    async def main():
        connection = refused_before_its_body_has_come(served)
        now = time.monotonic()
        connection.check_time(now)
        early = connection.transport.closed
        connection.check_time(now + connection.limits.stall_timeout_s + 1)
        return early, connection.transport.closed

    assert asyncio.run(main()) == (False, True)


def test_what_is_kept_is_not_mixed_with_what_comes(served: Bench):
    """A read that only begins like one that is known is read, wherever it is cut."""
    for cut in (1, len(SENT) - len(BODY) - 1, len(SENT) - 1):
        written, _ = flood(served, SENT, SENT[:cut], SENT[cut:], SENT + SENT[:cut], SENT[cut:])
        assert written.count(b"HTTP/1.1 ") == written.count(FULL) == 4


def test_a_request_that_is_remembered_is_let_in_once_there_is_room(served: Bench):
    async def main():
        connection = served.connect()
        with Waiting(served):
            ask(connection)
            ask(connection)
            assert connection.plans.known
        await no_longer_fresh()
        ask(connection)
        return await answered(connection)

    assert asyncio.run(main())[0] == 200
