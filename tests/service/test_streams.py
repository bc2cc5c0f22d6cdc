"""Where one request ends and the next begins: the same as another parser finds, however it comes.

h11 is the reference. Requests are put behind each other, and the bytes are cut anywhere; between
two pieces the event loop may turn, so that answers are given while the rest is still to come.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

import h11
import pytest
import uvicorn
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)
from test_quick import Pipe

from service.connections.connection import Connection, connection_class
from service.connections.lifetime import ConnectionLimits

pytestmark = pytest.mark.slow

LIMITS = ConnectionLimits(100, 4096, 60, 60, 60)
Seen = tuple[str, str, bytes]


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Answers with what it was asked, and to /early before it has read any of the body."""
    body = b""
    if scope["path"] != "/early":
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message["body"]
            more = message["more_body"]
    query = scope["query_string"]
    target = scope["raw_path"] + (b"?" + query if query else b"")
    told = json.dumps([scope["method"], target.decode(), body.decode("latin-1")])
    length = str(len(told)).encode()
    start = {"type": "http.response.start", "status": 200, "headers": [(b"content-length", length)]}
    await send(start)
    await send({"type": "http.response.body", "body": told.encode()})


def expected(sent: bytes) -> tuple[list[Seen], bool]:
    """What h11 finds in the bytes, and whether it takes no more of them."""
    parser = h11.Connection(h11.SERVER, max_incomplete_event_size=LIMITS.max_header_bytes)
    parser.receive_data(sent)
    found: list[Seen] = []
    body, request = b"", h11.Request(method="GET", target="/", headers=[("Host", "x")])
    while True:
        try:
            event = parser.next_event()
        except h11.RemoteProtocolError:
            return found, True
        if isinstance(event, h11.Request):
            request, body = event, b""
        elif isinstance(event, h11.Data):
            body += event.data
        elif isinstance(event, h11.EndOfMessage):
            seen = body if request.target != b"/early" else b""
            found.append((request.method.decode(), request.target.decode(), seen))
            parser.send(h11.Response(status_code=200, headers=[("Content-Length", "0")]))
            parser.send(h11.EndOfMessage())
            if parser.our_state is h11.MUST_CLOSE:
                return found, True
            parser.start_next_cycle()
        else:
            return found, False


def answers(written: bytes) -> list[tuple[int, bytes]]:
    """Status and body of each answer; what is not whole is not there."""
    found = []
    written = written.replace(b"HTTP/1.1 100 Continue\r\n\r\n", b"")
    while b"\r\n\r\n" in written:
        head, _, rest = written.partition(b"\r\n\r\n")
        (length,) = [
            int(line[15:])
            for line in head.split(b"\r\n")
            if line[:15].lower() == b"content-length:"
        ]
        found.append((int(head.split()[1]), rest[:length]))
        written = rest[length:]
    assert written == b""
    return found


def seen(written: bytes) -> list[Seen]:
    told = [json.loads(body) for status, body in answers(written) if status == 200]
    return [(method, path, body.encode("latin-1")) for method, path, body in told]


def chunks(parts: list[bytes], extension: bytes, trailer: bytes) -> bytes:
    pieces = [b"%x%b\r\n%b\r\n" % (len(part), extension, part) for part in parts if part]
    return b"".join(pieces) + b"0\r\n" + trailer + b"\r\n"


contents = st.binary(max_size=40) | st.sampled_from(
    [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\r\n\r\n", b"0\r\n\r\n", b"a" * 3000]
)
paths = st.sampled_from([b"/", b"/early", b"/a?b=c"])


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    path, version, lines = draw(paths), b"1.1", [b"Host: x"]
    kind = draw(st.sampled_from(["none", "length", "chunks", "expect", "last", "old"]))
    body = b""
    if kind in {"length", "last", "old", "expect"}:
        body = draw(contents)
        lines.append(b"Content-Length: %d" % len(body))
    if kind == "chunks":
        extension = draw(st.sampled_from([b"", b";a", b';a="b"']))
        trailer = draw(st.sampled_from([b"", b"A: b\r\n", b"A: b\r\nC:\r\n"]))
        body = chunks(draw(st.lists(contents, max_size=3)), extension, trailer)
        lines.append(b"Transfer-Encoding: " + draw(st.sampled_from([b"chunked", b"Chunked"])))
    if kind == "expect" and path != b"/early":  # what comes then could be either
        lines.append(b"Expect: 100-continue")
    if kind == "last":
        lines.append(b"Connection: close")
    if kind == "old":
        version = b"1.0"
    method = b"POST" if body else draw(st.sampled_from([b"GET", b"POST", b"DELETE"]))
    draw(st.randoms(use_true_random=False)).shuffle(lines)
    head = b"\r\n".join([b"%b %b HTTP/%b" % (method, path, version), *lines, b"", b""])
    return head + body


class Streams(RuleBasedStateMachine):
    """One connection: bytes that are to be sent, and what has been."""

    @initialize()
    def connect(self) -> None:
        self.loop = asyncio.new_event_loop()
        config = uvicorn.Config(
            echo, http=connection_class(LIMITS), log_config=None, lifespan="off", interface="asgi3",
            proxy_headers=False, ws="none", access_log=False,
        )  # fmt: skip
        config.load()
        state = uvicorn.server.ServerState()
        self.connection: Connection = config.http_protocol_class(
            config=config, server_state=state, app_state={}, _loop=self.loop
        )  # type: ignore[call-arg, assignment]
        self.pipe = Pipe()
        self.connection.connection_made(self.pipe)
        self.waiting = self.sent = b""

    def _send(self, size: int) -> None:
        piece, self.waiting = self.waiting[:size], self.waiting[size:]
        self.sent += piece
        if not self.pipe.closed and piece:
            self.connection.data_received(piece)

    async def _turn(self, times: int) -> None:
        for _ in range(times):
            await asyncio.sleep(0)

    @rule(request=requests())
    def ask(self, request: bytes) -> None:
        self.waiting += request

    @precondition(lambda self: self.waiting)
    @rule(size=st.integers(1, 400))
    def send(self, size: int) -> None:
        self._send(size)

    @precondition(lambda self: self.waiting)
    @rule(left=st.integers(0, 6))
    def send_most(self, left: int) -> None:
        self._send(max(1, len(self.waiting) - left))

    @precondition(lambda self: self.waiting)
    @rule()
    def send_byte_by_byte(self) -> None:
        for _ in range(min(200, len(self.waiting))):
            self._send(1)

    @rule(times=st.integers(1, 4))
    def turn(self, times: int) -> None:
        self.loop.run_until_complete(self._turn(times))

    @invariant()
    def nothing_is_seen_that_was_not_sent(self) -> None:
        if hasattr(self, "pipe"):
            found = seen(self.pipe.written)
            whole, _ = expected(self.sent)
            early = [each for each in found if each[1] == "/early"]
            assert [each for each in found if each not in early] == [
                each for each in whole[: len(found)] if each[1] != "/early"
            ][: len(found) - len(early)]

    def teardown(self) -> None:
        if hasattr(self, "pipe"):
            try:
                self._end()
            finally:
                self.loop.close()

    def _end(self) -> None:
        self._send(len(self.waiting))
        whole, ended = expected(self.sent)
        self.loop.run_until_complete(self._turn(20 + 10 * len(whole)))
        written, closed = self.pipe.written, self.pipe.closed
        if not closed:
            self.connection.connection_lost(None)
        self.loop.run_until_complete(self._turn(5))
        assert not self.connection.state.tasks
        assert seen(written) == whole
        assert all(status == 200 for status, _ in answers(written))
        assert closed == ended


TestStreams = Streams.TestCase
TestStreams.settings = settings(
    max_examples=60, stateful_step_count=20, deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)  # fmt: skip
