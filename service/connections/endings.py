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

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import orjson
from starlette.types import Scope
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

from service.connections.gate import request_id
from service.connections.shortcuts import Shortcuts
from service.errors import HeaderTimeout, ServiceError
from service.exchange import Budget
from service.protocols import shapes

# How long and how much is still read, and dropped, after the last answer; and how long nothing
# may come. A client that sends all of its body before it reads takes so long.
_LINGER_S = 20.0
_LINGER_SILENT_S = 2.0
LINGER_BYTES = 256 * 1024 * 1024


CLOSE = (b"connection", b"close")


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """See the settings of the same names. `refused` is told the code of each refusal.

    `early`: why a request would be refused by its route, as far as its headers tell.
    `budget`: in which answers are counted that are not read.
    """

    max_connections: int
    max_header_bytes: int
    header_timeout_s: float
    idle_timeout_s: float
    stall_timeout_s: float
    refused: Callable[[str], object] = lambda _: None
    budget: Budget | None = None
    early: Callable[[Scope, float], ServiceError | None] | None = None


class LastWords:
    """The transport of a cycle: uvicorn's closes it after the last answer, whatever still comes."""

    __slots__ = ("_connection", "is_closing", "write")

    def __init__(self, connection: Endings) -> None:
        self._connection = connection
        self.write = connection.transport.write
        self.is_closing = connection.transport.is_closing

    def close(self) -> None:
        """End the connection so that the answer arrives."""
        self._connection.close_gently()


class Endings(Shortcuts):
    """A connection that can be refused and swept; `Connection` says what is read of it."""

    limits: ConnectionLimits

    # When the head began to be awaited, None from the end of the head to the end of the answer.
    _since: float | None = None
    _idle = False  # after an answer: the next head is awaited
    _began = False  # whether any byte of the head has come
    _head_bytes = 0
    _rest_since: float | None = None  # when a sweep first saw the rest of an answered request
    _ended: float | None = None  # when it was refused: what still comes is dropped
    _dropped_at = 0.0  # when something came last, and was
    _last = False  # an answer that was under way then is still to come
    _owed = 0  # bytes of answers that the budget counts until they have been read
    _unread = 0  # bytes of answers at the last sweep, and when they last went down
    _unread_since = 0.0

    def _answer_early(self, cycle: RequestResponseCycle, error: ServiceError) -> None:
        """Refuse without a task; the connection goes on, and drops the rest of the request."""
        scope: Scope = cycle.scope  # type: ignore[assignment]
        body = shapes.error_body(scope["path"], error)
        more = [(b"x-request-id", request_id(scope).encode())]
        if not cycle.keep_alive:
            more.append(CLOSE)
        self._write(error, body, more)
        cycle.response_started = cycle.response_complete = True
        if cycle.keep_alive:
            self.on_response_complete()
        else:
            self._end()

    def _write(self, error: ServiceError, body: bytes, more: Iterable[tuple[bytes, bytes]]) -> None:
        head = [
            *self.server_state.default_headers,
            *error.headers(),
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            *more,
        ]
        lines = b"".join(b"%b: %b\r\n" % header for header in head)
        self.transport.write(STATUS_LINE[error.status] + lines + b"\r\n" + body)

    def _refuse(self, error: ServiceError) -> None:
        """Answer at once, outside of any request, and close."""
        self.limits.refused(error.code)
        cycle = self.cycle
        free = cycle is None or cycle.response_complete
        if not free and cycle.more_body and not cycle.response_started and not self.pipeline:
            # The body itself is malformed: its request need not wait for the rest.
            cycle.disconnected = free = True
            cycle.message_event.set()
        if free:
            self._write(error, orjson.dumps(error.body()), [CLOSE])
            self._end()
        else:  # an answer is under way: it is the last one, those that wait behind it get lost
            self._ended = time.monotonic()
            self._last = True
            self.pipeline.clear()
            cycle.keep_alive = False

    def _end(self) -> None:
        """No more requests. Closing on bytes that were not read yet would reset the connection,
        and the answer would be lost: so only our direction is closed, and the rest dropped."""
        self._ended = self._dropped_at = time.monotonic()
        self._head_bytes = 0
        self._since = None
        self.flow.resume_reading()  # or the end of the client would not be seen
        if self.transport.can_write_eof():
            self.transport.write_eof()
        else:
            self.transport.close()

    def _count_unread(self) -> None:
        """The answer is not the request's any more: until it has been read, it counts as ours."""
        budget = self.limits.budget
        if budget is not None:
            unread = self.transport.get_write_buffer_size()
            budget.give(self._owed - unread)
            self._owed = unread

    def _forget_unread(self) -> None:
        if self._owed:
            assert self.limits.budget is not None
            self.limits.budget.give(self._owed)
            self._owed = 0

    def resume_writing(self) -> None:
        """Almost all of the answer has been read."""
        self._forget_unread()
        super().resume_writing()

    def close_gently(self) -> None:
        """Close after an answer: at once, or when the rest of its request has come."""
        cycle = self.cycle
        unread = self._in_body or self._last
        if unread and cycle is not None and cycle.response_complete:
            self._last = False
            self._end()
        else:
            self.transport.close()

    def check_time(self, now: float) -> None:
        """End what takes too long; `now` is of time.monotonic()."""
        limits = self.limits
        if self.transport.is_closing():
            pass
        elif self._ended is not None:
            if self._last:
                self._ended = now
            elif now - self._ended > _LINGER_S or now - self._dropped_at > _LINGER_SILENT_S:
                self.transport.abort()
        elif self._since is not None:
            waited = now - self._since
            if self._began and waited > limits.header_timeout_s:
                self._refuse(HeaderTimeout("The headers did not arrive in time."))
            elif waited > limits.idle_timeout_s:
                self.transport.close()
        elif self._in_body and self._found is None and self.cycle.response_complete:
            self._rest_since = self._rest_since or now
            if now - self._rest_since > limits.stall_timeout_s:
                self.transport.abort()
        unread = self.transport.get_write_buffer_size()
        if unread == 0 or unread < self._unread or self._unread == 0:
            self._unread_since = now
        elif now - self._unread_since > limits.stall_timeout_s:
            self.limits.refused("answer_not_read")
            self.transport.abort()
        self._unread = unread
