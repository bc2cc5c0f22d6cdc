"""POST /predict: our own protocol, one JSON object in, one out. A plain ASGI callable."""

from __future__ import annotations

import re
from typing import Any

from starlette.types import Scope

from service import http
from service.classify import predictions
from service.codecs import json_
from service.errors import UnsupportedMediaType
from service.model import ServedModel
from service.protocols import nonfinite
from service.protocols.endpoint import Decoded, Inference, Reply, refuse_compression
from service.signature import Tensors

_MEDIA_TYPE = re.compile(rb"\s*application/(json|[\w.+-]+\+json)\s*(;.*)?", re.IGNORECASE)
_CHARSET = re.compile(rb';\s*charset\s*=\s*"?([^\s;"]*)', re.IGNORECASE)


class Predict(Inference):
    """The route. `scope["path_params"]` may have `name` and `version`."""

    def check_headers(self, scope: Scope) -> None:
        """JSON in UTF-8, not compressed; no Content-Type at all is taken for that."""
        refuse_compression(scope)
        kind = http.header(scope, b"content-type")
        if not kind:
            return
        if not _MEDIA_TYPE.fullmatch(kind):
            raise UnsupportedMediaType("The Content-Type of the body is not JSON.")
        charset = _CHARSET.search(kind)
        if charset and charset[1].lower() not in {b"utf-8", b"utf8"}:
            raise UnsupportedMediaType("The charset of the body is not UTF-8, which JSON must be.")

    def decode(self, scope: Scope, body: bytes, model: ServedModel) -> Decoded:  # noqa: ARG002
        return Decoded(json_.decode(body, model.signature), self._encode)

    def _encode(self, model: ServedModel, outputs: Tensors) -> Reply:
        warnings = nonfinite.check(outputs, self.context.settings.nan_policy)
        payload: dict[str, Any] = {
            "model": {"name": model.name, "version": model.version},
            "outputs": {name: json_.tensor(array) for name, array in outputs.items()},
        }
        how = model.manifest.classification
        if how is not None:
            payload["predictions"] = predictions(outputs[how.output], how)
        if warnings:
            payload["warnings"] = [f"{warning} They are null here." for warning in warnings]
        return Reply(json_.encode(payload))
