"""Small predictions of models that run on the event loop, answered without a task.

A task, its futures, timers and messages take longer than such a model. A request for one that is
complete at once goes from the parser straight to the model's batch and from there to the socket,
in plain calls:

    Connection -> Quick.candidate   by its head: the route, and no header that asks for more
               -> Quick.refusal     by its head: its model has no room, as for those before it
               -> Quick.take        key, limits, decode, check, into the batch of this turn
    Turn       -> Call.set_result   encode, write, count

The steps are those of `Inference.answer` and of the gate, in the same order, with the same
errors, headers, metrics and observers. What is unusual (a body that trickles in, a large one, an
image, rows for a thread, a request that waits behind another) takes the usual way.
"""

from __future__ import annotations

import logging
import time
from concurrent.futures import Future as PoolFuture
from functools import partial
from typing import Any, NamedTuple, cast
from urllib.parse import unquote

import httptools
from starlette.types import Scope
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from service import http
from service.batching.batch import Outcome
from service.connections.full import Full, Refusals
from service.connections.gate import Gate
from service.connections.hot import HotRoutes
from service.errors import QueueFull, ServiceError
from service.models.model import ServedModel
from service.protocols.endpoint import (
    Context,
    Decoded,
    Endpoint,
    Inference,
    Reply,
    reply_headers,
)
from service.protocols.endpoint import light_answer as light

logger = logging.getLogger("foldserve.predict")

# What arrives in one or two reads, and is decoded in well under a millisecond.
LARGEST_BYTES = 64 * 1024
_UNUSUAL = frozenset({b"content-encoding", b"expect", b"transfer-encoding", b"upgrade"})
_ROUTES_KEPT = 1024
_LONGEST_URL_KEPT = 256


class Found(NamedTuple):
    """A prediction route for a URL; `params` and `template` are those of its path.

    `full`: what it says while the queue of its model is full.
    """

    endpoint: Inference
    params: dict[str, Any]
    template: str
    path: str
    raw_path: bytes
    query: bytes
    full: Full


class Quick:
    """Takes requests over from the connections of a server.

    Args:
        gate: keeps the books.
        routes: the hot ones.
        context: of the routes.
        cors: whether answers for other origins have headers that only the usual way adds.
    """

    def __init__(self, gate: Gate, routes: HotRoutes, context: Context, *, cors: bool) -> None:
        self.gate = gate
        self.pool = context.pool
        self._routes = routes
        self._registry = context.registry
        longest_ms = context.settings.request_timeout_ms
        self._refusals = Refusals(gate, context.registry, longest_ms)
        self._unusual = _UNUSUAL | {b"origin"} if cors else _UNUSUAL
        self._longest = min(LARGEST_BYTES, context.settings.max_body_bytes)
        self._found: dict[bytes, Found | None] = {}
        self._defaults: list[tuple[bytes, bytes]] = []
        self._heads: dict[int, bytes] = {}

    def candidate(self, url: bytes, scope: Scope) -> Found | None:
        """The route, if a POST with that head may be taken once its body is there."""
        try:
            found = self._found[url]
        except KeyError:
            found = self._find(url)
        if found is None:
            return None
        length = http.header(scope, b"content-length")
        if length is None or not length.isdigit() or int(length[:9]) > self._longest:
            return None
        return found if self._unusual.isdisjoint(scope["first_headers"]) else None

    def refusal(
        self, found: Found, scope: Scope, defaults: list[tuple[bytes, bytes]]
    ) -> bytes | None:
        """The whole answer to a request that its model has no room for; None lets it in.

        Args:
            found, scope: what `candidate` has found, and was given.
            defaults: the headers of every answer.
        """
        full = found.full
        if time.monotonic() >= full.alert_until:
            return None
        scope["path"] = found.path
        return self._refusals.of(
            full, scope, found.params, found.template, self.head(503, defaults),
            found.endpoint.error_body,
        )  # fmt: skip

    def take(self, connection: HttpToolsProtocol, found: Found, body: bytes) -> Call | None:
        """Begin to answer the request of `connection.scope`; None to leave it to the usual way.

        The call is told, and may be over, before this returns only if it could not begin.
        """
        endpoint = found.endpoint
        try:
            model = self._registry.find(found.params.get("name"), found.params.get("version"))
        except ServiceError:
            return None  # the usual way says it, in its order
        if not model.batcher.inline_rows or len(body) > self._longest:
            return None
        scope = cast(Scope, connection.scope)
        scope["method"], scope["path"], scope["raw_path"] = "POST", found.path, found.raw_path
        scope["query_string"], scope["path_params"] = found.query, found.params
        exchange = self.gate.enter(scope)
        call = Call(self, connection, scope, endpoint, model)
        try:
            self.gate.check_key(scope)
            exchange.route = found.template
            endpoint.check_headers(scope)
            patience_s = endpoint.begin(scope, model, exchange)
            if not endpoint.light(scope, body):
                self.gate.forget(exchange)
                return None
            exchange.hold(len(body))
            exchange.read = read = time.monotonic()
            call.decoded = decoded = endpoint.decode(scope, body, model)
            exchange.rows = rows = model.signature.check(decoded.tensors)
            if rows > model.batcher.inline_rows:
                self.gate.forget(exchange)
                return None
            exchange.decoded = time.monotonic()
            model.batcher.enter(
                decoded.tensors, rows, read + patience_s, call, connection.loop,
                exchange.request_id, exchange.run,
            )  # fmt: skip
        except ServiceError as error:
            if isinstance(error, QueueFull):
                found.full.seen()
            # Its traceback leads back to the call: only the collector would free the body.
            call.error = error.with_traceback(None)
        except Exception:  # noqa: BLE001  a defect: the client still gets an error of the usual shape
            call.error = _defect(call)
        return call

    def head(self, status: int, defaults: list[tuple[bytes, bytes]]) -> bytes:
        """The status line and the headers of every answer, which change once a second."""
        if defaults is not self._defaults:
            self._defaults, self._heads = defaults, {}
        head = self._heads.get(status)
        if head is None:
            lines = [b"%b: %b\r\n" % pair for pair in defaults]
            head = self._heads[status] = STATUS_LINE[status] + b"".join(lines) + b"content-type: "
        return head

    def _find(self, url: bytes) -> Found | None:
        parsed = httptools.parse_url(url)
        raw_path = parsed.path or b""
        path = raw_path.decode("ascii")
        if "%" in path:
            path = unquote(path)
        match = self._routes.find(path)
        endpoint, params, template = match or (None, {}, "")
        found = None
        if isinstance(endpoint, Inference):
            query = parsed.query or b""
            found = Found(endpoint, params, template, path, raw_path, query, Full())
        if len(url) <= _LONGEST_URL_KEPT:
            if len(self._found) >= _ROUTES_KEPT:
                self._found.clear()
            self._found[url] = found
        return found


class _Nobody:
    """In the place of the event that wakes a task: there is none."""

    def set(self) -> None:
        pass


class _Answered:
    """To uvicorn's connection a cycle that is over."""

    message_event = _Nobody()
    response_complete = True


ANSWERED = _Answered()


class Call:
    """A request on its way; to uvicorn's connection a cycle, to the batcher the answer.

    `error`: why it could not begin; to be told with `refuse` once the connection knows the call.
    """

    message_event = _Nobody()
    more_body = False
    response_started = False

    __slots__ = (
        "_endpoint", "_model", "_quick", "_scope", "connection", "decoded", "disconnected", "error",
        "keep_alive", "response_complete",
    )  # fmt: skip

    def __init__(
        self,
        quick: Quick,
        connection: HttpToolsProtocol,
        scope: Scope,
        endpoint: Endpoint,
        model: ServedModel,
    ) -> None:
        self._quick = quick
        self._scope = scope
        self._endpoint = endpoint
        self._model: ServedModel | None = model
        self.connection = connection
        self.decoded: Decoded | None = None
        self.error: ServiceError | None = None
        self.keep_alive = True
        self.response_complete = False
        self.disconnected = False

    @property
    def scope(self) -> Scope:
        return self._scope

    def done(self) -> bool:
        """Whether it has been answered, or nobody is there to answer."""
        return self.response_complete or self.disconnected

    def hang_up(self) -> None:
        """The connection has gone."""
        self.disconnected = True
        self._let_go()
        if not self.response_complete:
            self.response_complete = True
            self._quick.gate.leave(self._scope, http.exchange(self._scope))

    def set_result(self, outcome: Outcome) -> None:
        """Answer with what the batcher made of it."""
        if isinstance(outcome, ServiceError):
            self.refuse(outcome)
            return
        exchange = http.exchange(self._scope)
        exchange.answered = time.monotonic()
        decoded, model = self.decoded, self._model
        assert decoded is not None
        assert model is not None
        if light(decoded, outcome):
            try:
                reply = decoded.encode(model, outcome)
            except ServiceError as error:
                self.refuse(error)
            except Exception:  # noqa: BLE001  a defect
                self.refuse(_defect(self))
            else:
                self._reply(reply)
            return
        job = self._quick.pool.submit(partial(decoded.encode, model, outcome))
        call_soon = self.connection.loop.call_soon_threadsafe
        job.add_done_callback(lambda job: call_soon(self._encoded, job))

    def _let_go(self) -> None:
        """An idle connection remembers its last call, which must not keep a model alive."""
        self.decoded = None
        self._model = None

    def refuse(self, error: ServiceError) -> None:
        """Answer with an error."""
        http.exchange(self._scope).error = error.code
        self._write(error.status, self._endpoint.error_body(error), error.headers())

    def _encoded(self, job: PoolFuture[Reply]) -> None:
        if self.done():
            return
        try:
            reply = job.result()
        except ServiceError as error:
            self.refuse(error)
        except Exception:  # noqa: BLE001  a defect
            self.refuse(_defect(self))
        else:
            self._reply(reply)

    def _reply(self, reply: Reply) -> None:
        http.exchange(self._scope).encoded = time.monotonic()
        headers = reply_headers(self._scope, reply)
        self._write(reply.status, reply.body, headers, reply.content_type)

    def _write(
        self,
        status: int,
        body: bytes,
        headers: http.Headers,
        content_type: bytes = b"application/json",
    ) -> None:
        connection, quick = self.connection, self._quick
        transport = connection.transport
        if transport.is_closing():
            self.hang_up()
            return
        exchange = http.exchange(self._scope)
        exchange.status = status
        answer = [
            quick.head(status, connection.server_state.default_headers),
            content_type,
            b"\r\ncontent-length: %d\r\n" % len(body),
            *[b"%b: %b\r\n" % pair for pair in headers],
            b"x-request-id: %b\r\n" % exchange.request_id.encode(),
            b"\r\n" if self.keep_alive else b"connection: close\r\n\r\n",
            body,
        ]
        transport.write(b"".join(answer))
        self.response_complete = True
        self._let_go()
        if not self.keep_alive:
            transport.close()
        quick.gate.leave(self._scope, exchange)
        connection.on_response_complete()


def _defect(call: Call) -> ServiceError:
    logger.exception("request %s failed", http.exchange(call.scope).request_id)
    return ServiceError("Something went wrong inside the server.")
