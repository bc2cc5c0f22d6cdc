"""What every protocol's route has in common: limits, errors, hang-ups, and the tensor path.

    bytes -> codec -> Signature.check -> Batcher.submit -> codec -> bytes

Only the first and the last step touch bytes and differ from protocol to protocol; the middle
is `Inference.answer`. The routes are plain ASGI callables.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple, TypeVar

import orjson
from starlette.types import Receive, Scope, Send

from service import http
from service.codecs import compressed
from service.connections.auth import Access
from service.errors import ServiceError, ShuttingDown, UnsupportedMediaType, defect
from service.exchange import Exchange
from service.health import Lifecycle
from service.models.model import ServedModel
from service.models.registry import Registry
from service.protocols.light import LARGE_TEXT_BYTES, light_answer
from service.settings import Settings
from service.signature import Tensors

T = TypeVar("T")

logger = logging.getLogger("foldserve.predict")

# The pool is small because a decoded body takes several times its size in memory.
_LARGE_JOBS_AT_ONCE = 2

JSON = b"application/json"
OCTETS = b"application/octet-stream"


class Reply(NamedTuple):
    """A whole answer."""

    body: bytes
    content_type: bytes = JSON
    headers: http.Headers = ()
    status: int = 200


class Decoded(NamedTuple):
    """A request in tensors, and how its answer is written.

    `encode`: the outputs, by name, to the reply. `light`: whether that only copies bytes.
    """

    tensors: Tensors
    encode: Callable[[ServedModel, Tensors], Reply]
    light: bool = False


class Reader(NamedTuple):
    """How a request is read and answered, as far as its head tells.

    `read`: its body, the model, and what counts the bytes of what is made of it, to tensors; any
    buffer for a body with a `front`, else bytes.
    `light_bytes`: of a body up to which reading takes so little that the event loop may do it.
    `front`: what comes before the tensors in a body that holds them as they are, in bytes; None
    for a body of another kind.
    """

    read: Callable[[Any, ServedModel, Callable[[int], object]], Decoded]
    light_bytes: float = LARGE_TEXT_BYTES
    front: int | None = None


@dataclass(frozen=True, slots=True)
class Context:
    """What the routes of all protocols share."""

    registry: Registry
    settings: Settings
    lifecycle: Lifecycle
    access: Access
    version: str = "0"
    pool: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(_LARGE_JOBS_AT_ONCE, thread_name_prefix="codec")
    )

    async def job(self, light: bool, work: Callable[[], T]) -> T:
        """Do it here and now, or in a thread when it would hold up the event loop."""
        if light:
            return work()
        return await asyncio.get_running_loop().run_in_executor(self.pool, work)

    async def infer(
        self, model: ServedModel, tensors: Tensors, deadline: float, exchange: Exchange
    ) -> Tensors:
        """Check the tensors and run the model on them; `deadline` as in `Batcher.submit`.

        `exchange` is told the model, the rows and the times.

        Raises:
            ServiceError: what `Signature.check` and `Batcher.submit` raise.
        """
        exchange.rows = rows = model.signature.check(tensors)
        exchange.decoded = time.monotonic()
        outputs = await model.batcher.submit(
            tensors, rows, deadline, exchange.request_id, exchange.run, exchange.expect
        )
        exchange.answered = time.monotonic()
        return outputs


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
            headers = reply_headers(http.headers(scope), reply, http.exchange(scope))
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

    def begin(self, scope: Scope, model: ServedModel, exchange: Exchange) -> float:
        """Refuse what has no chance before the work of reading and decoding.

        Returns:
            How long the client waits at most, in seconds from the end of the body.
        """
        exchange.model, exchange.version = model.name, model.version
        timeout_s = http.timeout_s(scope, self.context.settings.request_timeout_ms)
        model.batcher.check_room(1, timeout_s)
        return timeout_s

    async def answer(self, scope: Scope, receive: Receive, hang_up: http.CancelOnHangUp) -> Reply:
        context = self.context
        coding = content_coding(scope)
        reader = self.reader(scope)
        params = scope.get("path_params", {})
        model = context.registry.find(params.get("name"), params.get("version"))
        exchange = http.exchange(scope)
        timeout_s = self.begin(scope, model, exchange)
        body = await self.read_body(scope, receive, reader.front or 0)
        deadline = time.monotonic() + timeout_s
        with hang_up:
            if coding is not None:
                body = await self._inflated(scope, body, coding)
            light = len(body) <= reader.light_bytes
            if model.signature.texts:  # read one by one, also where tensors are only looked at
                light = light and len(body) <= LARGE_TEXT_BYTES
            if reader.front is None:
                body = bytes(body)
            decode = partial(reader.read, body, model, exchange.make)
            del body  # JSON, once it has been read, is not kept while its tensors are run
            decoded = await context.job(light, decode)
            del decode
            outputs = await context.infer(model, decoded.tensors, deadline, exchange)
            light = light_answer(outputs, copied=decoded.light)
            reply = await context.job(light, partial(decoded.encode, model, outputs))
            exchange.encoded = time.monotonic()
            exchange.answer(len(reply.body))
            return reply

    async def _inflated(self, scope: Scope, body: http.Body, coding: bytes) -> bytes:
        """The content of a compressed body; each step counts as bytes that arrived."""
        exchange, limit = http.exchange(scope), self.context.settings.max_body_bytes
        steps, pieces = compressed.inflate(body, coding, limit), []
        while piece := await self.context.job(False, partial(next, steps, b"")):
            exchange.hold(len(piece))
            pieces.append(piece)
        return b"".join(pieces)


def reply_headers(asked: Mapping[bytes, bytes], reply: Reply, exchange: Exchange) -> http.Headers:
    """The headers of a reply, with its times if the request asks for them (X-Server-Timing).

    Args:
        asked: the request's own headers, by name.
        reply, exchange: of the request.
    """
    if b"x-server-timing" not in asked:
        return reply.headers
    return [*reply.headers, (b"server-timing", exchange.timing())]


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
