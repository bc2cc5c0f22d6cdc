"""The shortcut to the hot routes, around the framework's middleware.

FastAPI's stack (telemetry, body limits, exit stacks, routing) takes about 20 microseconds of
the event loop for a request that it then only hands on; a small prediction takes 60 in all.
The routes are registered in the application as well, for its 405 and for its documentation.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

from service import http
from service.protocols.endpoint import Endpoint
from service.protocols.routes import Routes

PATHS = (
    "/predict",
    "/models/{name}/predict",
    "/models/{name}/versions/{version}/predict",
)
_PATH = re.compile(r"(?:/models/(?P<name>[^/]+)(?:/versions/(?P<version>[^/]+))?)?/predict/?")
# Where a slash at the end says nothing; the links of a page would lead elsewhere from behind one.
_SLASHED = frozenset({"predict", "models", "health", "metrics"})


class HotRoutes:
    """ASGI: POST to one of PATHS goes to `predict`, everything else to `app`.

    Args:
        app: what answers everything else.
        predict: the prediction route.
        protocols: the other protocols by the first segment of their paths, such as "v2".
    """

    def __init__(self, app: ASGIApp, predict: Endpoint, protocols: Mapping[str, Routes]) -> None:
        self._app = app
        self._predict = predict
        self._protocols = protocols

    def find(self, path: str) -> tuple[Endpoint, dict[str, Any], str] | None:
        """The endpoint of a POST to `path`, the parameters of the path and its template."""
        match = _PATH.fullmatch(path)
        if match:
            return self._predict, match.groupdict(), PATHS[match.lastindex or 0]
        protocol = self._protocols.get(path[1:].partition("/")[0])
        return None if protocol is None else protocol.find(path)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            path = scope["path"]
            if scope["method"] == "POST":
                match = _PATH.fullmatch(path)
                if match:
                    scope["path_params"] = match.groupdict()
                    http.exchange(scope).route = PATHS[match.lastindex or 0]
                    await self._predict(scope, receive, send)
                    return
            protocol = self._protocols.get(path[1:].partition("/")[0])
            if protocol is not None:
                await protocol(scope, receive, send)
                return
            if path.endswith("/") and path[1:].partition("/")[0] in _SLASHED:
                scope["path"] = path[:-1]
        await self._app(scope, receive, send)
