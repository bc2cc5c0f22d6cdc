"""The few pieces of HTTP that the hot routes need, on bare ASGI.

A request body is read once, within a size and a time; a response is two messages; a client
that hangs up cancels its own request and nothing else.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from types import TracebackType
from typing import Self

import orjson
from starlette.types import Message, Receive, Scope, Send

from service.errors import (
    BodyTimeout,
    BodyTooLarge,
    InvalidTimeout,
    ServiceError,
    TooManyBytes,
)
from service.exchange import Exchange

Headers = Iterable[tuple[bytes, bytes]]
Body = bytes | memoryview

# On every answer: a browser must not guess that JSON is something it could run.
NOSNIFF = (b"x-content-type-options", b"nosniff")
# An ASGI extension of the connection: a weak reference to what has `take_body`.
STRAIGHT = "foldserve.straight"
# Another: the connection itself waits for the rest of a body before it closes.
LINGERS = "foldserve.lingers"

# An answer to a body that is still being sent: how long and how much to read on, so that the
# client sees the answer and not a reset connection.
_LINGER_S = 2.0
_LINGER_BYTES = 64 * 1024 * 1024
# Most answers are ready before it pays to listen for a hang-up.
_WATCH_AFTER_S = 0.02
_TIMEOUT_DIGITS = 12
_LENGTH_DIGITS = 18


class ClientGone(Exception):
    """The client closed the connection, so no answer can be given."""


def header(scope: Scope, name: bytes) -> bytes | None:
    """The first header of that (lower-case) name."""
    return headers(scope).get(name)


def headers(scope: Scope) -> dict[bytes, bytes]:
    """The first header of each name, in small letters."""
    try:
        found: dict[bytes, bytes] = scope["first_headers"]
    except KeyError:
        found = scope["first_headers"] = dict(reversed(scope["headers"]))
    return found


def exchange(scope: Scope) -> Exchange:
    """The record of the request, which the gate has begun."""
    found: Exchange = scope["state"]["exchange"]
    return found


def timeout_s(scope: Scope, longest_ms: int) -> float:
    """The time that a request may take: X-Timeout-Ms, if that is shorter than `longest_ms`.

    Raises:
        InvalidTimeout: not a whole number from 1.
    """
    return asked_timeout_s(header(scope, b"x-timeout-ms"), longest_ms)


def asked_timeout_s(asked: bytes | None, longest_ms: int) -> float:
    """`timeout_s` by the value of X-Timeout-Ms."""
    if asked is None:
        return longest_ms / 1000
    if not (asked.isdigit() and len(asked) <= _TIMEOUT_DIGITS and int(asked) > 0):
        raise InvalidTimeout("X-Timeout-Ms is not a whole number of milliseconds from 1.")
    return min(int(asked), longest_ms) / 1000


async def read_body(
    scope: Scope, receive: Receive, max_bytes: int, timeout_s: float, front: int = 0
) -> Body:
    """The whole body, at most `max_bytes` of it, within `timeout_s` seconds.

    A large one comes as a view of a place that nothing else refers to; its bytes from `front` on
    are aligned there.

    Raises:
        BodyTooLarge: by Content-Length before anything is read, or while it arrives.
        BodyTimeout: the client sends too slowly.
        TooManyBytes: the requests under way leave no room for it.
        ClientGone: the client hung up.
    """
    record = exchange(scope)
    declared = header(scope, b"content-length")
    if declared is not None and declared.isdigit():
        if len(declared) > _LENGTH_DIGITS or int(declared) > max_bytes:
            raise _too_large(max_bytes)
        record.hold(int(declared))
    try:
        async with asyncio.timeout(timeout_s):
            straight = scope.get("extensions", {}).get(STRAIGHT)
            connection = straight and straight()
            if connection is not None:
                taken: memoryview | None = await connection.take_body(record.body_bytes, front)
                if taken is not None:
                    record.read = time.monotonic()
                    return taken
            # One buffer: of a body in pieces of a byte each piece would take forty.
            body = bytearray()
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ClientGone
                piece: bytes = message.get("body", b"")
                size = len(body) + len(piece)
                if size > record.body_bytes:  # a body that came without its length
                    if size > max_bytes:
                        raise _too_large(max_bytes)
                    record.hold(size - record.body_bytes)
                whole = not message.get("more_body", False)
                if whole:
                    record.read = time.monotonic()
                    return b"".join([body, piece]) if body else piece
                body += piece
    except TimeoutError:
        raise BodyTimeout("The body did not arrive in time.") from None


def _too_large(max_bytes: int) -> BodyTooLarge:
    return BodyTooLarge(f"The body is larger than {max_bytes} bytes.")


async def respond(
    send: Send,
    status: int,
    body: bytes,
    headers: Headers = (),
    content_type: bytes = b"application/json",
) -> None:
    """A complete response."""
    await send(_start(status, len(body), headers, content_type))
    await send({"type": "http.response.body", "body": body})


def adding(send: Send, added: Headers, in_place_of: bytes = b"") -> Send:
    """`send` with more headers of the answer, and without those of the name `in_place_of`."""

    async def send_on(message: Message) -> None:
        if message["type"] == "http.response.start":
            kept = [pair for pair in message.get("headers", ()) if pair[0] != in_place_of]
            message["headers"] = [*kept, *added]
        await send(message)

    return send_on


async def respond_error(
    scope: Scope, send: Send, receive: Receive, error: ServiceError, body: bytes | None = None
) -> None:
    """The error as a response; for a body that was refused unread, the connection closes.

    Args:
        body: the error in a protocol's own JSON, ours by default.
    """
    body = orjson.dumps(error.body()) if body is None else body
    if not isinstance(error, BodyTooLarge | BodyTimeout | TooManyBytes):
        await respond(send, error.status, body, error.headers())
        return
    headers = [*error.headers(), (b"connection", b"close")]
    if scope.get("extensions", {}).get(LINGERS):
        await respond(send, error.status, body, headers)
        return
    await send(_start(error.status, len(body), headers))
    # The response is complete for the client; for the server it ends after the lingering.
    await send({"type": "http.response.body", "body": body, "more_body": True})
    await _linger(receive)
    await send({"type": "http.response.body", "body": b""})


async def _linger(receive: Receive) -> None:
    """Read and forget what the client still sends: closing on it would reset the connection."""
    end = time.monotonic() + _LINGER_S
    left = _LINGER_BYTES
    try:
        while left > 0:
            async with asyncio.timeout(end - time.monotonic()):
                message = await receive()
            if message["type"] == "http.disconnect" or not message.get("more_body", False):
                return
            left -= len(message.get("body", b""))
    except TimeoutError:
        return


def _start(
    status: int, length: int, headers: Headers, content_type: bytes = b"application/json"
) -> dict[str, object]:
    return {
        "type": "http.response.start",
        "status": status,
        "headers": [
            (b"content-type", content_type),
            (b"content-length", str(length).encode()),
            *headers,
        ],
    }


class CancelOnHangUp:
    """Cancels the task inside the block when the client hangs up; `gone` tells so afterwards.

    Use it after the body was read: from then on a server's `receive` returns only at the end
    of the connection.
    """

    def __init__(self, receive: Receive) -> None:
        self.gone = False
        self._receive = receive
        self._watch: asyncio.Task[None] | None = None

    def __enter__(self) -> Self:
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(_WATCH_AFTER_S, self._begin)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._timer.cancel()
        if self._watch is not None:
            self._watch.cancel()
            # The error that ends it leads back to here: only the collector would free the request.
            self._watch = None

    def _begin(self) -> None:
        self._watch = asyncio.get_running_loop().create_task(self._listen())

    async def _listen(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.gone = True
        self._task.cancel()
