"""A request as ASGI has it: a scope, and the messages of its body and its answer.

Source: ASGI specification, HTTP & WebSocket message format, version 2.3.
"""

from __future__ import annotations

import asyncio
import logging
import re
import weakref
from typing import TYPE_CHECKING, Any

from starlette.types import ASGIApp, Message, Scope

from service import http
from service.connections.head import Head
from service.connections.intake import Intake
from service.connections.lifetime import status_line

if TYPE_CHECKING:
    from service.connections.connection import Connection

logger = logging.getLogger("foldserve.connection")

# From here on the client waits until the application has taken what has come of the body.
_HIGH_WATER_BYTES = 64 * 1024
# A body from here on is read straight into its place.
STRAIGHT_BYTES = 128 * 1024
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_FAILED = b"Internal Server Error"
_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(rb"[\t\x20-\x7e\x80-\xff]*")
_WITHOUT_BODY = frozenset({204, 304})


def scope_of(head: Head, connection: Connection) -> Scope:
    """The scope of a request, with the headers by name as `http.header` keeps them."""
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": head.version,
        "server": connection.server,
        "client": connection.client,
        "scheme": connection.scheme,
        "root_path": "",
        "method": head.method,
        "path": head.path,
        "raw_path": head.raw_path,
        "query_string": head.query,
        "headers": head.headers,
        "first_headers": head.first,
        "state": {},
    }


class Request:
    """One request on its way through the application.

    `more_body`: whether a part of the body is still to come. `done`: the answer is complete.
    """

    def __init__(self, connection: Connection, head: Head) -> None:
        self.head = head
        self.scope = scope_of(head, connection)
        extensions: dict[str, Any] = {http.LINGERS: True}
        if not head.expects and (head.length or 0) >= STRAIGHT_BYTES:
            extensions[http.STRAIGHT] = weakref.ref(self)
        self.scope["extensions"] = extensions
        self.more_body = head.length != 0
        self.done = self.started = self.gone = False
        self._connection = connection
        self._keep_alive = head.keep_alive
        self._continue = head.expects
        self._body = bytearray()
        self._changed = asyncio.Event()
        if not self.more_body:
            self._changed.set()
        # Of the answer: bytes that are still to come, None for one in chunks.
        self._left: int | None = 0

    # --- told by the connection -----------------------------------------------------------

    def body(self, data: bytes) -> None:
        """A part of the body has come."""
        if self.done or self.gone:
            self._connection.drop(len(data))
            return
        self._body += data
        self._continue = False
        if len(self._body) > _HIGH_WATER_BYTES:
            self._connection.pause_reading()
        self._changed.set()

    def body_complete(self) -> None:
        self.more_body = False
        self._changed.set()

    def hang_up(self) -> None:
        """The client has gone, or what it sends is no body."""
        self.gone = True
        self._changed.set()

    # --- ASGI -----------------------------------------------------------------------------

    async def run(self, app: ASGIApp) -> None:
        """Have the application answer; whatever it does, the connection goes on or ends."""
        try:
            await app(self.scope, self.receive, self.send)
        except BaseException:
            logger.exception("the application failed on a request")
        else:
            if self.done or self.gone:
                return
            logger.error("the application has not answered a request")
        if self.started or self.gone:
            self._connection.transport.close()
            return
        self._keep_alive = False
        await self.send(
            {
                "type": "http.response.start",
                "status": 500,
                "headers": [
                    (b"content-type", b"text/plain; charset=utf-8"),
                    (b"content-length", b"%d" % len(_FAILED)),
                ],
            }
        )
        await self.send({"type": "http.response.body", "body": _FAILED})

    async def receive(self) -> Message:
        connection = self._connection
        if self._continue:
            self._continue = False
            connection.transport.write(CONTINUE)
        if not (self.gone or self.done):
            connection.resume_reading()
            await self._changed.wait()
            self._changed.clear()
        if self.gone or self.done:
            return {"type": "http.disconnect"}
        body, self._body = bytes(self._body), bytearray()
        return {"type": "http.request", "body": body, "more_body": self.more_body}

    async def take_body(self, size: int, front: int) -> memoryview | None:
        """The body, read straight into its place.

        Args:
            size: what its Content-Length says.
            front: see `Intake`.

        Returns:
            None if it has come already.

        Raises:
            ClientGone: the connection ended before.
        """
        if not self.more_body or self.gone:
            return None
        connection = self._connection
        intake = Intake(connection, size, self._body, front)
        self._body = bytearray()
        connection.transport.set_protocol(intake)
        connection.resume_reading()
        try:
            while not intake.complete and not self.gone:
                self._changed.clear()
                await self._changed.wait()
        except BaseException:
            intake.drop()
            raise
        if self.gone:
            raise http.ClientGone
        return intake.body

    async def send(self, message: Message) -> None:
        connection = self._connection
        if connection.write_paused and not self.gone:
            await connection.drained()
        if self.gone:
            return
        if not self.started:
            if message["type"] != "http.response.start":
                raise RuntimeError("The body of an answer came before its start.")
            self._start(message["status"], message.get("headers", ()))
        elif self.done or message["type"] != "http.response.body":
            raise RuntimeError("An answer has more parts than it should.")
        else:
            self._part(message.get("body", b""), message.get("more_body", False))

    def _start(self, status: int, headers: http.Headers) -> None:
        self.started, self._continue = True, False
        lines = [status_line(status)]
        length = None
        closes = False
        for name, value in [*self._connection.state.default_headers, *headers]:
            name = name.lower()
            if not _NAME.fullmatch(name) or not _VALUE.fullmatch(value):
                raise RuntimeError("A header of the answer is none.")
            if name == b"content-length":
                length = int(value)
            elif name == b"connection" and b"close" in value.lower():
                self._keep_alive, closes = False, True
            lines.append(b"%b: %b\r\n" % (name, value))
        if not (self._keep_alive and self._connection.keeps) and not closes:
            self._keep_alive = False
            lines.append(b"connection: close\r\n")
        if length is None and self.head.method != "HEAD" and status not in _WITHOUT_BODY:
            if self.head.version == "1.1":
                lines.append(b"transfer-encoding: chunked\r\n")
            else:  # the end of the connection is that of the body
                self._keep_alive = False
            self._left = None
        else:
            self._left = 0 if self.head.method == "HEAD" else length or 0
        lines.append(b"\r\n")
        self._connection.transport.write(b"".join(lines))

    def _part(self, body: bytes, more: bool) -> None:
        transport = self._connection.transport
        if self.head.method == "HEAD":
            body = b""
        if self._left is not None:
            self._left -= len(body)
            if self._left < 0 or (self._left and not more):
                raise RuntimeError("The body of an answer has not the length that was said.")
            if body:
                transport.write(body)
        elif self.head.version != "1.1":
            transport.write(body)
        else:
            piece = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
            transport.write(piece + (b"" if more else b"0\r\n\r\n"))
        if not more:
            self.done = True
            self._changed.set()
            self._connection.answered(
                keep_alive=self._keep_alive, size=len(body), expects=self.head.expects
            )
