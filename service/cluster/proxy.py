"""What each of Ray's HTTP proxies does before and after a replica: limits, retries, our errors.

Ray imports `middlewares` into its proxies (RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH). By itself a
proxy sends a request to another replica as long as none has taken it. A request that a replica
has taken and did not answer, because it was killed, ends as a bare 500. A prediction changes
nothing on the server, so here it is sent once more:

    body        read whole, within --max-body-bytes, --body-timeout-ms and --max-in-flight-bytes,
                before a replica sees the request: a second replica can be given it again
    answer      begins only when its first bytes are there; until then it can be another's
    retried     everything but what changes a server (/v2/repository); once, because a request
                that ends a process would otherwise end all of them
    live        answered here when no replica does
    errors      the proxy's own, in the words of the protocol: 503 queue_full with Retry-After
                when no replica has room, 503 shutting_down while there is no application, 504,
                and 503 replica_lost after the second loss

Headers by which clients could steer Ray are taken off.
"""

from __future__ import annotations

from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service import http
from service.budget import Budget
from service.connections.gate import request_id
from service.errors import DeadlineExceeded, QueueFull, ReplicaLost, ServiceError, ShuttingDown
from service.exchange import Exchange
from service.http import ClientGone
from service.protocols import shapes
from service.settings import Settings
from service.settings_read import parse

_OWN_PATHS = "/-/"  # Ray's, for load balancers
_CHANGING = "/v2/repository/"
_ID = b"x-request-id"
# Whether a process answers, which this one does, with or without a replica.
_LIVE = {"/health/live": b'{"status":"live"}', "/v2/health/live": b'{"live":true}'}
_STEERING = frozenset(
    {
        _ID,
        b"serve_multiplexed_model_id",
        b"serve-multiplexed-model-id",
        b"x-request-disconnect-disabled",
        b"x-request-timeout-seconds",
        b"x-session-id",
    }
)
_TRIES = 2


def middlewares() -> list[Middleware]:
    """For Ray's proxies, with the settings of their environment."""
    return [Middleware(Proxied, settings=parse((), {}))]


class Proxied:
    """ASGI around a proxy.

    Args:
        settings: for the limits on bodies.
    """

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        self._budget = Budget(settings.budget_bytes)
        self._max_bytes = settings.max_body_bytes
        self._timeout_s = settings.body_timeout_ms / 1000

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"].startswith(_OWN_PATHS):
            await self._app(scope, receive, send)
            return
        own = request_id({"headers": scope["headers"]})
        headers = [pair for pair in scope["headers"] if pair[0] not in _STEERING]
        scope["headers"] = [*headers, (_ID, own.encode())]
        exchange = Exchange(own, self._budget)
        try:
            await self._pass_on(scope, receive, send, exchange)
        except ClientGone:
            pass
        except ServiceError as error:
            live = _LIVE.get(scope["path"]) if scope["method"] in {"GET", "HEAD"} else None
            body = shapes.error_body(scope["path"], error)
            send_error = http.adding(send, [(_ID, own.encode()), http.NOSNIFF])
            if live is not None:
                await http.respond(send_error, 200, live)
            else:
                await http.respond_error(scope, send_error, receive, error, body)
        finally:
            exchange.release()

    async def _pass_on(
        self, scope: Scope, receive: Receive, send: Send, exchange: Exchange
    ) -> None:
        own = {"headers": scope["headers"], "state": {"exchange": exchange}}
        body = bytes(await http.read_body(own, receive, self._max_bytes, self._timeout_s))
        tries = 1 if scope["path"].startswith(_CHANGING) else _TRIES
        for _ in range(tries):
            answer = _Answer(send)
            # A copy: Ray writes into it.
            await self._app({**scope}, _replay(body, receive), answer)
            if answer.refusal is not None:
                raise answer.refusal
            if answer.begun:
                return
        raise ReplicaLost("The process that had the request has ended.", retry_after_s=1)


class _Answer:
    """The `send` of one try: nothing of it leaves before there is something to answer with."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._start: Message | None = None
        self.begun = False
        self.refusal: ServiceError | None = None

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            # Every answer of a replica has this header, and no answer of the proxy itself.
            if any(key == http.NOSNIFF[0] for key, _ in message["headers"]):
                self._start = message
            else:
                self.refusal = _in_our_words(message["status"])
            return
        if self.refusal is not None:
            return
        if self._start is not None:
            start, self._start = self._start, None
            self.begun = True
            await self._send(start)
        await self._send(message)


def _in_our_words(status: int) -> ServiceError:
    """What a proxy says by itself.

    408 after its timeout, 404 while the application is not there, 503 without room anywhere.
    """
    if status == 408:
        return DeadlineExceeded("No replica has answered in time.")
    if status == 404:
        return ShuttingDown("The service is being started or stopped.", retry_after_s=1)
    return QueueFull("No replica has room for the request.", retry_after_s=1)


def _replay(body: bytes, receive: Receive) -> Receive:
    """The whole body in one message, then what the connection says."""
    given = False

    async def again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again
