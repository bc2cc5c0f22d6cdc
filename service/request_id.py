"""X-Request-ID on every response: the client's own if it is sane, else a new one.

It is in the log lines of a failed request, so that a user's report finds them.
"""

from __future__ import annotations

import os
import re

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.http import header

# Printable, short, and nothing that could break out of a log line.
_SANE = re.compile(rb"[A-Za-z0-9._:/+=@-]{1,128}")


class RequestId:
    """ASGI middleware around the whole application; sets scope["state"]["request_id"]."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = header(scope, b"x-request-id")
        value = given if given and _SANE.fullmatch(given) else os.urandom(16).hex().encode()
        scope.setdefault("state", {})["request_id"] = value.decode()

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), (b"x-request-id", value)]
            await send(message)

        await self._app(scope, receive, send_with_id)
