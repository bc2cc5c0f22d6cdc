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

import time
from typing import Any, NamedTuple, cast
from urllib.parse import unquote

import httptools
from starlette.types import Scope
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from service import http
from service.connections.answering import Answering
from service.connections.call import Call, defect
from service.connections.full import Full, Refusals
from service.connections.gate import Gate
from service.connections.hot import HotRoutes
from service.errors import QueueFull, ServiceError
from service.protocols.endpoint import Context, Inference

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
        gate: begins and ends the record of each request.
        routes: the hot ones.
        context: of the routes.
        cors: whether answers for other origins have headers that only the usual way adds.
    """

    def __init__(self, gate: Gate, routes: HotRoutes, context: Context, *, cors: bool) -> None:
        self._gate = gate
        self._answering = Answering(gate, context.pool)
        self._routes = routes
        self._registry = context.registry
        longest_ms = context.settings.request_timeout_ms
        self._refusals = Refusals(gate, context.registry, longest_ms)
        self._unusual = _UNUSUAL | {b"origin"} if cors else _UNUSUAL
        self._longest = min(LARGEST_BYTES, context.settings.max_body_bytes)
        self._found: dict[bytes, Found | None] = {}

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
            full, scope, found.params, found.template, self._answering.head(503, defaults),
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
        exchange = self._gate.enter(scope)
        call = Call(self._answering, connection, scope, endpoint, model)
        try:
            self._gate.check_key(scope)
            exchange.route = found.template
            endpoint.check_headers(scope)
            timeout_s = endpoint.begin(scope, model, exchange)
            if not endpoint.light(scope, body):
                self._gate.forget(exchange)
                return None
            exchange.hold(len(body))
            exchange.read = read = time.monotonic()
            call.decoded = decoded = endpoint.decode(scope, body, model)
            exchange.rows = rows = model.signature.check(decoded.tensors)
            if rows > model.batcher.inline_rows:
                self._gate.forget(exchange)
                return None
            exchange.decoded = time.monotonic()
            call.item = model.batcher.enter(
                decoded.tensors, rows, read + timeout_s, call, connection.loop,
                exchange.request_id, exchange.run, exchange.expect,
            )  # fmt: skip
        except ServiceError as error:
            if isinstance(error, QueueFull):
                found.full.seen()
            # Its traceback leads back to the call: only the collector would free the body.
            call.error = error.with_traceback(None)
        except Exception:  # noqa: BLE001  a defect: the client still gets an error of the usual shape
            call.error = defect(call)
        return call

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
