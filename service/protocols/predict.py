"""POST /predict: our own protocol, one JSON object in, one out. A plain ASGI callable.

    bytes -> codec -> Signature.check -> Batcher.submit -> codec -> bytes

Only the first and the last step touch bytes, only the middle ones touch tensors; what the
other protocols share is the middle.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

import numpy as np
from starlette.types import Receive, Scope, Send

from service import http
from service.classify import predictions
from service.codecs import json_
from service.errors import NonFiniteOutput, ServiceError, ShuttingDown, UnsupportedMediaType
from service.health import Lifecycle
from service.model import ServedModel
from service.registry import Registry
from service.settings import Settings
from service.signature import Tensors

T = TypeVar("T")

logger = logging.getLogger("foldserve.predict")

# Beyond these, (de)serialising takes milliseconds, which belong in a thread. The pool is
# small because a decoded body takes several times its size in memory.
_LARGE_BODY_BYTES = 256 * 1024
_LARGE_OUTPUT_ELEMENTS = 64 * 1024
_LARGE_JOBS_AT_ONCE = 2

_MEDIA_TYPE = re.compile(rb"\s*application/(json|[\w.+-]+\+json)\s*(;.*)?", re.IGNORECASE)
_CHARSET = re.compile(rb';\s*charset\s*=\s*"?([^\s;"]*)', re.IGNORECASE)


class Predict:
    """The route. `scope["path_params"]` may have `name` and `version`."""

    def __init__(self, registry: Registry, settings: Settings, lifecycle: Lifecycle) -> None:
        self._registry = registry
        self._settings = settings
        self._lifecycle = lifecycle
        self._pool = ThreadPoolExecutor(_LARGE_JOBS_AT_ONCE, thread_name_prefix="codec")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        hang_up = http.CancelOnHangUp(receive)
        try:
            body = await self._answer(scope, receive, hang_up)
        except ServiceError as error:
            await http.respond_error(send, receive, error)
        except http.ClientGone:
            return
        except asyncio.CancelledError:
            if hang_up.gone:
                return
            if not self._lifecycle.draining:
                raise
            # The drain deadline: the connection is still there, so say why.
            late = ShuttingDown("The server stopped before the answer was ready.")
            await http.respond_error(send, receive, late)
        except Exception:  # a defect: the client still gets the one shape of an error
            logger.exception("request %s failed", _request_id(scope))
            defect = ServiceError("Something went wrong inside the server.")
            await http.respond_error(send, receive, defect)
        else:
            await http.respond(send, 200, body)

    async def _answer(self, scope: Scope, receive: Receive, hang_up: http.CancelOnHangUp) -> bytes:
        settings = self._settings
        _check_media_type(scope)
        params = scope.get("path_params", {})
        model = self._registry.find(params.get("name"), params.get("version"))
        model.batcher.check_room(1)  # refuse before the work of reading and decoding
        body = await http.read_body(
            scope, receive, settings.max_body_bytes, settings.body_timeout_ms / 1000
        )
        deadline = time.monotonic() + settings.request_timeout_ms / 1000
        with hang_up:
            large = len(body) > _LARGE_BODY_BYTES
            tensors = await self._job(large, partial(json_.decode, body, model.signature))
            rows = model.signature.check(tensors)
            outputs = await model.batcher.submit(tensors, rows, deadline, _request_id(scope))
            large = sum(array.size for array in outputs.values()) > _LARGE_OUTPUT_ELEMENTS
            return await self._job(large, partial(_encode, model, outputs, settings.nan_policy))

    async def _job(self, large: bool, work: Callable[[], T]) -> T:
        """Do it here and now, or in a thread when it would hold up the event loop."""
        if not large:
            return work()
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)


def _request_id(scope: Scope) -> str:
    return str(scope.get("state", {}).get("request_id", ""))


def _check_media_type(scope: Scope) -> None:
    """JSON in UTF-8, not compressed; no Content-Type at all is taken for that."""
    encoding = http.header(scope, b"content-encoding")
    if encoding is not None and encoding.strip().lower() not in {b"", b"identity"}:
        raise UnsupportedMediaType(
            "The body has a Content-Encoding.", hint="Send the body uncompressed."
        )
    kind = http.header(scope, b"content-type")
    if not kind:
        return
    if not _MEDIA_TYPE.fullmatch(kind):
        raise UnsupportedMediaType("The Content-Type of the body is not JSON.")
    charset = _CHARSET.search(kind)
    if charset and charset[1].lower() not in {b"utf-8", b"utf8"}:
        raise UnsupportedMediaType("The charset of the body is not UTF-8, which JSON must be.")


def _encode(model: ServedModel, outputs: Tensors, nan_policy: str) -> bytes:
    warnings = _non_finite(outputs)
    if warnings and nan_policy == "error":
        raise NonFiniteOutput(" ".join(warnings))
    payload: dict[str, Any] = {
        "model": {"name": model.name, "version": model.version},
        "outputs": {name: json_.tensor(array) for name, array in outputs.items()},
    }
    how = model.manifest.classification
    if how is not None:
        payload["predictions"] = predictions(outputs[how.output], how)
    if warnings:
        payload["warnings"] = [f"{warning} They are null here." for warning in warnings]
    return json_.encode(payload)


def _non_finite(outputs: Tensors) -> list[str]:
    """A sentence for each output that holds NaN or infinity."""
    sentences = []
    for name, array in outputs.items():
        if array.dtype.kind == "f":
            count = array.size - int(np.isfinite(array).sum())
            if count:
                sentences.append(f"Output {name!r} has {count} numbers that are not finite.")
    return sentences
