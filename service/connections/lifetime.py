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

from service.budget import Account, Budget
from service.errors import HeaderTimeout, ServiceError

# How long and how much is still read, and dropped, after the last answer; and how long nothing
# may come. A client that sends all of its body before it reads takes so long.
_LINGER_S = 20.0
_LINGER_SILENT_S = 2.0
_LINGER_BYTES = 256 * 1024 * 1024
# So little is not counted before a second has passed, or at all.
_FEW_BYTES = 4096

CLOSE = (b"connection", b"close")
_STATUS_LINES = {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode()
    for status in http.HTTPStatus
}


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """See the settings of the same names. `refused` is told the code of each refusal.

    `budget`: in which is counted what they hold: answers that are not read, what is not looked at.
    """

    max_connections: int
    max_header_bytes: int
    header_timeout_s: float
    idle_timeout_s: float
    stall_timeout_s: float
    refused: Callable[[str], object] = lambda _: None
    budget: Budget | None = None
    max_of_one_address: int | None = None


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
    _owed = 0  # bytes of answers that are held until the last byte of them has left
    _waiting = 0  # bytes that have come and are not looked at yet, if they are many
    _unread = 0  # bytes of answers at the last sweep, and when they last went down
    _unread_since = 0.0

    def __init__(self, state: ServerState) -> None:
        self.state = state
        self.account = Account(self.limits.budget)

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

    def count_unread(self, size: int) -> None:
        """An answer of `size` bytes has been written, and is not the request's any more.

        It is there, whole, until its last byte has left, however many have left before.
        """
        if self.transport.get_write_buffer_size():
            self._owe(self._owed + size)

    def forget_unread(self) -> None:
        """All has left, or never will."""
        if self._owed:
            self._owe(0)

    def _owe(self, size: int) -> None:
        self._owed = size
        self.account.owe(self._waiting + size)

    def hold_waiting(self, size: int) -> None:
        """Hold `size` bytes that are not looked at yet. Raises TooManyBytes."""
        if size <= _FEW_BYTES:
            size = 0
        if size != self._waiting:
            self.account.take(self._owed + size)
            self._waiting = size

    def silent_s(self, now: float) -> float:
        """For how many seconds nothing was asked for, and all that was has been answered."""
        if self.since is None or self.began or self._unread or self._owed:
            return 0.0
        return now - self.since

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
        if not unread:
            self.forget_unread()
        elif not self._owed:  # small ones, which nobody reads
            self._owe(unread)
