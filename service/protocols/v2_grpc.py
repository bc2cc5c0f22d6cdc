"""The Open Inference Protocol over gRPC: the service inference.GRPCInferenceService.

The same methods, limits, keys and tensor path as over REST. It runs on the event loop of the
HTTP server, on a port of its own (--grpc-port), and needs the extra `grpc`.

    4xx/5xx of the error     gRPC status
    400, 413, 422            INVALID_ARGUMENT, RESOURCE_EXHAUSTED, INVALID_ARGUMENT
    401, 403, 404            UNAUTHENTICATED, PERMISSION_DENIED, NOT_FOUND
    409                      FAILED_PRECONDITION
    500, 503, 504            INTERNAL, UNAVAILABLE, DEADLINE_EXCEEDED

Source: Open Inference Protocol, inference_grpc.md.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from starlette.types import Scope

from service import health
from service.codecs import v2_grpc
from service.codecs.v2 import InferRequest
from service.connections.auth import credentials
from service.connections.gate import Observer, request_id, tell
from service.errors import (
    InvalidBody,
    ModelUnavailable,
    NotFound,
    ServiceError,
    TooManyBytes,
)
from service.exchange import Budget, Exchange
from service.models.model import ServedModel
from service.protocols import (
    grpc_bounds,
    grpc_health,
    grpc_messages,
    nonfinite,
    repository,
    shapes,
    v2,
)
from service.protocols.endpoint import (
    LARGE_COPY_ELEMENTS,
    LARGE_OUTPUT_ELEMENTS,
    LARGE_TEXT_BYTES,
    Context,
)
from service.signature import Tensors
from service.telemetry.metrics import Metrics

logger = logging.getLogger("foldserve.grpc")

_STATUS = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    409: grpc.StatusCode.FAILED_PRECONDITION,
    413: grpc.StatusCode.RESOURCE_EXHAUSTED,
    422: grpc.StatusCode.INVALID_ARGUMENT,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}
_WITHOUT_KEY = frozenset({"ServerLive", "ServerReady", "HealthCheck"})
_ADMIN = frozenset({"RepositoryModelLoad", "RepositoryModelUnload"})
# Room for names and shapes beside the tensors that --max-body-bytes is about.
_ENVELOPE_BYTES = 64 * 1024

Method = Callable[[Any, Exchange, float], Awaitable[Any]]


class CannotListen(Exception):
    """The port cannot be had; the text says why."""


class GrpcServer:
    """The gRPC side of a server process; `start` and `stop` are called on its event loop.

    Args:
        context: as for the HTTP routes.
        metrics: counts every call.
        budget: bytes of requests, shared with HTTP.
        host: address to listen on.
        port: TCP port, 0 for a free one.
        shared: whether other processes listen on it as well.
        observers: told of every call after its answer, as the gate's are.
    """

    def __init__(
        self,
        context: Context,
        metrics: Metrics,
        budget: Budget,
        host: str,
        port: int,
        *,
        shared: bool = False,
        observers: Sequence[Observer] = (),
    ) -> None:
        self._shared = shared
        self._observers = observers
        self._context = context
        self._metrics = metrics
        self._budget = budget
        self._host = f"[{host}]" if ":" in host else host
        self.port = port
        self._classes = grpc_messages.classes()
        self._classes |= grpc_messages.classes(grpc_health.PACKAGE, grpc_health.MESSAGES)
        self._server: Any = None

    async def start(self) -> None:
        """Listen and serve. Raises CannotListen."""
        settings = self._context.settings
        self._server = grpc.aio.server(
            options=[
                # Alone, a port in use is an error and not a lottery.
                ("grpc.so_reuseport", int(self._shared)),
                ("grpc.max_receive_message_length", settings.max_body_bytes + _ENVELOPE_BYTES),
                ("grpc.max_send_message_length", -1),
                ("grpc.max_metadata_size", settings.max_header_bytes),
            ],
            maximum_concurrent_rpcs=settings.max_connections,
        )
        self._server.add_generic_rpc_handlers(
            (
                _Doorway(grpc_messages.SERVICE, self._handlers(), self._unheard),
                _Doorway(
                    grpc_health.HEALTH,
                    {"Check": self._handler("HealthCheck", self._health)},
                    lambda *_: None,
                ),
            )
        )
        try:
            self.port = self._server.add_insecure_port(f"{self._host}:{self.port}")
        except RuntimeError:
            raise CannotListen(
                f"Cannot listen for gRPC: port {self.port} on {self._host} is in use or not "
                "allowed. Choose another one with --grpc-port (0 takes a free one)."
            ) from None
        await self._server.start()

    async def stop(self, grace_s: float) -> None:
        """Take no new calls; cancel those that are still under way after `grace_s` seconds."""
        if self._server is not None:
            await self._server.stop(grace_s)

    def _handlers(self) -> dict[str, Any]:
        methods: dict[str, Method] = {
            "ServerLive": self._server_live,
            "ServerReady": self._server_ready,
            "ServerMetadata": self._server_metadata,
            "ModelReady": self._model_ready,
            "ModelMetadata": self._model_metadata,
            "ModelInfer": self._model_infer,
            "RepositoryIndex": self._repository_index,
            "RepositoryModelLoad": self._load,
            "RepositoryModelUnload": self._unload,
        }
        return {name: self._handler(name, method) for name, method in methods.items()}

    def _handler(self, name: str, method: Method) -> Any:
        # Bytes, which are counted before they are read as a message.
        return grpc.unary_unary_rpc_method_handler(
            partial(self._call, name, method),
            response_serializer=self._classes[f"{name}Response"].SerializeToString,
        )

    async def _call(self, name: str, method: Method, data: bytes, call: Any) -> Any:
        """One call: key, deadline, the method, its errors as a status, and the count."""
        metadata = _metadata(call)
        scope: Scope = {"method": "POST", "headers": metadata}
        exchange = Exchange(request_id(scope), self._budget)
        exchange.route = f"grpc {name}"
        self._metrics.in_flight += 1
        try:
            self._let_in(name, metadata)
            exchange.hold(len(data))
            exchange.read = time.monotonic()
            deadline = self._deadline(call)
            light = len(data) <= LARGE_TEXT_BYTES
            read = partial(self._read, name, data)
            answer = await method(await self._context.job(light, read), exchange, deadline)
            call.set_trailing_metadata((("x-request-id", exchange.request_id),))
            exchange.status = 200
            return answer
        except ServiceError as error:
            return await self._refuse(call, exchange, error)
        except Exception:
            logger.exception("request %s failed", exchange.request_id)
            defect = ServiceError("Something went wrong inside the server.")
            return await self._refuse(call, exchange, defect)
        finally:
            self._metrics.in_flight -= 1
            exchange.release()
            exchange.finished = time.monotonic()
            tell(self._metrics, self._observers, exchange, scope)

    def _unheard(self, name: str, metadata: list[tuple[bytes, bytes]]) -> Any:
        """How to refuse a call before its message has come; None lets it come."""
        try:
            self._let_in(name, metadata)
            if self._budget.held >= self._budget.limit and name not in _WITHOUT_KEY:
                raise TooManyBytes("The requests under way hold too much memory.", retry_after_s=1)
        except ServiceError as error:
            refusal = error.with_traceback(None)
        else:
            return None

        async def refuse(_: Any, call: Any) -> None:
            scope: Scope = {"method": "POST", "headers": metadata}
            exchange = Exchange(request_id(scope))
            exchange.route = f"grpc {name}"
            try:
                await self._refuse(call, exchange, refusal)
            finally:
                exchange.finished = time.monotonic()
                tell(self._metrics, self._observers, exchange, scope)

        # A stream of messages is what the library does not read before it is asked to.
        return grpc.stream_unary_rpc_method_handler(refuse)

    def _read(self, name: str, data: bytes) -> Any:
        if not grpc_bounds.within(data, name):
            raise InvalidBody(
                f"The message has more than {grpc_bounds.MOST_FIELDS} fields.",
                hint="Tensors are a few long fields: send their elements packed, or as raw bytes.",
            )
        try:
            return self._classes[f"{name}Request"].FromString(data)
        except DecodeError:
            raise InvalidBody(
                f"The message cannot be read as a {name}Request.",
                hint="Send what a client made from the protocol's .proto file would send.",
            ) from None

    def _let_in(self, name: str, metadata: list[tuple[bytes, bytes]]) -> None:
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

    # --- the methods --------------------------------------------------------------------

    async def _health(self, request: Any, exchange: Exchange, deadline: float) -> Any:  # noqa: ARG002
        ready = not health.obstacles(self._context.registry, self._context.lifecycle)
        status = grpc_health.status(request.service, ready=ready)
        if status is None:
            raise NotFound("There is no such service.", hint=f"Ask for {grpc_messages.SERVICE}.")
        return self._classes["HealthCheckResponse"](status=status)

    async def _server_live(self, request: Any, exchange: Exchange, deadline: float) -> Any:  # noqa: ARG002
        return self._classes["ServerLiveResponse"](live=True)

    async def _server_ready(self, request: Any, exchange: Exchange, deadline: float) -> Any:  # noqa: ARG002
        missing = health.obstacles(self._context.registry, self._context.lifecycle)
        return self._classes["ServerReadyResponse"](ready=not missing)

    async def _server_metadata(self, request: Any, exchange: Exchange, deadline: float) -> Any:  # noqa: ARG002
        return self._classes["ServerMetadataResponse"](**v2.server_metadata(self._context))

    async def _model_ready(self, request: Any, exchange: Exchange, deadline: float) -> Any:  # noqa: ARG002
        try:
            v2.ready_model(self._context, request.name, request.version or None)
        except (NotFound, ModelUnavailable):
            return self._classes["ModelReadyResponse"](ready=False)
        return self._classes["ModelReadyResponse"](ready=True)

    async def _model_metadata(self, request: Any, exchange: Exchange, deadline: float) -> Any:  # noqa: ARG002
        model = self._context.registry.find(request.name or None, request.version or None)
        told = v2.model_metadata(self._context, model)
        return self._classes["ModelMetadataResponse"](**told)

    async def _model_infer(self, request: Any, exchange: Exchange, deadline: float) -> Any:
        context = self._context
        model = context.registry.find(request.model_name or None, request.model_version or None)
        exchange.model, exchange.version = model.name, model.version
        model.batcher.check_room(1)
        as_they_are = bool(request.raw_input_contents) and not model.signature.texts
        light = as_they_are or request.ByteSize() <= LARGE_TEXT_BYTES
        decoded = await context.job(light, partial(v2_grpc.decode, request, model.signature))
        del request  # what is still needed of it was copied out
        outputs = await context.infer(model, decoded.tensors, deadline, exchange)
        size = sum(array.size for array in outputs.values())
        light = size <= (LARGE_COPY_ELEMENTS if decoded.binary else LARGE_OUTPUT_ELEMENTS)
        response = await context.job(light, partial(self._encode, model, outputs, decoded))
        exchange.encoded = time.monotonic()
        return response

    def _encode(self, model: ServedModel, outputs: Tensors, request: InferRequest) -> Any:
        chosen = {w.name: outputs[w.name] for w in request.outputs} or outputs
        warnings = nonfinite.check(chosen, self._context.settings.nan_policy)
        response = self._classes["ModelInferResponse"]()
        v2_grpc.encode(response, model, outputs, request, warnings)
        return response

    async def _repository_index(self, request: Any, exchange: Exchange, deadline: float) -> Any:  # noqa: ARG002
        rows = repository.index(self._context, request.ready)
        return self._classes["RepositoryIndexResponse"](models=rows)

    async def _load(self, request: Any, exchange: Exchange, deadline: float) -> Any:  # noqa: ARG002
        _refuse_repository_name(request)
        options = {"parameters": dict(request.parameters)}
        await repository.load(self._context, request.model_name, options)
        return self._classes["RepositoryModelLoadResponse"]()

    async def _unload(self, request: Any, exchange: Exchange, deadline: float) -> Any:  # noqa: ARG002
        _refuse_repository_name(request)
        await repository.unload(self._context, request.model_name)
        return self._classes["RepositoryModelUnloadResponse"]()


class _Doorway(grpc.GenericRpcHandler):  # type: ignore[misc]
    """The methods of a service, each looked at by its metadata before its message is received."""

    def __init__(
        self,
        service: str,
        handlers: dict[str, Any],
        unheard: Callable[[str, list[tuple[bytes, bytes]]], Any],
    ) -> None:
        self._handlers = {f"/{service}/{name}": (name, each) for name, each in handlers.items()}
        self._unheard = unheard

    def service(self, handler_call_details: Any) -> Any:
        name, handler = self._handlers.get(handler_call_details.method, ("", None))
        if handler is None:
            return None
        metadata = _pairs(handler_call_details.invocation_metadata)
        return self._unheard(name, metadata) or handler


def _refuse_repository_name(request: Any) -> None:
    if request.repository_name:
        raise InvalidBody("The server has one repository.", hint="Leave repository_name empty.")


def _metadata(call: Any) -> list[tuple[bytes, bytes]]:
    """The metadata of a call in the form of HTTP headers."""
    return _pairs(call.invocation_metadata())


def _pairs(metadata: Any) -> list[tuple[bytes, bytes]]:
    return [(k.encode(), v if isinstance(v, bytes) else v.encode()) for k, v in metadata or ()]
