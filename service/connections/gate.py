"""The gate: what every request passes before any route, whichever protocol it speaks.

It gives a request an id and a record, checks its key, and tells the observers of it:

    X-Request-ID   the client's own if it is sane, else a new one; it is on the answer, in the
                   log lines of a failed request and in its trace
    key            when keys are in use, for everything but health: 401 without
    observers      told of each request after its answer: metrics, access log, traces
"""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Callable, Sequence
from itertools import count

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service import faults, http
from service.connections.auth import OPEN_PATHS, credentials
from service.context import Context
from service.errors import ServiceError
from service.exchange import Exchange
from service.protocols import shapes
from service.telemetry.metrics import Metrics

logger = logging.getLogger("foldserve.gate")

Observer = Callable[[Exchange, Scope], object]

# Printable, short, and nothing that could break out of a log line.
_SANE = re.compile(rb"[A-Za-z0-9._:/+=@-]{1,128}")
_POLICY = b"content-security-policy"
# What a browser must not do with an answer; JSON of the hot routes needs only nosniff, which the
# server sets on everything.
_BROWSER_HEADERS = [
    (b"cache-control", b"no-store"),
    (_POLICY, b"default-src 'none'; frame-ancestors 'none'"),
    (b"referrer-policy", b"no-referrer"),
]
# 16 hexadecimal digits of this process, 16 that count its requests: unique, not secret.
_IDS = map(f"{os.urandom(8).hex()}{{:016x}}".format, count(int.from_bytes(os.urandom(6), "big")))


def request_id(scope: Scope) -> str:
    """The client's own id if it is sane, else one that no other request has."""
    return sane_id(http.header(scope, b"x-request-id"))


def sane_id(given: bytes | None) -> str:
    """`request_id` by the value of X-Request-ID."""
    if given and _SANE.fullmatch(given):
        return given.decode("latin-1")
    return next(_IDS)


def tell(metrics: Metrics, observers: Sequence[Observer], exchange: Exchange, scope: Scope) -> None:
    """Count a request that is over, and tell whoever looks on; what fails there is logged only."""
    try:
        metrics.finish(exchange)
    except Exception:  # noqa: BLE001  whoever only looks on must not end anything
        faults.report(logger, "a request could not be counted")
    show(observers, exchange, scope)


def show(observers: Sequence[Observer], exchange: Exchange, scope: Scope) -> None:
    """Tell whoever looks on of a request that is over."""
    for observe in observers:
        try:
            observe(exchange, scope)
        except Exception:  # noqa: BLE001
            faults.report(logger, "an observer of the requests failed")


class Gate:
    """ASGI around the whole application; sets scope["state"]["request_id"] and ["exchange"].

    A route that changes the server also asks
    `access.require_admin(credentials(scope["headers"]))`.

    Args:
        app: the routes.
        context: for the keys, the metrics, the budget and the observers.
        open_paths: need no key, besides health.
    """

    def __init__(
        self, app: ASGIApp, context: Context, open_paths: frozenset[str] = frozenset()
    ) -> None:
        self._app = app
        self.access = context.access
        self.metrics = context.metrics
        self.observers = context.observers
        self._budget = context.budget
        self._open_paths = OPEN_PATHS | open_paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = self.enter(scope)
        own = exchange.request_id.encode()

        async def send_on(message: Message) -> None:
            if message["type"] == "http.response.start":
                exchange.status = message["status"]
                headers = [*message.get("headers", ()), (b"x-request-id", own)]
                # A page brings its own policy.
                if scope["method"] != "POST" and all(key != _POLICY for key, _ in headers):
                    headers += _BROWSER_HEADERS
                message["headers"] = headers
            await send(message)

        try:
            try:
                self.check_key(scope)
            except ServiceError as error:
                exchange.error = error.code
                body = shapes.error_body(scope["path"], error)
                await http.respond_error(scope, send_on, receive, error, body)
                return
            await self._app(scope, receive, send_on)
        finally:
            self.leave(scope, exchange)

    def enter(self, scope: Scope) -> Exchange:
        """Begin the record of a request; whoever does must also `leave`, or `forget`."""
        exchange = self.record(http.header(scope, b"x-request-id"))
        state = scope.setdefault("state", {})
        state["request_id"] = exchange.request_id
        state["exchange"] = exchange
        return exchange

    def record(self, given: bytes | None) -> Exchange:
        """`enter` for a request without a scope, by its X-Request-ID."""
        self.metrics.in_flight += 1
        return Exchange(sane_id(given) if given else next(_IDS), self._budget)

    def check_key(self, scope: Scope) -> None:
        """Raises Unauthorized for a request without a key where it needs one."""
        if self.access.closed and scope["path"] not in self._open_paths:
            self.access.require(credentials(scope["headers"]))

    def leave(self, scope: Scope, exchange: Exchange) -> None:
        """End the record after the answer, and tell the observers."""
        self.forget(exchange)
        exchange.finished = time.monotonic()
        if not exchange.route:
            # What the framework matched; anything else is one name, however many there are.
            exchange.route = getattr(scope.get("route"), "path", "other")
        tell(self.metrics, self.observers, exchange, scope)

    def forget(self, exchange: Exchange) -> None:
        """End the record of a request that enters again by another way: nobody is told of it."""
        self.metrics.in_flight -= 1
        exchange.release()
