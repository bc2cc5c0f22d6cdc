"""All the paths of one protocol, which owns everything under its prefix.

An unknown path below the prefix, and a known one with another method, are errors in the
protocol's own shape, so that its clients can read them. A slash at the end of a path says nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import orjson
from starlette.types import Message, Receive, Scope, Send

from service import http
from service.context import Context
from service.errors import MethodNotAllowed, NotFound, ServiceError
from service.protocols import shapes
from service.protocols.call import Reply
from service.protocols.endpoint import Endpoint

_SHOWN_PATH = 128


class Route(NamedTuple):
    """`path`: a template such as /v2/models/{name}/infer; each parameter is one segment."""

    method: str
    path: str
    endpoint: Endpoint


class Routes:
    """ASGI: hands a request to the endpoint of its path and method.

    Args:
        routes: tried in order; GET serves HEAD as well.
    """

    def __init__(self, routes: Sequence[Route]) -> None:
        self.templates = [(route.method, route.path) for route in routes]
        self._routes = [
            (compiled(route.path), route.method, route.endpoint, route.path) for route in routes
        ]

    def find(self, path: str) -> tuple[Endpoint, dict[str, Any], str] | None:
        """The endpoint of a POST to `path`, the parameters of the path and its template."""
        path = path.removesuffix("/")
        for pattern, served, endpoint, template in self._routes:
            match = pattern.fullmatch(path) if served == "POST" else None
            if match is not None:
                return endpoint, match.groupdict(), template
        return None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path, method = scope["path"], scope["method"]
        allowed = []
        for pattern, served, endpoint, template in self._routes:
            match = pattern.fullmatch(path.removesuffix("/"))
            if match is None:
                continue
            if method == served or (method == "HEAD" and served == "GET"):
                scope["path_params"] = match.groupdict()
                http.exchange(scope).route = template
                await endpoint(scope, receive, without_body(send) if method == "HEAD" else send)
                return
            allowed.append(served)
        error: ServiceError
        if allowed:
            error = MethodNotAllowed(f"{path[:_SHOWN_PATH]!r} does not allow {method[:16]}.")
        else:
            error = NotFound(f"There is no route {path[:_SHOWN_PATH]!r}.")
        http.exchange(scope).error = error.code
        headers = [(b"allow", ", ".join(sorted(set(allowed))).encode())] if allowed else []
        await http.respond(send, error.status, shapes.one_text(error), headers)


class OneText(Endpoint):
    """An endpoint of a protocol whose errors are {"error": "<sentence>"}."""

    error_body = staticmethod(shapes.one_text)


class Fixed(OneText):
    """A route that reads nothing but its path.

    Args:
        told: what it answers, in plain JSON types; it is given the context, and the parameters of
            the path by name. It may raise a ServiceError.
    """

    def __init__(self, context: Context, told: Callable[..., object]) -> None:
        super().__init__(context)
        self._told = told

    async def answer(
        self,
        scope: Scope,
        receive: Receive,  # noqa: ARG002
        hang_up: http.CancelOnHangUp,  # noqa: ARG002
    ) -> Reply:
        return Reply(orjson.dumps(self._told(self.context, **scope["path_params"])))


def compiled(template: str) -> re.Pattern[str]:
    """A template as a pattern: each {parameter} is one segment, up to a slash or a colon."""
    return re.compile(re.sub(r"\\{(\w+)\\}", r"(?P<\1>[^/:]+)", re.escape(template)))


def without_body(send: Send) -> Send:
    """For HEAD: the headers of GET, and no body."""

    async def quiet(message: Message) -> None:
        if message["type"] == "http.response.body":
            message = {**message, "body": b""}
        await send(message)

    return quiet
