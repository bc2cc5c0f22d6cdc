"""The OpenAPI document of the hot routes, which are plain ASGI and document themselves here.

Written from the models that are loaded: real input names and shapes, and an example request
that can be sent as it is.
"""

from __future__ import annotations

from typing import Any

from service.errors import ServiceError
from service.manifest import TensorSpec
from service.models.model import ServedModel
from service.models.registry import Registry
from service.protocols import documents, media
from service.signature import show

ERROR_SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["code", "message", "hint"],
    "additionalProperties": False,
    "properties": {
        "code": {"type": "string", "description": "for programs; one of a fixed set"},
        "message": {"type": "string", "description": "what happened, for people"},
        "hint": {"type": "string", "description": "what to do about it"},
    },
}
ERROR_RESPONSE: dict[str, Any] = {
    "description": "Any error, always of this shape.",
    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
}
_NUMBER: dict[str, Any] = {
    "description": "an input without axes",
    "type": ["number", "boolean", "string"],
}
_NUMBERS: dict[str, Any] = {
    "description": "nested lists of numbers or text",
    "type": "array",
    "items": {},
}


def extend(document: dict[str, Any], registry: Registry) -> dict[str, Any]:
    """Add the predict routes and the error schema to FastAPI's own document, in place."""
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    schemas["Error"] = ERROR_SCHEMA
    served = registry.served()
    paths = document.setdefault("paths", {})
    paths["/predict"] = {"post": _operation("The default model", "predict", _default(registry))}
    paths["/models/{name}/predict"] = {
        "post": _operation("A model by name", "predict_model", served, "name")
    }
    paths["/models/{name}/versions/{version}/predict"] = {
        "post": _operation(
            "A model by name and version", "predict_version", served, "name", "version"
        )
    }
    (name,) = paths["/models/{name}"]["get"]["parameters"]
    name["schema"]["examples"] = [model.name for model in served]
    documents.extend(document, served)
    return document


def _default(registry: Registry) -> list[ServedModel]:
    try:
        return [registry.find(None)]
    except ServiceError:
        return []


def _operation(
    summary: str, operation_id: str, models: list[ServedModel], *parameters: str
) -> dict[str, Any]:
    examples = documents.examples(models, documents.example)
    names = [model.name for model in models]
    versions = sorted({model.version for model in models})
    return {
        "tags": ["predict"],
        "summary": f"Predict: {summary[0].lower()}{summary[1:]}",
        "description": "\n\n".join(
            [
                'One row for each sample: `{"inputs": [[...], ...]}` when the model has one '
                'input, `{"inputs": {"<name>": [...], ...}}` otherwise.',
                *map(_describe, models),
            ]
        ),
        "operationId": operation_id,
        "parameters": [
            {
                "name": name,
                "in": "path",
                "required": True,
                "schema": {"type": "string", "examples": names}
                if name == "name"
                else {"type": "integer", "minimum": 1, "examples": versions},
            }
            for name in parameters
        ],
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {"schema": _request_schema(), "examples": examples},
                **_binary(),
                **_images(),
            },
        },
        "responses": {
            "200": {
                "description": "An output row for each input row.",
                "content": {"application/json": {"schema": _response_schema()}, **_binary()},
            },
            "default": ERROR_RESPONSE,
        },
    }


def _binary() -> dict[str, Any]:
    """One tensor in bytes, in and out."""
    return {kind: {"schema": {"type": "string", "format": "binary"}} for kind in media.BINARY}


def _images() -> dict[str, Any]:
    """Pictures, for a model with preprocessing."""
    file: dict[str, Any] = {"type": "string", "format": "binary"}
    files = {"type": "object", "properties": {"image": {"type": "array", "items": file}}}
    return {
        **{kind: {"schema": file} for kind in media.IMAGES},
        media.MULTIPART: {"schema": files},
    }


def _describe(model: ServedModel) -> str:
    def tensors(specs: dict[str, TensorSpec]) -> str:
        return ", ".join(f"`{s.name}` {s.dtype} {show(s.shape)}" for s in specs.values())

    signature = model.signature
    return (
        f"**{documents.title(model)}**: {tensors(signature.inputs)} → {tensors(signature.outputs)}"
    )


def _request_schema() -> dict[str, Any]:
    by_name = {"type": "object", "additionalProperties": {}}
    return {
        "type": "object",
        "required": ["inputs"],
        "additionalProperties": False,
        "properties": {"inputs": {"anyOf": [_NUMBERS, by_name, _NUMBER]}},
    }


def _response_schema() -> dict[str, Any]:
    text: dict[str, Any] = {"type": "string"}
    return {
        "type": "object",
        "required": ["model", "outputs"],
        "properties": {
            "model": {
                "type": "object",
                "properties": {"name": text, "version": {"type": "integer"}},
            },
            "outputs": {"type": "object", "additionalProperties": {}},
            "predictions": {
                "type": "array",
                "description": "for a classifier: the most probable label of each row",
                "items": {
                    "type": "object",
                    "properties": {
                        "label": {"type": ["string", "null"]},
                        "probability": {"type": ["number", "null"]},
                        "index": {"type": ["integer", "null"]},
                    },
                },
            },
            "warnings": {"type": "array", "items": text},
        },
    }
