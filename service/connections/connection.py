"""One TCP connection, within limits that hold before any request is complete.

uvicorn parses and hands on; this adds what keeps a stranger from holding the server:

    too many connections      503 for all but health; of those that wait with nothing to say the
                              oldest make room for new ones, so that health is always answered
    headers without end       431 beyond --max-header-bytes or 100 headers
    requests piled up         400 beyond 100 on one connection that wait for their answers
    bytes that are no HTTP    400, in the one shape of an error

Predictions that need no task go to `Quick`, and those of a flood get their refusal from it; the
bodies of large ones are read by an `Intake`. What takes too long is ended by `Endings`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable

import httptools
import orjson
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from service import http
from service.connections import upgrade
from service.connections.auth import OPEN_PATHS
from service.connections.call import ANSWERED, Call
from service.connections.endings import CLOSE, LINGER_BYTES, ConnectionLimits, Endings, LastWords
from service.errors import HeadersTooLarge, MalformedHttp, ServiceError, TooManyConnections

_MAX_HEADERS = 100
_MAX_PIPELINED = 100
# Connections beyond the limit that may say what they want. Of more the oldest are closed, first of
# all those that had time to say it, and in the end any.
_RESERVE = 64
_MOST_RESERVE = 128
_TIME_TO_SAY_S = 1.0
_RETRY_S = 1
# How long the rest of a small body is awaited before its request gets a task.
_BODY_WAIT_S = 0.05


class Connection(Endings):
    """uvicorn's protocol with `limits`, which `connection_class` sets."""

    excess: dict[Connection, float]  # those beyond the limit, oldest first, and since when

    _large_read = False  # the last read alone could hold a head beyond the limit
    _refusal: ServiceError | None = None
    _upgrade = False  # the head asks for another protocol, and is to be read once more

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._quick = getattr(self.app, "quick", None)
        self._since = time.monotonic()
        if len(self.connections) > self.limits.max_connections:
            self._excess = True
            self.excess[self] = self._since
            if len(self.excess) > _RESERVE:
                self._make_room(self._since)

    def _make_room(self, now: float) -> None:
        """Close the connections beyond the limit that have waited longest, if that is long."""
        crowded = len(self.excess) > _MOST_RESERVE
        for other, since in list(self.excess.items()):
            if len(self.excess) <= _RESERVE or not (crowded or now - since > _TIME_TO_SAY_S):
                return
            if other.cycle is None or other.cycle.response_complete:
                other.limits.refused(TooManyConnections.code)
                other._write(_too_many(), orjson.dumps(_too_many().body()), [CLOSE])
                other.transport.close()
                del self.excess[other]
                crowded = False

    def data_received(self, data: bytes) -> None:
        if self._ended is not None:
            self._head_bytes += len(data)
            self._dropped_at = time.monotonic()
            if self._head_bytes > LINGER_BYTES:
                self.transport.abort()
            return
        if self._rest and not (data := self._dropped(data)):
            return
        again, self._again = self._again, None
        if again is not None and self._refused_again(again, data):
            return
        free = self.cycle is None or self.cycle.response_complete
        # What comes behind an early answer is the rest of that request's body, and no head.
        if self._since is None and free and not self._in_body:
            self._since = time.monotonic()
            self._head_bytes = 0
        if self._idle:
            self._idle = False
            self._since = time.monotonic()
        self._began = True
        limit = self.limits.max_header_bytes
        self._large_read = len(data) > limit
        in_head = not self._in_body
        self._heads, self._refusing = 0, None
        self._parse(data)
        if in_head and self._heads == 1:
            self._remember(data)
        if self._found is not None and self._body_timer is None:
            self._body_timer = self.loop.call_later(_BODY_WAIT_S, self._take_the_usual_way)
        if self._since is not None and not self._idle:  # the head has not ended yet
            self._head_bytes += len(data)
            if self._head_bytes > limit and self._ended is None:
                self._refuse(_too_large(limit))

    def _parse(self, data: bytes) -> None:
        """uvicorn's `data_received`, but for what is done with an Upgrade."""
        left: bytes | memoryview = data
        try:
            while left:
                try:
                    self.parser.feed_data(left)
                    return
                except httptools.HttpParserUpgrade as asked:
                    left = memoryview(left)[asked.args[0] :]
                parser, self._upgrade = self.parser, False
                self._renew_the_parser()
                method, version = parser.get_method(), parser.get_http_version()
                self.parser.feed_data(upgrade.without(method, self.url, version, self.headers))
        except httptools.HttpParserError:
            self.send_400_response("")

    def on_headers_complete(self) -> None:
        self._heads += 1
        self._since = None
        self._idle = False
        limit = self.limits.max_header_bytes
        if len(self.headers) > _MAX_HEADERS or (
            self._large_read and _size(self.url, self.headers) > limit
        ):
            self._refusal = _too_large(limit)
            raise self._refusal  # the parser stops, and calls it a bad request
        if len(self.pipeline) >= _MAX_PIPELINED:
            self._refusal = MalformedHttp("Too many requests wait on this connection.")
            raise self._refusal
        self._head_bytes = 0
        self._in_body = True
        quick, cycle = self._quick, self.cycle
        if (
            quick is not None
            and (cycle is None or cycle.response_complete)
            and not self._excess
            and self.parser.get_method() == b"POST"
            and self.parser.get_http_version() == "1.1"
            and not self.flow.write_paused
        ):
            found = quick.candidate(self.url, self.scope)  # type: ignore[arg-type]
            if found is not None:
                if not self._refused(quick, found):
                    self._found = found
                    self._parts = []
                return
        if self.parser.should_upgrade() and self.parser.get_method() != b"CONNECT":
            self._upgrade = True
            return
        self._offer_the_straight_way()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        if self._found is None:
            super().on_body(body)
        else:
            self._parts.append(body)

    def on_message_complete(self) -> None:
        self._in_body = False
        self._rest_since = None
        found = self._found
        if found is None:
            if self._upgrade:
                return
            super().on_message_complete()
            if self.cycle.response_complete:  # the rest of a body whose request was refused
                self._await_a_head()
            return
        assert self._quick is not None
        parts = self._parts
        call = self._quick.take(self, found, parts[0] if len(parts) == 1 else b"".join(parts))
        if call is None:
            self._take_the_usual_way()
            super().on_message_complete()
            return
        self._forget_the_quick_way()
        call.keep_alive = self.parser.should_keep_alive()
        self.cycle = call  # type: ignore[assignment]
        if call.error is not None:
            call.refuse(call.error)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._excess:
            self.excess.pop(self, None)
        self._forget_unread()
        if self._found is not None:
            self._take_the_usual_way()  # which finds nobody there, and counts it
        super().connection_lost(exc)
        cycle: object = self.cycle
        if isinstance(cycle, Call):
            cycle.hang_up()
            self.cycle = ANSWERED  # type: ignore[assignment]  # the call leads back to here
        elif isinstance(cycle, RequestResponseCycle):
            cycle.transport = self.transport  # so do its last words

    def shutdown(self) -> None:
        if self._found is not None:
            self._take_the_usual_way()  # it is under way, so it is finished
        if self._ended is not None and not self._last:
            self.transport.close()
        else:
            super().shutdown()

    def on_response_complete(self) -> None:
        """uvicorn's, but for its timer: `check_time` ends a connection that stays idle."""
        self.server_state.total_requests += 1
        if self.flow.write_paused:
            self._count_unread()
        if self.transport.is_closing() or (self._ended is not None and not self._last):
            return
        # Nobody knows whether a body that was not waited for comes: no next head is sure.
        unsure = self._in_body and self.expect_100_continue and self._ended is None
        if unsure or self._last:
            self._last = False
            self._end()
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        elif not self._in_body:
            self._await_a_head()

    def _await_a_head(self) -> None:
        self._since = time.monotonic()
        self._idle, self._began, self._head_bytes = True, False, 0

    def _start_asgi_task(self, cycle, app) -> None:  # type: ignore[no-untyped-def]
        cycle.transport = LastWords(self)
        cycle.scope.setdefault("extensions", {})[http.LINGERS] = True
        if self._excess and cycle.scope["path"] not in OPEN_PATHS:
            self.limits.refused(TooManyConnections.code)
            app = _answer_too_many
        elif self.limits.early is not None:
            error = self.limits.early(cycle.scope, self.loop.time())
            if error is not None:
                self._answer_early(cycle, error)
                return
        super()._start_asgi_task(cycle, app)

    def still_coming(self) -> None:
        """A part of a body that nobody wants any more has come."""
        self._dropped_at = time.monotonic()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002  ours says it better
        self._refuse(self._refusal or MalformedHttp("The bytes received are not HTTP/1.1."))


def connection_class(limits: ConnectionLimits) -> type[Connection]:
    """The protocol class for uvicorn, which makes its instances without arguments of ours."""
    return type("LimitedConnection", (Connection,), {"limits": limits, "excess": {}})


async def _answer_too_many(scope: Scope, receive: Receive, send: Send) -> None:
    await http.respond_error(scope, send, receive, _too_many())


def _too_many() -> TooManyConnections:
    return TooManyConnections("The server has too many connections.", retry_after_s=_RETRY_S)


def _too_large(limit: int) -> HeadersTooLarge:
    return HeadersTooLarge(f"The headers exceed {limit} bytes or {_MAX_HEADERS} lines.")


def _size(url: bytes, headers: Iterable[tuple[bytes, bytes]]) -> int:
    return len(url) + sum(len(name) + len(value) + 4 for name, value in headers)
