"""What a connection does by itself, where the usual way of a request would be a detour.

small predictions     handed to `Quick`, or refused by their heads, without a task
the same head again   refused without being parsed
large bodies          read by an `Intake`, without the parser
"""

from __future__ import annotations

import asyncio
import weakref

import httptools
from starlette.types import Scope
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from service import http
from service.connections.call import ANSWERED
from service.connections.intake import Intake
from service.connections.quick import Found, Quick

# A body from here on is read straight into its place, unless its head says one of these.
_STRAIGHT_BYTES = 128 * 1024
_NOT_STRAIGHT = frozenset({b"transfer-encoding", b"expect", b"upgrade"})


class Shortcuts(HttpToolsProtocol):
    """uvicorn's protocol with these; `Connection` says when."""

    _quick: Quick | None = None
    # When a head began to be awaited, and when the rest of a request was: see `Connection`.
    _since: float | None = None
    _rest_since: float | None = None
    _idle = False
    _in_body = False  # between the end of a head and the end of its body
    _excess = False  # one connection too many
    # A request that may be answered without a task: its route and what has come of its body.
    _found: Found | None = None
    _parts: list[bytes]
    _body_timer: asyncio.TimerHandle | None = None
    # The request that was refused last, if all of it came in one read: its head, and its size.
    _again: tuple[bytes, int, Found, Scope] | None = None
    _refusing: tuple[Found, Scope] | None = None  # what the read that is parsed was refused for
    _heads = 0  # that ended in that read
    _rest = 0  # bytes still to come of a request that was refused without the parser

    def _await_a_head(self) -> None:
        """The next bytes are those of a head."""
        raise NotImplementedError

    def _offer_the_straight_way(self) -> None:
        """Let the route of a large body have it read into its place."""
        length = 0
        for name, value in self.headers:
            if name == b"content-length" and value.isdigit():
                length = int(value[:18])
            elif name in _NOT_STRAIGHT:
                return
        if length >= _STRAIGHT_BYTES and not self._excess:
            scope: Scope = self.scope  # type: ignore[assignment]
            scope["extensions"] = {http.STRAIGHT: weakref.ref(self)}

    def still_coming(self) -> None:
        """A part of a body that nobody wants any more has come."""
        raise NotImplementedError

    async def take_body(self, size: int, front: int) -> memoryview | None:
        """The body of the request that is being answered, read straight into its place.

        Args:
            size: what its Content-Length says.
            front: see `Intake`.

        Returns:
            None if it has come already, or the next one behind it.

        Raises:
            ClientGone: the connection ended before.
        """
        cycle = self.cycle
        if not cycle.more_body or cycle.disconnected or self.pipeline or not self._in_body:
            return None
        intake = Intake(self, size, cycle.body, front)
        cycle.body = bytearray()
        self.transport.set_protocol(intake)
        self.flow.resume_reading()
        try:
            while not intake.complete and not cycle.disconnected:
                cycle.message_event.clear()
                await cycle.message_event.wait()
        except BaseException:
            intake.drop()
            raise
        if cycle.disconnected:
            raise http.ClientGone
        return intake.body

    def body_complete(self) -> None:
        """The intake has read a body to its end: what comes next is the head of a request."""
        self._renew_the_parser()
        self.transport.set_protocol(self)
        self.on_message_complete()

    def _refused(self, quick: Quick, found: Found) -> bool:
        """Whether the request has got its refusal; the rest of it is dropped as it comes."""
        scope: Scope = self.scope  # type: ignore[assignment]
        refusal = quick.refusal(found, scope, self.server_state.default_headers)
        # The last answer of a connection takes longer, and is rare.
        last = not self.parser.should_keep_alive() or self.transport.is_closing()
        if refusal is None or last:
            return False
        self.transport.write(refusal)
        self.cycle = ANSWERED  # type: ignore[assignment]
        self.server_state.total_requests += 1
        self._refusing = found, scope
        return True

    def _remember(self, data: bytes) -> None:
        """The request in `data`, if it was refused and nothing is behind it.

        The read began in no body and brought the end of one head, which is the first empty line
        in it. What is still to come of the body is counted from here on, so that the next head
        is known to begin a read, or to follow what is dropped of one.
        """
        if self._refusing is None:
            return
        found, scope = self._refusing
        headers = scope["first_headers"]
        end = data.find(b"\r\n\r\n") + 4
        head, size = data[:end], end + int(headers[b"content-length"])
        # A head that began in an earlier read must not be taken for the part of it that is here.
        whole = head.startswith(b"POST " + self.url + b" ") and b"content-length:" in head.lower()
        if not whole or len(data) > size or b"x-request-id" in headers:
            return
        self._again = head, size, found, scope
        if self._in_body:
            self._rest = size - len(data)
            self._renew_the_parser()

    def _renew_the_parser(self) -> None:
        """The old one still waits for a body that it is not given."""
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)

    def _refused_again(self, again: tuple[bytes, int, Found, Scope], data: bytes) -> bool:
        """Refuse a request with the very head of the one before without parsing it.

        A client in a loop, as those of a flood are, says the same each time. See `_remember`. Of
        a body that comes in pieces the rest is counted and dropped.
        """
        head, size, found, scope = again
        if len(data) > size or not data.startswith(head) or self._quick is None:
            return False
        refusal = self._quick.refusal(found, scope, self.server_state.default_headers)
        if refusal is None or self.transport.is_closing():
            return False
        self.transport.write(refusal)
        self.server_state.total_requests += 1
        self._again = again
        self._rest = size - len(data)
        if self._rest:
            self._in_body, self._idle, self._since = True, False, None
        else:
            self._await_a_head()
        return True

    def _dropped(self, data: bytes) -> bytes:
        """`data` without what belongs to the request that was refused before it had come."""
        behind = data[self._rest :]
        self._rest -= len(data) - len(behind)
        if not self._rest:
            self._in_body, self._rest_since = False, None
            self._await_a_head()
        return behind

    def _take_the_usual_way(self) -> None:
        """A task for the request: its body does not come, or is more than the quick way takes."""
        parts = self._parts
        self._forget_the_quick_way()
        super().on_headers_complete()
        for part in parts:
            super().on_body(part)

    def _forget_the_quick_way(self) -> None:
        self._found = None
        self._parts = []
        if self._body_timer is not None:
            self._body_timer.cancel()
            self._body_timer = None
