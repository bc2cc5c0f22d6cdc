"""The OpenAPI fragments of the Open Inference Protocol and of TensorFlow Serving's REST API."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson

from service.codecs import json_
from service.codecs.v2_request import DATATYPES
from service.models.model import ServedModel
from service.signature import Tensors, dtype_name

Schema = dict[str, Any]

_TEXT: Schema = {"type": "string"}
_SIZES: Schema = {"type": "array", "items": {"type": "integer", "minimum": -1}}
_DATATYPE: Schema = {"type": "string", "enum": [*DATATYPES.values()]}
_LIST: Schema = {"type": "array", "items": {}}
_OBJECT: Schema = {"type": "object", "additionalProperties": {}}


def _object(required: str, **properties: Schema) -> Schema:
    return {"type": "object", "required": required.split(), "properties": properties}


def _many(of: Schema) -> Schema:
    return {"type": "array", "items": of}


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _tensor(data: Schema) -> Schema:
    return _object(
        "name shape datatype",
        name=_TEXT, shape=_SIZES, datatype=_DATATYPE, parameters=_OBJECT, data=data,
    )  # fmt: skip


_TENSOR_INFO = _object("name datatype shape", name=_TEXT, datatype=_DATATYPE, shape=_SIZES)

SCHEMAS: dict[str, Schema] = {
    "OneTextError": _object("error", error=_TEXT),
    "V2InferRequest": _object(
        "inputs",
        id=_TEXT,
        parameters=_OBJECT,
        inputs=_many(_tensor({**_LIST, "description": "flat or nested, in row-major order"})),
        outputs=_many(_object("name", name=_TEXT, parameters=_OBJECT)),
    ),
    "V2InferResponse": _object(
        "model_name model_version outputs",
        model_name=_TEXT,
        model_version=_TEXT,
        id=_TEXT,
        parameters=_OBJECT,
        outputs=_many(_tensor(_LIST)),
    ),
    "V2ModelMetadata": _object(
        "name versions platform inputs outputs",
        name=_TEXT,
        versions=_many(_TEXT),
        platform=_TEXT,
        inputs=_many(_TENSOR_INFO),
        outputs=_many(_TENSOR_INFO),
        properties={"type": "object", "additionalProperties": _TEXT},
    ),
    "V2ModelReady": _object("name ready", name=_TEXT, ready={"type": "boolean"}),
    "V2Server": _object(
        "name version extensions", name=_TEXT, version=_TEXT, extensions=_many(_TEXT)
    ),
    "V2Live": _object("live", live={"type": "boolean"}),
    "V2Ready": _object("ready", ready={"type": "boolean"}),
    "V2Statistics": _object(
        "model_stats",
        model_stats=_many(
            _object(
                "name version last_inference inference_count execution_count inference_stats "
                "batch_stats",
                name=_TEXT,
                version=_TEXT,
                last_inference={"type": "integer", "description": "ms since 1970; 0 for never"},
                inference_count={"type": "integer", "description": "rows that were answered"},
                execution_count={"type": "integer", "description": "batches that were run"},
                inference_stats=_OBJECT,
                batch_stats=_many(_OBJECT),
            )
        ),
    ),
    "V2Config": _object(
        "name platform max_batch_size input output",
        name=_TEXT,
        platform=_TEXT,
        max_batch_size={"type": "integer", "minimum": 0},
        input=_many(_OBJECT),
        output=_many(_OBJECT),
    ),
    "V2IndexRequest": _object("", ready={"type": "boolean"}),
    "V2Index": _many(
        _object(
            "name version state reason",
            name=_TEXT,
            version=_TEXT,
            state={"enum": ["READY", "UNAVAILABLE"]},
            reason=_TEXT,
        )
    ),
    "ModelNames": _object("models", models=_many(_TEXT)),
    "V2Empty": _OBJECT,
    "TfsPredictRequest": {
        "oneOf": [
            _object("instances", signature_name=_TEXT, instances=_LIST),
            _object("inputs", signature_name=_TEXT, inputs={}),
        ]
    },
    "TfsPredictResponse": {
        "oneOf": [_object("predictions", predictions=_LIST), _object("outputs", outputs={})]
    },
    "TfsStatus": _object(
        "name ready model_version_status",
        name=_TEXT,
        ready={"type": "boolean"},
        model_version_status=_many(
            _object("version state status", version=_TEXT, state=_TEXT, status=_OBJECT)
        ),
    ),
    "TfsMetadata": _object("model_spec metadata", model_spec=_OBJECT, metadata=_OBJECT),
}

_V2 = "Open Inference Protocol"
_TFS = "TensorFlow Serving"
_V2_MODEL = "/v2/models/{name}"
_V2_VERSION = "/v2/models/{name}/versions/{version}"
_TFS_MODEL = "/v1/models/{name}"
_TFS_VERSION = "/v1/models/{name}/versions/{version}"

# tag, method, path, summary, request, response
_ROUTES: list[tuple[str, str, str, str, str | None, str]] = [
    (_V2, "get", "/v2", "The server and its extensions", None, "V2Server"),
    (_V2, "get", "/v2/models", "Names of the models", None, "ModelNames"),
    (_V2, "get", "/v2/models/stats", "What all models have done", None, "V2Statistics"),
    (_V2, "get", "/v2/health/live", "Is the process alive?", None, "V2Live"),
    (_V2, "get", "/v2/health/ready", "Should it get traffic?", None, "V2Ready"),
    *(
        route
        for path in (_V2_MODEL, _V2_VERSION)
        for route in (
            (_V2, "get", path, "Tensors of a model", None, "V2ModelMetadata"),
            (_V2, "get", f"{path}/ready", "Does the model answer?", None, "V2ModelReady"),
            (_V2, "get", f"{path}/stats", "What it has done", None, "V2Statistics"),
            (_V2, "get", f"{path}/config", "How it is served", None, "V2Config"),
            (_V2, "post", f"{path}/infer", "Infer", "V2InferRequest", "V2InferResponse"),
        )
    ),
    (_V2, "post", "/v2/repository/index", "All models", "V2IndexRequest", "V2Index"),
    *(
        (_V2, "post", f"/v2/repository/models/{{name}}/{verb}", summary, "V2Empty", "V2Empty")
        for verb, summary in (
            ("load", "Load a model again (admin key)"),
            ("unload", "Serve a model no longer (admin key)"),
        )
    ),
    (_TFS, "get", "/v1/models", "Names of the models", None, "ModelNames"),
    *(
        route
        for path in (_TFS_MODEL, _TFS_VERSION)
        for route in (
            (_TFS, "get", path, "State of the versions", None, "TfsStatus"),
            (_TFS, "get", f"{path}/metadata", "Tensors of a model", None, "TfsMetadata"),
            (
                _TFS, "post", f"{path}:predict", "Predict",
                "TfsPredictRequest", "TfsPredictResponse",
            ),
        )
    ),
]  # fmt: skip


def extend(document: dict[str, Any], served: list[ServedModel]) -> None:
    """Add the routes of both protocols and their schemas to an OpenAPI document, in place.

    Args:
        document: with the schemas of errors.
        served: the models, for examples that can be sent as they are.
    """
    document["components"]["schemas"].update(SCHEMAS)
    known = {
        "name": sorted({model.name for model in served}),
        "version": [str(version) for version in sorted({model.version for model in served})],
    }
    for tag, method, path, summary, request, response in _ROUTES:
        operation: dict[str, Any] = {
            "tags": [tag],
            "summary": summary,
            "operationId": _operation_id(method, path),
            "parameters": [
                {
                    "name": name,
                    "in": "path",
                    "required": True,
                    "schema": {**_TEXT, **({"examples": known[name]} if known[name] else {})},
                }
                for name in ("name", "version")
                if f"{{{name}}}" in path
            ],
            "responses": {
                "200": {"description": "The answer.", "content": _content(response)},
                "default": {"description": "Any error.", "content": _content("OneTextError")},
            },
        }
        if request:
            required = request not in {"V2Empty", "V2IndexRequest"}
            operation["requestBody"] = {"required": required, "content": _content(request)}
        if request in _EXAMPLES:
            json_body = operation["requestBody"]["content"]["application/json"]
            json_body["examples"] = examples(served, _EXAMPLES[request])
        if path.endswith("/infer"):
            _add_binary(operation)
        document["paths"].setdefault(path, {})[method] = operation


def title(model: ServedModel) -> str:
    """How a version is called."""
    return f"{model.name}, version {model.version}"


def examples(served: list[ServedModel], of: Callable[[Tensors], Schema]) -> dict[str, Schema]:
    """A request for each model whose inputs are small enough to be shown."""
    return {
        model.name: {"summary": title(model), "value": of(tensors)}
        for model in served
        if (tensors := model.example) is not None
    }


def _v2_example(tensors: Tensors) -> Schema:
    return {
        "inputs": [
            {
                "name": name,
                "shape": list(array.shape),
                "datatype": DATATYPES[dtype_name(array)],
                "data": _plain({name: array.reshape(-1)})[name],
            }
            for name, array in tensors.items()
        ]
    }


def example(tensors: Tensors) -> Schema:
    """The `inputs` of a request that works, of our own protocol and of TensorFlow Serving's."""
    named = _plain(tensors)
    return {"inputs": next(iter(named.values())) if len(named) == 1 else named}


def _plain(tensors: Tensors) -> dict[str, Any]:
    """Nested lists of the numbers as an answer writes them."""
    text = json_.encode({name: json_.tensor(array) for name, array in tensors.items()})
    found: dict[str, Any] = orjson.loads(text)
    return found


_EXAMPLES: dict[str, Callable[[Tensors], Schema]] = {
    "V2InferRequest": _v2_example,
    "TfsPredictRequest": example,
}


def _add_binary(operation: dict[str, Any]) -> None:
    """The binary tensor extension: JSON of a known length, then the bytes of the tensors."""
    octets = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
    length = "bytes of JSON in front of the tensors' bytes"
    operation["requestBody"]["content"].update(octets)
    operation["responses"]["200"]["content"].update(octets)
    operation["responses"]["200"]["headers"] = {
        "Inference-Header-Content-Length": {"description": length, "schema": {"type": "integer"}}
    }
    operation["parameters"].append(
        {
            "name": "Inference-Header-Content-Length",
            "in": "header",
            "description": length,
            "schema": {"type": "integer", "minimum": 0},
        }
    )


def _content(schema: str) -> dict[str, Any]:
    return {"application/json": {"schema": _ref(schema)}}


def _operation_id(method: str, path: str) -> str:
    words = path.translate(str.maketrans("/{}:", "    ")).split()
    return "_".join([method, *words])
