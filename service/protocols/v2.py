"""The Open Inference Protocol, version 2, over REST: the routes under /v2.

    GET  /v2                                             the server and its extensions
    GET  /v2/health/live, /v2/health/ready
    GET  /v2/models                                      names of the models, as KServe tells them
    GET  /v2/models/{m}[/versions/{v}]                   metadata
    GET  /v2/models/{m}[/versions/{v}]/ready, .../stats, .../config
    GET  /v2/models/stats
    POST /v2/models/{m}[/versions/{v}]/infer
    POST /v2/repository/index
    POST /v2/repository/models/{m}/load, .../unload

An error is {"error": "<sentence>"} with a 4xx or 5xx status.

Source: Open Inference Protocol, inference_rest.md, open_inference_rest.yaml; Triton's
extension_model_repository.md, extension_statistics.md, extension_model_configuration.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import orjson
from starlette.types import Receive, Scope

from service import health, http
from service.batching.item import Outputs
from service.codecs import json_, v2, v2_heads
from service.codecs.v2_request import DATATYPES, InferRequest
from service.connections.auth import credentials
from service.context import Context
from service.errors import InvalidBody, ModelUnavailable
from service.manifest import TensorSpec
from service.models.model import ServedModel
from service.protocols import media, nonfinite, repository
from service.protocols.call import OCTETS, How, Reader, Reply
from service.protocols.endpoint import Endpoint, Inference
from service.protocols.light import LARGE_TEXT_BYTES
from service.protocols.model_config import PLATFORM, config
from service.protocols.routes import Fixed, OneText, Route, Routes
from service.protocols.statistics import statistics
from service.signature import Tensors

EXTENSIONS = [
    "binary_tensor_data", "classification", "model_repository", "model_configuration",
    "schedule_policy", "statistics",
]  # fmt: skip
_HEADER_LENGTH = b"inference-header-content-length"


def routes(context: Context) -> Routes:
    """The application for every path under /v2."""
    fixed = partial(Fixed, context)
    return Routes(
        [
            *_of_model("POST", "/infer", Infer(context)),
            *_of_model("GET", "/ready", fixed(_model_ready)),
            Route("GET", "/v2/models/stats", fixed(statistics)),
            *_of_model("GET", "/stats", fixed(statistics)),
            *_of_model("GET", "/config", fixed(config)),
            *_of_model("GET", "", fixed(model_metadata)),
            Route("GET", "/v2", fixed(server_metadata)),
            Route("GET", "/v2/models", fixed(repository.names)),
            Route("GET", "/v2/health/live", fixed(lambda _: {"live": True})),
            Route("GET", "/v2/health/ready", fixed(_ready)),
            Route("POST", "/v2/repository/index", Index(context)),
            Route("POST", "/v2/repository/models/{name}/load", Load(context)),
            Route("POST", "/v2/repository/models/{name}/unload", Unload(context)),
        ]
    )


def _of_model(method: str, end: str, endpoint: Endpoint) -> list[Route]:
    paths = ("/v2/models/{name}", "/v2/models/{name}/versions/{version}")
    return [Route(method, path + end, endpoint) for path in paths]


class Infer(OneText, Inference):
    """POST .../infer."""

    def reader(self, scope: Scope) -> Reader:
        length = _header_length(scope)

        def read(
            body: http.Body, model: ServedModel, charge: Callable[[int], object]
        ) -> tuple[Tensors, How]:
            if length:
                known = v2_heads.known(bytes(body[:length]), len(body), model.signature)
                if known is not None and known.how is not None:
                    return known.tensors(body), known.how
            request = v2.decode(body, length, model.signature, charge)
            light = request.binary or bool(
                request.outputs and all(wanted.binary for wanted in request.outputs)
            )
            kept = request.head
            if kept is not None:  # what is written with it holds none of its tensors
                write = partial(self._again, kept, request._replace(tensors={}))
                kept.how = How(write, light, request.wish, model.signature.check(request.tensors))
            return request.tensors, How(partial(self._write, request), light, request.wish)

        recall = self.context.recall("v2", length)
        if length is None:
            return Reader(read, recall=recall)
        light = math.inf if length <= LARGE_TEXT_BYTES else -1
        return Reader(read, light, front=length, recall=recall)

    def _again(
        self, head: v2_heads.Head, request: InferRequest, model: ServedModel, outputs: Tensors
    ) -> Reply:
        """Write an answer whose JSON may be known from another one."""
        if isinstance(outputs, Outputs) and outputs.finite:
            found = head.answer(outputs)
            if found is not None:
                return Reply(found[0], OCTETS, found[1].headers)
        return self._write(request, model, outputs)

    def _write(self, request: InferRequest, model: ServedModel, outputs: Tensors) -> Reply:
        names = [wanted.name for wanted in request.outputs]
        warnings = nonfinite.check(outputs, self.context.settings.nan_policy, names)
        text, length = v2.encode(model, outputs, request, warnings)
        if length is None:
            return Reply(text)
        return Reply(text, OCTETS, [(_HEADER_LENGTH, str(length).encode())])


def _header_length(scope: Scope) -> int | None:
    value = http.header(scope, _HEADER_LENGTH)
    if value is None:
        return None
    if not value.isdigit() or len(value) > 18:
        raise InvalidBody("Inference-Header-Content-Length is not a number of bytes.")
    said = http.header(scope, b"content-type") or b""
    if int(value) == 0 and said.startswith(media.JSON.encode()):
        raise InvalidBody(
            "Inference-Header-Content-Length: 0 says that the body is the bytes of a tensor, but "
            "its Content-Type is application/json."
        )
    return int(value)


def model_metadata(
    context: Context, name: str | None, version: str | None = None
) -> dict[str, Any]:
    """Name, versions and tensors of a model as the protocol tells them; open sizes are -1.

    `properties`, texts by name, is there where there is something to tell: a certificate. Raises
    what `Registry.find` raises.
    """
    model = context.registry.find(name, version)

    def tensors(specs: dict[str, TensorSpec]) -> list[dict[str, Any]]:
        return [
            {
                "name": spec.name,
                "datatype": DATATYPES[spec.dtype],
                "shape": [dim if isinstance(dim, int) else -1 for dim in spec.shape],
            }
            for spec in specs.values()
        ]

    certificate = model.manifest.certificate
    return {
        "name": model.name,
        "versions": repository.versions(context, model.name),
        "platform": PLATFORM,
        "inputs": tensors(model.signature.inputs),
        "outputs": tensors(model.signature.outputs),
        **({"properties": {"certificate": certificate.sentence}} if certificate else {}),
    }


def _model_ready(context: Context, name: str, version: str | None = None) -> dict[str, Any]:
    """200 when it is served, the reason with a 4xx or 5xx if not."""
    return {"name": ready_model(context, name, version).name, "ready": True}


def ready_model(context: Context, name: str | None, version: str | None) -> ServedModel:
    """The model, if it can answer at this moment; raises what `Registry.find` raises."""
    model = context.registry.find(name, version)
    if not model.batcher.alive:
        raise ModelUnavailable(f"The worker of model {model.name!r} is not running.")
    return model


def server_metadata(context: Context) -> dict[str, Any]:
    """Name, version and extensions of the server."""
    return {
        "name": context.settings.server_name,
        "version": context.version,
        "extensions": EXTENSIONS,
    }


def _ready(context: Context) -> dict[str, bool]:
    """200, or 503 with the reasons, without names where keys are in use."""
    health.readiness(context.registry, context.lifecycle, named=not context.access.closed)
    return {"ready": True}


class _Repository(OneText):
    """A repository route; the body is a JSON object or nothing."""

    admin = True

    async def answer(self, scope: Scope, receive: Receive, hang_up: http.CancelOnHangUp) -> Reply:  # noqa: ARG002
        if self.admin:
            self.context.access.require_admin(credentials(scope["headers"]))
        body = bytes(await self.read_body(scope, receive))
        options = json_.parse(body) if body.strip() else {}
        if not isinstance(options, dict):
            raise InvalidBody("The body is not a JSON object.", hint="Send {} or no body.")
        return await self.act(options, scope["path_params"])

    async def act(self, options: dict[str, Any], params: dict[str, str]) -> Reply:
        raise NotImplementedError


class Index(_Repository):
    """POST /v2/repository/index: every model, or with {"ready": true} those that serve."""

    admin = False

    async def act(self, options: dict[str, Any], params: dict[str, str]) -> Reply:  # noqa: ARG002
        ready_only = options.get("ready", False)
        if not isinstance(ready_only, bool):
            raise InvalidBody("'ready' is not true or false.", hint='Send {"ready": true} or {}.')
        return Reply(orjson.dumps(repository.index(self.context, ready_only)))


class Load(_Repository):
    """POST /v2/repository/models/{name}/load: look at its folder again; needs an admin key."""

    async def act(self, options: dict[str, Any], params: dict[str, str]) -> Reply:
        await repository.load(self.context, params["name"], options)
        return Reply(b"{}")


class Unload(_Repository):
    """POST /v2/repository/models/{name}/unload; needs an admin key."""

    async def act(self, options: dict[str, Any], params: dict[str, str]) -> Reply:  # noqa: ARG002
        await repository.unload(self.context, params["name"])
        return Reply(b"{}")
