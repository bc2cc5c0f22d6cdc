"""What every protocol's route has in common: limits, errors, and hang-ups.

The steps of a prediction are those of `Call`. The routes are plain ASGI callables.
"""

from __future__ import annotations

import asyncio
import logging
import time

import orjson
from starlette.types import Receive, Scope, Send

from service import http
from service.codecs import compressed
from service.context import Context
from service.errors import ServiceError, ShuttingDown, UnsupportedMediaType, defect
from service.protocols.call import Call, Reader, Reply

logger = logging.getLogger("foldserve.predict")


class Endpoint:
    """One route. A subclass gives `answer`, and `error_body` if its errors look different."""

    def __init__(self, context: Context) -> None:
        self.context = context

    async def answer(self, scope: Scope, receive: Receive, hang_up: http.CancelOnHangUp) -> Reply:
        """The reply. `hang_up` is entered once the body has been read.

        Raises:
            ServiceError: becomes the error of the protocol.
        """
        raise NotImplementedError

    @staticmethod
    def error_body(error: ServiceError) -> bytes:
        """The protocol's JSON for an error."""
        return orjson.dumps(error.body())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        hang_up = http.CancelOnHangUp(receive)
        try:
            reply = await self.answer(scope, receive, hang_up)
        except ServiceError as error:
            await self._refuse(scope, send, receive, error)
        except http.ClientGone:
            return
        except asyncio.CancelledError:
            if hang_up.gone:
                return
            if not self.context.lifecycle.draining:
                raise
            # The drain deadline: the connection is still there, so say why.
            late = ShuttingDown("The server stopped before the answer was ready.")
            await self._refuse(scope, send, receive, late)
        except Exception:  # a defect: the client still gets an error of the usual shape
            logger.exception("request %s failed", request_id(scope))
            await self._refuse(scope, send, receive, defect())
        else:
            headers = reply.headers
            if http.header(scope, b"x-server-timing") is not None:
                headers = [*headers, http.exchange(scope).timing_header()]
            await http.respond(send, reply.status, reply.body, headers, reply.content_type)

    async def _refuse(
        self, scope: Scope, send: Send, receive: Receive, error: ServiceError
    ) -> None:
        http.exchange(scope).error = error.code
        await http.respond_error(scope, send, receive, error, self.error_body(error))

    async def read_body(self, scope: Scope, receive: Receive, front: int = 0) -> http.Body:
        """The body within the limits of the settings; see `http.read_body`."""
        settings = self.context.settings
        return await http.read_body(
            scope, receive, settings.max_body_bytes, settings.body_timeout_ms / 1000, front
        )


class Inference(Endpoint):
    """A route that runs a model. `scope["path_params"]` may have `name` and `version`."""

    def reader(self, scope: Scope) -> Reader:
        """What the head of the request says of its body and of its answer.

        Raises:
            ServiceError: it asks for what is not read, or not written, here.
        """
        raise NotImplementedError

    async def answer(self, scope: Scope, receive: Receive, hang_up: http.CancelOnHangUp) -> Reply:
        context = self.context
        coding = content_coding(scope)
        reader = self.reader(scope)
        call = Call(context.pool, http.exchange(scope), reader)
        params = scope.get("path_params", {})
        timeout_s = http.timeout_s(scope, context.settings.request_timeout_ms)
        call.admit(context.registry.find(params.get("name"), params.get("version")), timeout_s)
        call.body = await self.read_body(scope, receive, reader.front or 0)
        call.deadline = time.monotonic() + timeout_s
        with hang_up:
            if coding is not None:
                await self._inflate(call, coding)
            return await call.answer()

    async def _inflate(self, call: Call, coding: bytes) -> None:
        """Replace a compressed body by its content; each step counts as bytes that arrived."""
        limit = self.context.settings.max_body_bytes
        steps, pieces = compressed.inflate(call.body, coding, limit), []
        while piece := await call.in_thread(next, steps, b""):
            call.exchange.hold(len(piece))
            pieces.append(piece)
        call.body = b"".join(pieces)


def content_coding(scope: Scope) -> bytes | None:
    """How the body is compressed; None if it is not.

    Only the last Transfer-Encoding is undone by the parser, which sees to it that it is `chunked`.

    Raises:
        UnsupportedMediaType: in a way that nothing here inflates, or for a transfer coding
            besides chunks.
    """
    transfer = http.header(scope, b"transfer-encoding")
    if transfer is not None and transfer.strip().lower() != b"chunked":
        raise UnsupportedMediaType(
            "The body has a Transfer-Encoding besides chunked.", hint="Send the body uncompressed."
        )
    encoding = http.header(scope, b"content-encoding")
    coding = encoding.strip().lower() if encoding is not None else b""
    if coding in {b"", b"identity"}:
        return None
    if coding not in compressed.KNOWN:
        raise UnsupportedMediaType(
            "The body has a Content-Encoding that is not read here.",
            hint="Send it as gzip, as deflate or uncompressed.",
        )
    return coding


def request_id(scope: Scope) -> str:
    return str(scope.get("state", {}).get("request_id", ""))
