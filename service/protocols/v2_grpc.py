"""The Open Inference Protocol over gRPC: the methods of inference.GRPCInferenceService.

They take the same limits and the same tensor path as the routes over REST (v2.py). `grpc_server`
listens, checks the keys, and turns the errors into a status.

Source: Open Inference Protocol, inference_grpc.md.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any

from google.protobuf.message import DecodeError

from service import health
from service.codecs import v2_grpc
from service.codecs.v2_request import InferRequest
from service.context import Context
from service.errors import InvalidBody, ModelUnavailable, NotFound
from service.exchange import Exchange
from service.models.model import ServedModel
from service.protocols import grpc_bounds, grpc_health, grpc_messages, nonfinite, repository, v2
from service.protocols.call import Call, How, Reader, Reply
from service.protocols.light import LARGE_TEXT_BYTES
from service.protocols.model_config import config
from service.protocols.statistics import statistics
from service.signature import Tensors

# A message, the record of its call, and the deadline on the clock of time.monotonic(), to the bytes
# of the answer.
Method = Callable[[bytes, Exchange, float], Awaitable[bytes]]

# Of a ModelInferRequest.
_MODEL_NAME, _MODEL_VERSION = 1, 2


class Methods:
    """What each call does with its message."""

    def __init__(self, context: Context, classes: Mapping[str, type[Any]]) -> None:
        self._context = context
        self._classes = classes
        self._raw_outputs = context.settings.grpc_outputs == "raw"
        self._reader = Reader(self._decode, recall=context.recall("grpc"))

    def table(self) -> dict[str, Method]:
        """The methods of the service by name, and HealthCheck: Check of grpc.health.v1.Health."""
        made = {name: partial(self._answer, name) for name in (*_TOLD, *_DONE)}
        return {**made, "ModelInfer": self._model_infer}

    async def _answer(self, name: str, data: bytes, exchange: Exchange, deadline: float) -> bytes:
        """A method whose message is small, or none that is meant."""
        context = self._context
        call = Call(context.pool, exchange, self._reader)
        call.deadline = deadline
        light = len(data) <= LARGE_TEXT_BYTES
        request = self.read(name, data) if light else await call.in_thread(self.read, name, data)
        if name in _DONE:
            await _DONE[name](context, request)
        told = _TOLD[name](context, request) if name in _TOLD else {}
        written: bytes = self._classes[f"{name}Response"](**told).SerializeToString()
        return written

    def read(self, name: str, data: bytes) -> Any:
        """The message of a method.

        Raises:
            InvalidBody: it is none, or has too many parts.
        """
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

    async def _model_infer(self, data: bytes, exchange: Exchange, deadline: float) -> bytes:
        """Admitted by the model's name alone: nothing else is read of what is refused."""
        named = grpc_bounds.texts(data, [_MODEL_NAME, _MODEL_VERSION])
        if named is None:
            self.read("ModelInfer", data)  # says what is wrong with it
            raise InvalidBody("The message is not a ModelInferRequest.")
        name, version = named
        call = Call(self._context.pool, exchange, self._reader)
        model = self._context.registry.find(name or None, version or None)
        call.admit(model, deadline - time.monotonic())
        call.body, call.deadline = data, deadline
        del data  # what is needed of it is copied out
        return (await call.answer()).body

    def _decode(
        self,
        data: bytes,
        model: ServedModel,
        charge: Callable[[int], object],  # noqa: ARG002
    ) -> tuple[Tensors, How]:
        request = v2_grpc.decode(self.read("ModelInfer", data), model.signature)
        encode = partial(self._encode, request._replace(tensors={}))
        return request.tensors, How(encode, request.binary or self._raw_outputs, request.wish)

    def _encode(self, request: InferRequest, model: ServedModel, outputs: Tensors) -> Reply:
        names = [wanted.name for wanted in request.outputs]
        warnings = nonfinite.check(outputs, self._context.settings.nan_policy, names)
        response = self._classes["ModelInferResponse"]()
        v2_grpc.encode(response, model, outputs, request, warnings, self._raw_outputs)
        return Reply(response.SerializeToString())


def _health(context: Context, request: Any) -> dict[str, Any]:
    status = grpc_health.status(request.service, ready=_is_ready(context))
    if status is None:
        raise NotFound("There is no such service.", hint=f"Ask for {grpc_messages.SERVICE}.")
    return {"status": status}


def _is_ready(context: Context) -> bool:
    return not health.obstacles(context.registry, context.lifecycle)


def _model_ready(context: Context, request: Any) -> dict[str, Any]:
    try:
        v2.ready_model(context, *_which(request))
    except (NotFound, ModelUnavailable):
        return {"ready": False}
    return {"ready": True}


def _which(request: Any) -> tuple[str | None, str | None]:
    """The name and the version of a model; an empty text says nothing."""
    return request.name or None, request.version or None


async def _load(context: Context, request: Any) -> None:
    _refuse_repository_name(request)
    options = {"parameters": dict(request.parameters)}
    await repository.load(context, request.model_name, options)


async def _unload(context: Context, request: Any) -> None:
    _refuse_repository_name(request)
    await repository.unload(context, request.model_name)


def _refuse_repository_name(request: Any) -> None:
    if request.repository_name:
        raise InvalidBody("The server has one repository.", hint="Leave repository_name empty.")


# Method: the fields of its answer.
_TOLD: dict[str, Callable[[Context, Any], dict[str, Any]]] = {
    "ServerLive": lambda *_: {"live": True},
    "ServerReady": lambda context, _: {"ready": _is_ready(context)},
    "ServerMetadata": lambda context, _: v2.server_metadata(context),
    "ModelReady": _model_ready,
    "ModelMetadata": lambda context, request: v2.model_metadata(context, *_which(request)),
    "ModelStatistics": lambda context, request: statistics(context, *_which(request)),
    "ModelConfig": lambda context, request: {"config": config(context, *_which(request))},
    "RepositoryIndex": lambda context, request: {
        "models": repository.index(context, request.ready)
    },
    "HealthCheck": _health,
}
# Method: what it does; its answer has no fields.
_DONE: dict[str, Callable[[Context, Any], Awaitable[None]]] = {
    "RepositoryModelLoad": _load,
    "RepositoryModelUnload": _unload,
}
