"""The shortcut to the hot routes, around the framework's middleware.

FastAPI's stack (telemetry, body limits, exit stacks, routing) takes about 20 microseconds of
the event loop for a request that it then only hands on; a small prediction takes 150 in all.
The routes are registered in the application as well, for its 405 and for its documentation.
"""

from __future__ import annotations

import re

from starlette.types import ASGIApp, Receive, Scope, Send

PATHS = (
    "/predict",
    "/models/{name}/predict",
    "/models/{name}/versions/{version}/predict",
)
_PATH = re.compile(r"(?:/models/(?P<name>[^/]+)(?:/versions/(?P<version>[^/]+))?)?/predict")


class HotRoutes:
    """ASGI: POST to one of PATHS goes to `predict`, everything else to `app`."""

    def __init__(self, app: ASGIApp, predict: ASGIApp) -> None:
        self._app = app
        self._predict = predict

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "POST":
            match = _PATH.fullmatch(scope["path"])
            if match:
                scope["path_params"] = match.groupdict()
                await self._predict(scope, receive, send)
                return
        await self._app(scope, receive, send)
