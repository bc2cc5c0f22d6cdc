"""The gRPC server: it listens, and does for every call what the gate does for a request over HTTP.

It runs on the event loop of the HTTP server, on a port of its own (--grpc-port), and needs the
extra `grpc`. A call without a valid key, or one for which there is no memory, is refused by its
metadata, before its message is received. What a call asks for is done by `v2_grpc.Methods`.

    4xx/5xx of the error     gRPC status
    400, 413, 422            INVALID_ARGUMENT, RESOURCE_EXHAUSTED, INVALID_ARGUMENT
    401, 403, 404            UNAUTHENTICATED, PERMISSION_DENIED, NOT_FOUND
    409                      FAILED_PRECONDITION
    408                      DEADLINE_EXCEEDED
    500, 503, 504            INTERNAL, UNAVAILABLE, DEADLINE_EXCEEDED
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any
from urllib.parse import unquote

import grpc
from starlette.types import Scope

from service.connections.auth import credentials
from service.connections.gate import request_id, tell
from service.context import Context
from service.errors import ServiceError, TooManyBytes, defect
from service.exchange import Exchange
from service.protocols import (
    grpc_health,
    grpc_infer_stream,
    grpc_messages,
    grpc_options,
    grpc_reflection,
    shapes,
)
from service.protocols.grpc_infer_stream import InferStreams, Write
from service.protocols.grpc_reception import Reception
from service.protocols.grpc_reflection import Reflection
from service.protocols.grpc_streams import Streams
from service.protocols.v2_grpc import Method, Methods
from service.tls import grpc_credentials
from service.tls.certificates import Certificates

logger = logging.getLogger("foldserve.grpc")

_STATUS = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    408: grpc.StatusCode.DEADLINE_EXCEEDED,
    409: grpc.StatusCode.FAILED_PRECONDITION,
    413: grpc.StatusCode.RESOURCE_EXHAUSTED,
    422: grpc.StatusCode.INVALID_ARGUMENT,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}
_WITHOUT_KEY = frozenset({"ServerLive", "ServerReady", "HealthCheck"})
_ADMIN = frozenset({"RepositoryModelLoad", "RepositoryModelUnload"})
# Of the calls that last, which would else take all that may be under way.
_STREAMS_SHARE = 0.1
# Health has a few places of its own, which nobody keeps for long: its messages are of some bytes.
_SMALL_AT_A_TIME = 4
_SMALL_S = 1.0


class CannotListen(Exception):
    """The port cannot be had; the text says why."""


class GrpcServer:
    """The gRPC side of a server process; `start` and `stop` are called on its event loop.

    Args:
        port: TCP port, 0 for a free one.
        shared: whether other processes listen on it as well.
        certificates: for TLS; None to speak in the clear.
    """

    def __init__(
        self,
        context: Context,
        host: str,
        port: int,
        *,
        shared: bool = False,
        certificates: Certificates | None = None,
    ) -> None:
        self._certificates = certificates
        self._shared = shared
        self._observers = context.observers
        self._context = context
        self._metrics = context.metrics
        self._budget = context.budget
        self._host = f"[{host}]" if ":" in host else host
        self.port = port
        self._classes = grpc_messages.classes()
        self._classes |= grpc_messages.classes(grpc_health.PACKAGE, grpc_health.MESSAGES)
        timeout_s = context.settings.body_timeout_ms / 1000
        largest = grpc_options.largest_message(context.settings)
        self._reception = Reception.of(context.budget, largest, timeout_s)
        self._infer_streams = InferStreams(context.budget, largest, timeout_s)
        self._metrics.budget_bytes = self._budget.limit - self._budget.aside
        self._small = Reception(_SMALL_AT_A_TIME, _SMALL_S)
        self._server: Any = None
        self._streams = Streams(
            max(1, int(_STREAMS_SHARE * context.settings.max_connections)),
            timeout_s,
        )

    async def start(self) -> None:
        """Listen and serve. Raises CannotListen."""
        settings = self._context.settings
        self._server = grpc.aio.server(
            options=grpc_options.options(settings, shared=self._shared),
            maximum_concurrent_rpcs=settings.max_connections,
        )
        methods = Methods(self._context, self._classes).table()
        inference = {name: self._handler(name, each) for name, each in methods.items()}
        stream = partial(self._stream, methods["ModelInfer"])
        inference[grpc_infer_stream.METHOD] = grpc.stream_stream_rpc_method_handler(stream)
        watch = grpc_health.Watch(self._streams, self._classes, self._context.metrics.ready)
        health = {
            "Check": inference.pop("HealthCheck"),
            "Watch": self._streams.handler(watch),
        }
        reflection = self._streams.handler(Reflection())
        self._server.add_generic_rpc_handlers(
            (
                _Admission(grpc_messages.SERVICE, inference, self._refusal),
                _Admission(grpc_health.HEALTH, health, lambda *_: None),
                *(
                    _Admission(service, {grpc_reflection.METHOD: reflection}, self._refusal)
                    for service in grpc_reflection.SERVICES
                ),
            )
        )
        try:
            self.port = self._listen(f"{self._host}:{self.port}")
        except RuntimeError:
            raise CannotListen(
                f"Cannot listen for gRPC: port {self.port} on {self._host} is in use or not "
                "allowed. Choose another one with --grpc-port (0 takes a free one)."
            ) from None
        await self._server.start()

    def _listen(self, address: str) -> int:
        """The port; raises RuntimeError if it cannot be had."""
        if self._certificates is None:
            return int(self._server.add_insecure_port(address))
        secure = grpc_credentials.credentials(self._certificates)
        return int(self._server.add_secure_port(address, secure))

    async def stop(self, grace_s: float) -> None:
        """Take no new calls; cancel those that are still under way after `grace_s` seconds."""
        self._streams.closing.set()
        self._infer_streams.close()
        if self._server is not None:
            await self._server.stop(grace_s)

    def _handler(self, name: str, method: Method) -> Any:
        # A stream of one: the library does not read a message of it before it is asked to.
        return grpc.stream_unary_rpc_method_handler(partial(self._call, name, method))

    async def _call(self, name: str, method: Method, _: Any, call: Any) -> bytes | None:
        """One call: key, deadline, the method, its errors as a status, and the count."""
        with self._recorded(name, call) as (exchange, metadata):
            answer = await self._answer(name, method, metadata, call, exchange)
            if isinstance(answer, ServiceError):
                await self._refuse(call, exchange, answer)
                return None
            call.set_trailing_metadata((("x-request-id", exchange.request_id),))
            exchange.status = 200
            return answer

    async def _stream(self, infer: Method, _: Any, call: Any) -> None:
        """A call of ModelStreamInfer; what ends it before its client does is its status."""
        name = grpc_infer_stream.METHOD

        async def ask(message: bytes, write: Write) -> None:
            with self._recorded(name, call) as (exchange, metadata):
                answer = await self._answer(name, infer, metadata, call, exchange, message)
                if isinstance(answer, ServiceError):
                    status, exchange.error = answer.status, answer.code
                    told = grpc_infer_stream.failed(answer, message)
                else:
                    status, told = 200, grpc_infer_stream.succeeded(answer)
                del message, answer
                await write(told)
                exchange.status = status

        try:
            await self._infer_streams.serve(call, ask)
        except ServiceError as error:
            with self._recorded(name, call) as (exchange, _):
                await self._refuse(call, exchange, error.with_traceback(None))

    @contextmanager
    def _recorded(
        self, name: str, call: Any
    ) -> Iterator[tuple[Exchange, list[tuple[bytes, bytes]]]]:
        """The record of a request, told to the observers at the end; and its metadata."""
        metadata = _metadata(call)
        scope = _scope(call, metadata)
        exchange = Exchange(request_id(scope), self._budget)
        exchange.route = f"grpc {name}"
        self._metrics.in_flight += 1
        try:
            yield exchange, metadata
        finally:
            self._metrics.in_flight -= 1
            exchange.release()
            exchange.finished = time.monotonic()
            tell(self._metrics, self._observers, exchange, scope)

    async def _answer(
        self,
        name: str,
        method: Method,
        metadata: list[tuple[bytes, bytes]],
        call: Any,
        exchange: Exchange,
        data: bytes | None = None,
    ) -> bytes | ServiceError:
        """What the method gives or raises; a message must not live on in an error's traceback.

        `data`: the message, if it is there already.
        """
        try:
            self._check_key(name, metadata)
            if data is None:
                reception = self._small if name in _WITHOUT_KEY else self._reception
                data = await reception.read(call, self._deadline(call))
            exchange.hold(len(data))
            exchange.read = time.monotonic()
            return await method(data, exchange, self._deadline(call))
        except ServiceError as error:
            return error.with_traceback(None)
        except Exception:
            logger.exception("request %s failed", exchange.request_id)
            return defect()

    def _refusal(self, name: str, metadata: list[tuple[bytes, bytes]]) -> Any:
        """The handler that refuses a call before its message is received; None to receive it."""
        try:
            self._check_key(name, metadata)
            if self._budget.full and name not in _WITHOUT_KEY:
                raise TooManyBytes("The requests under way hold too much memory.", retry_after_s=1)
        except ServiceError as error:
            refused = error.with_traceback(None)
        else:
            return None

        async def refuse(_: Any, call: Any) -> None:
            scope = _scope(call, metadata)
            exchange = Exchange(request_id(scope))
            exchange.route = f"grpc {name}"
            try:
                await self._refuse(call, exchange, refused)
            finally:
                exchange.finished = time.monotonic()
                tell(self._metrics, self._observers, exchange, scope)

        # A stream of messages is what the library does not read before it is asked to.
        return grpc.stream_unary_rpc_method_handler(refuse)

    def _check_key(self, name: str, metadata: list[tuple[bytes, bytes]]) -> None:
        access = self._context.access
        if name in _WITHOUT_KEY or not (access.closed or name in _ADMIN):
            return
        key = credentials(metadata)
        if access.closed:
            access.require(key)
        if name in _ADMIN:
            access.require_admin(key)

    def _deadline(self, call: Any) -> float:
        longest = self._context.settings.request_timeout_ms / 1000
        left = call.time_remaining()
        return time.monotonic() + (longest if left is None else min(left, longest))

    async def _refuse(self, call: Any, exchange: Exchange, error: ServiceError) -> None:
        exchange.status, exchange.error = error.status, error.code
        status = _STATUS.get(error.status, grpc.StatusCode.INTERNAL)
        metadata = [("x-request-id", exchange.request_id), ("error-code", error.code)]
        if error.retry_after_s is not None:
            metadata.append(("retry-after", str(error.retry_after_s)))
        await call.abort(status, shapes.text(error), tuple(metadata))


class _Admission(grpc.GenericRpcHandler):  # type: ignore[misc]
    """The methods of a service, each looked at by its metadata before its message is received."""

    def __init__(
        self,
        service: str,
        handlers: dict[str, Any],
        refusal: Callable[[str, list[tuple[bytes, bytes]]], Any],
    ) -> None:
        self._handlers = {f"/{service}/{name}": (name, each) for name, each in handlers.items()}
        self._refusal = refusal

    def service(self, handler_call_details: Any) -> Any:
        name, handler = self._handlers.get(handler_call_details.method, ("", None))
        if handler is None:
            return None
        metadata = _pairs(handler_call_details.invocation_metadata)
        return self._refusal(name, metadata) or handler


def _scope(call: Any, metadata: list[tuple[bytes, bytes]]) -> Scope:
    """What the observers are told of a call besides its record."""
    # ipv4:127.0.0.1:1234 or ipv6:[::1]:1234, the brackets as in an address of the web
    family, _, address = unquote(call.peer()).partition(":")
    host, _, port = address.rpartition(":")
    client = (host.strip("[]"), int(port)) if family in {"ipv4", "ipv6"} else None
    return {"method": "POST", "headers": metadata, "client": client}


def _metadata(call: Any) -> list[tuple[bytes, bytes]]:
    """The metadata of a call in the form of HTTP headers."""
    return _pairs(call.invocation_metadata())


def _pairs(metadata: Any) -> list[tuple[bytes, bytes]]:
    return [(k.encode(), v if isinstance(v, bytes) else v.encode()) for k, v in metadata or ()]
