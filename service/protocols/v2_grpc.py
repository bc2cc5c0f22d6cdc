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

from service import health
from service.codecs import v2_grpc
from service.codecs.v2_request import InferRequest
from service.errors import InvalidBody, ModelUnavailable, NotFound
from service.exchange import Exchange
from service.models.model import ServedModel
from service.protocols import grpc_health, grpc_messages, nonfinite, repository, v2
from service.protocols.endpoint import Context
from service.protocols.light import LARGE_TEXT_BYTES, light_answer
from service.signature import Tensors

# A message, the record of its call, and the deadline on the clock of time.monotonic().
Method = Callable[[Any, Exchange, float], Awaitable[Any]]


class Methods:
    """What each call does with its message.

    Args:
        context: as for the HTTP routes.
        classes: of the messages, by name.
    """

    def __init__(self, context: Context, classes: Mapping[str, type[Any]]) -> None:
        self._context = context
        self._classes = classes
        self._raw_outputs = context.settings.grpc_outputs == "raw"

    def table(self) -> dict[str, Method]:
        """The methods of the service, by name."""
        return {
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

    async def health(self, request: Any, exchange: Exchange, deadline: float) -> Any:  # noqa: ARG002
        """The method Check of grpc.health.v1.Health."""
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
        light = light_answer(outputs, copied=decoded.binary or self._raw_outputs)
        response = await context.job(light, partial(self._encode, model, outputs, decoded))
        exchange.encoded = time.monotonic()
        return response

    def _encode(self, model: ServedModel, outputs: Tensors, request: InferRequest) -> Any:
        names = [wanted.name for wanted in request.outputs]
        warnings = nonfinite.check(outputs, self._context.settings.nan_policy, names)
        response = self._classes["ModelInferResponse"]()
        v2_grpc.encode(response, model, outputs, request, warnings, self._raw_outputs)
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


def _refuse_repository_name(request: Any) -> None:
    if request.repository_name:
        raise InvalidBody("The server has one repository.", hint="Leave repository_name empty.")
