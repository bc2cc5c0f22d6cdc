"""The gate: what every request passes before any route, whichever protocol it speaks."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

from service import http
from service.auth import OPEN_PATHS, Access, credentials
from service.errors import ServiceError
from service.protocols import shapes


class Gate:
    """ASGI: lets a request through if its key is good, answers it otherwise.

    A route that changes the server also asks
    `access.require_admin(credentials(scope["headers"]))`.
    """

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        access = self._access
        if access.closed and scope["type"] == "http" and scope["path"] not in OPEN_PATHS:
            try:
                access.require(credentials(scope["headers"]))
            except ServiceError as error:
                await http.respond_error(
                    send, receive, error, shapes.error_body(scope["path"], error)
                )
                return
        await self._app(scope, receive, send)
