"""How a connection ends: with a refusal, or because something takes too long.

    headers that trickle      408 after --header-timeout-ms
    nothing at all            closed after --keep-alive-timeout-ms
    an answer nobody reads    aborted after --body-timeout-ms
    a rest that does not come the same, if its request was answered before
    an answer before the body the last one of its connection waits for the rest, and drops it

The server sweeps over all connections once a second (`check_time`), so that a request costs
two assignments and no timer.
"""

from __future__ import annotations

import asyncio
import http
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import orjson
from uvicorn.server import ServerState

from service.budget import Budget
from service.errors import HeaderTimeout, ServiceError

# How long and how much is still read, and dropped, after the last answer; and how long nothing
# may come. A client that sends all of its body before it reads takes so long.
_LINGER_S = 20.0
_LINGER_SILENT_S = 2.0
_LINGER_BYTES = 256 * 1024 * 1024

CLOSE = (b"connection", b"close")
_STATUS_LINES = {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode()
    for status in http.HTTPStatus
}


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """See the settings of the same names. `refused` is told the code of each refusal.

    `budget`: in which answers are counted that are not read.
    """

    max_connections: int
    max_header_bytes: int
    header_timeout_s: float
    idle_timeout_s: float
    stall_timeout_s: float
    refused: Callable[[str], object] = lambda _: None
    budget: Budget | None = None


def status_line(status: int) -> bytes:
    return _STATUS_LINES.get(status) or b"HTTP/1.1 %d \r\n" % status


class Lifetime(asyncio.Protocol):
    """A connection that can be refused and swept; `Connection` says what is read of it."""

    limits: ConnectionLimits
    transport: asyncio.Transport

    # Defaults stand in the class: few connections ever have another value.
    since: float | None = None  # when the head began to be awaited; None while it has ended
    began = False  # whether any byte of the head has come
    in_body = False  # between the end of a head and the end of its body
    answering = False  # a request is under way
    _rest_since: float | None = None  # when a sweep first saw the rest of an answered request
    ended: float | None = None  # when the last answer was written: what still comes is dropped
    last = False  # no request is read any more, and an answer is still to come
    _dropped_at = 0.0  # when something came last, and was dropped
    _dropped = 0  # bytes
    _owed = 0  # bytes of answers that the budget counts until they have been read
    _unread = 0  # bytes of answers at the last sweep, and when they last went down
    _unread_since = 0.0

    def __init__(self, state: ServerState) -> None:
        self.state = state

    def write(
        self, status: int, body: bytes, headers: Iterable[tuple[bytes, bytes]], *, close: bool
    ) -> None:
        """A whole answer in JSON."""
        head = [
            *self.state.default_headers,
            *headers,
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(body)),
        ]
        if close:
            head.append(CLOSE)
        lines = b"".join([b"%b: %b\r\n" % header for header in head])
        self.transport.write(status_line(status) + lines + b"\r\n" + body)

    def refuse(self, error: ServiceError) -> None:
        """Answer at once, outside of any request, and close."""
        self.limits.refused(error.code)
        if self.answering:  # an answer is under way: it is the last one
            self.last, self.since = True, None
            return
        self.write(error.status, orjson.dumps(error.body()), error.headers(), close=True)
        self.end()

    def end(self) -> None:
        """No more requests. Closing on bytes that were not read yet would reset the connection,
        and the answer would be lost: so only our direction is closed, and the rest dropped."""
        self.ended = self._dropped_at = time.monotonic()
        self.since, self.last = None, False
        self.resume_reading()  # or the end of the client would not be seen
        if self.transport.can_write_eof():
            self.transport.write_eof()
        else:
            self.transport.close()

    def resume_reading(self) -> None:
        raise NotImplementedError

    def drop(self, size: int) -> None:
        """So many bytes have come that nobody wants."""
        self._dropped_at = time.monotonic()
        if self.ended is not None:
            self._dropped += size
            if self._dropped > _LINGER_BYTES:
                self.transport.abort()

    def body_ended(self) -> None:
        self.in_body, self._rest_since = False, None

    def count_unread(self) -> None:
        """The answer is not the request's any more: until it has been read, it counts as ours."""
        budget = self.limits.budget
        if budget is not None:
            unread = self.transport.get_write_buffer_size()
            budget.give(self._owed - unread)
            self._owed = unread

    def forget_unread(self) -> None:
        """Almost all of the answer has been read, or it never will be."""
        if self._owed:
            assert self.limits.budget is not None
            self.limits.budget.give(self._owed)
            self._owed = 0

    def check_time(self, now: float) -> None:
        """End what takes too long; `now` is of time.monotonic()."""
        limits = self.limits
        if self.transport.is_closing():
            pass
        elif self.ended is not None:
            if now - self.ended > _LINGER_S or now - self._dropped_at > _LINGER_SILENT_S:
                self.transport.abort()
        elif self.since is not None:
            waited = now - self.since
            if self.began and waited > limits.header_timeout_s:
                self.refuse(HeaderTimeout("The headers did not arrive in time."))
            elif waited > limits.idle_timeout_s:
                self.transport.close()
        elif self.in_body and not self.answering:
            self._rest_since = self._rest_since or now
            if now - self._rest_since > limits.stall_timeout_s:
                self.transport.abort()
        unread = self.transport.get_write_buffer_size()
        if unread == 0 or unread < self._unread or self._unread == 0:
            self._unread_since = now
        elif now - self._unread_since > limits.stall_timeout_s:
            limits.refused("answer_not_read")
            self.transport.abort()
        self._unread = unread
