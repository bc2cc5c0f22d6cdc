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
from service.connections import full
from service.connections.auth import Access, KeyFile
from service.connections.call import ANSWERED
from service.connections.connection import Connection
from service.connections.quick import Quick


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
    await asyncio.sleep(2 * full._FRESH_S)


def ask(connection, body: bytes = BODY, path: str = PREDICT, key: str = KEY, **headers: str):
    connection.transport.written = b""
    connection.data_received(whole(path, body, X_API_Key=key, **headers))
    return connection.transport.written


def test_the_second_refusal_is_ready_made_and_says_the_same(
    served: Bench, monkeypatch: pytest.MonkeyPatch
):
    taken = []
    take = Quick.take

    def spy(*args):
        taken.append(args[2].path)
        return take(*args)

    monkeypatch.setattr(Quick, "take", spy)
    v2 = "/v2/models/m/infer"

    async def main():
        connection = served.connect()
        with Waiting(served):
            ours = [ask(connection, X_Request_ID=f"mine-{i}") for i in range(3)]
            theirs = [ask(connection, path=v2) for _ in range(2)]
        await no_longer_fresh()
        complete = ask(connection), connection.cycle
        return ours, theirs, complete

    ours, theirs, (last, cycle) = asyncio.run(main())
    assert taken == [PREDICT, v2, PREDICT]
    told = [parts(answer) for answer in ours]
    assert [headers.pop("x-request-id") for _, headers, _ in told] == ["mine-0", "mine-1", "mine-2"]
    # The route and the ready-made answer have the same lines; their order may differ.
    assert told[0] == told[1] == told[2]
    assert told[0][0] == 503
    assert told[0][1]["retry-after"] == "1"
    assert json.loads(told[0][2])["code"] == "queue_full"
    assert [list(json.loads(parts(answer)[2])) for answer in theirs] == [["error"]] * 2
    assert last == b""  # there is room again: it waits for its run
    assert cycle is not ANSWERED
    assert served.count(503) == 3
    assert served.metrics._refused == {"queue_full": 5}


def test_nothing_is_kept_of_a_body_that_is_still_to_come(served: Bench):
    async def main():
        connection = served.connect()
        sent = whole(PREDICT, BODY, X_API_Key=KEY)
        with Waiting(served):
            ask(connection)
            connection.transport.written = b""
            connection.data_received(sent[: -len(BODY)])
            refusal = connection.transport.written
            assert connection._found is None
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
                "service.connections.quick.time.monotonic", lambda: connection_time() + 6
            )
            ask(connection)
            return connection.cycle

    assert asyncio.run(main()) is not ANSWERED


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


def flood(served: Bench, *reads: bytes, first: int = 1) -> tuple[bytes, bool]:
    """What is written for reads of one connection of a full model, after `first` requests.

    Also whether the last request is remembered.
    """

    async def main():
        connection = served.connect()
        with Waiting(served):
            for _ in range(first):
                ask(connection)
            connection.transport.written = b""
            for read in reads:
                connection.data_received(read)
        return connection.transport.written, connection._again is not None

    return asyncio.run(main())


SENT = whole(PREDICT, BODY, X_API_Key=KEY)
FULL = b"HTTP/1.1 503 "


def test_the_same_head_again_is_not_parsed_again(served: Bench, monkeypatch: pytest.MonkeyPatch):
    heads = []
    complete = Connection.on_headers_complete

    def spy(self):
        heads.append(self.url)
        complete(self)

    monkeypatch.setattr(Connection, "on_headers_complete", spy)
    other = whole(PREDICT, BODY, X_API_Key=KEY, X_Other="1")
    written, remembered = flood(served, SENT, SENT, SENT, other, SENT)
    assert written.count(FULL) == 5
    assert len(heads) == 1 + 1 + 2  # the route's, the first ready-made one, and two changes
    assert remembered
    ids = set(re.findall(rb"x-request-id: (\w+)", written))
    assert len(ids) == 5
    assert served.count(503) == 6


LONG = head(PREDICT, 2 * len(SENT), X_API_Key=KEY)  # whose body can hold requests
NAMELESS = SENT.replace(b"Content-Length: %d\r\n" % len(BODY), b"")
BEGUN = PREDICT.encode().join(
    [b"POST ", b" HTTP/1.1\r\nContent-Length: %d\r\nX-More: " % len(BODY)]
)


@pytest.mark.parametrize(
    ("reads", "answers", "remembered"),
    [
        ((SENT,), 1, True),
        ((SENT[:-4], SENT[-4:]), 1, True),  # the body may come in pieces
        ((SENT[: -len(BODY)], *(bytes([byte]) for byte in BODY)), 1, True),
        ((SENT + SENT,), 2, False),  # two in one read
        ((SENT + SENT[:30], SENT[30:]), 2, False),  # and a part of the next one
        ((SENT[:30], SENT[30:]), 1, False),
        ((BEGUN, NAMELESS), 1, False),  # ends like a request, and is a part of one
        ((whole(PREDICT, BODY, X_API_Key=KEY, X_Request_ID="mine"),), 1, False),  # has to be told
        # The rest of a body that looks like a request, and a request behind it.
        ((LONG + SENT, SENT), 1, True),
        ((LONG + SENT, SENT + SENT, SENT), 3, True),
        ((LONG + SENT, SENT + SENT[:30], SENT[30:]), 2, False),
    ],
)
def test_only_a_request_with_nothing_behind_it_is_remembered(
    served: Bench, reads: tuple[bytes, ...], answers: int, remembered: bool
):
    written, kept = flood(served, *reads)
    assert written.count(b"HTTP/1.1 ") == written.count(FULL) == answers
    assert kept == remembered


def test_a_body_in_pieces_is_dropped_without_the_parser(
    served: Bench, monkeypatch: pytest.MonkeyPatch
):
    fed = []
    parse = Connection._parse
    monkeypatch.setattr(
        Connection, "_parse", lambda self, data: fed.append(data) or parse(self, data)
    )
    cut = len(SENT) - 5
    pieces = SENT[:cut], SENT[cut:-1], SENT[-1:] + SENT, SENT[:cut], SENT[cut:] + SENT[:cut]
    written, remembered = flood(served, SENT, *pieces, SENT[cut:])
    assert written.count(b"HTTP/1.1 ") == written.count(FULL) == 5
    assert remembered
    assert fed == [SENT, SENT]  # the route's, and the first ready-made one


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
        assert connection._in_body
        assert connection._since is None  # the time for heads does not run
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


def test_what_is_remembered_is_not_mixed_with_what_comes(served: Bench):
    """A read that only begins like the one before is parsed, wherever it is cut."""
    for cut in (1, len(SENT) - len(BODY) - 1, len(SENT) - 1):
        written, _ = flood(served, SENT, SENT[:cut], SENT[cut:], SENT + SENT[:cut], SENT[cut:])
        assert written.count(b"HTTP/1.1 ") == written.count(FULL) == 4


def test_a_request_that_is_remembered_is_let_in_once_there_is_room(served: Bench):
    async def main():
        connection = served.connect()
        with Waiting(served):
            ask(connection)
            ask(connection)
            assert connection._again is not None
        await no_longer_fresh()
        ask(connection)
        return await answered(connection)

    assert asyncio.run(main())[0] == 200
