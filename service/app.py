"""The ASGI application: FastAPI for pages and information, plain ASGI for predictions."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any, TypeVar

import orjson
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from service import catalog, health, http, openapi, playground
from service.connections import routes as hot
from service.connections.auth import credentials
from service.connections.gate import Gate
from service.connections.plan import Plans
from service.context import Context
from service.errors import (
    BadRequest,
    ClientError,
    MethodNotAllowed,
    NotFound,
    ServiceError,
    defect,
)
from service.models.registry import Registry
from service.protocols import tfs, v2
from service.protocols.predict import Predict
from service.settings import Settings
from service.telemetry.exposition import CONTENT_TYPE
from service.telemetry.metrics import Metrics

_CORS_REQUEST_HEADERS = [
    "authorization", "content-type", "inference-header-content-length", "traceparent",
    "tracestate", "x-api-key", "x-dtype", "x-request-id", "x-server-timing", "x-shape",
    "x-timeout-ms",
]  # fmt: skip
_CORS_ANSWER_HEADERS = [
    "inference-header-content-length", "retry-after", "server-timing", "x-dtype", "x-request-id",
    "x-shape",
]  # fmt: skip

Endpoint = TypeVar("Endpoint", bound=Callable[..., Awaitable[Response]])

TITLE = "Foldserve"
# In the scope of a request: the path under which another application has mounted this one.
MOUNTED_AT = "foldserve.mounted_at"
_ERRORS: dict[int | str, dict[str, Any]] = {"default": openapi.ERROR_RESPONSE}


def create_app(context: Context) -> Application:
    """The whole application. It neither loads nor closes the registry: the server does."""
    registry, settings = context.registry, context.settings
    app = FastAPI(
        title=TITLE, version=context.version, openapi_url=None, docs_url=None, redoc_url=None,
        redirect_slashes=False,
    )  # fmt: skip
    _add_error_handlers(app)
    predict = Predict(context)
    protocols = {"v1": tfs.routes(context), "v2": v2.routes(context)}
    for path in hot.PATHS:
        app.add_route(path, predict, methods=["POST"], include_in_schema=False)  # type: ignore[arg-type]
    _add_health(app, context)
    _add_models(app, registry)
    _add_documents(app, registry)
    open_paths = playground.PATHS
    if settings.metrics == "open":
        open_paths |= {"/metrics", "/metrics/"}
    if settings.metrics != "off":
        _add_metrics(app, registry, context.metrics)
    routes = hot.HotRoutes(app, predict, protocols)
    gate = Gate(routes, context, open_paths)
    plans = Plans(gate, routes, context, cors=bool(settings.cors_origins))
    return Application(cors(gate, settings), plans)


class Application:
    """ASGI, with `plans` for connections that answer some requests without a task."""

    def __init__(self, app: ASGIApp, plans: Plans) -> None:
        self._app = app
        self.plans = plans

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        return self._app(scope, receive, send)


def cors(app: ASGIApp, settings: Settings) -> ASGIApp:
    """Let pages of the origins in the settings read answers; without any, `app` as it is."""
    origins = [origin.strip() for origin in settings.cors_origins.split(",") if origin.strip()]
    if not origins:
        return app
    return CORSMiddleware(
        app,
        allow_origins=origins,
        allow_methods=["GET", "POST"],
        allow_headers=_CORS_REQUEST_HEADERS,
        expose_headers=_CORS_ANSWER_HEADERS,
    )


def _reply(payload: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(orjson.dumps(payload), status, headers, "application/json")


def _add_health(app: FastAPI, context: Context) -> None:
    @_get(app, "/health/live", "Is the process alive?")
    async def live() -> Response:
        return _reply({"status": "live"})

    @_get(app, "/health/ready", "Should it get traffic?")
    async def ready(request: Request) -> Response:
        # Nobody needs a key for this, and what is served is not everybody's business.
        named = context.access.knows(credentials(request.scope["headers"]))
        return _reply(health.readiness(context.registry, context.lifecycle, named=named))


def _add_metrics(app: FastAPI, registry: Registry, metrics: Metrics) -> None:
    @_get(app, "/metrics", "Counts and times, for Prometheus", PlainTextResponse)
    async def page() -> Response:
        return Response(metrics.page(registry), media_type=CONTENT_TYPE)


def _add_models(app: FastAPI, registry: Registry) -> None:
    @_get(app, "/models", "What is served, and what is not and why", shape=catalog.Models)
    async def models() -> Response:
        return _reply(catalog.models(registry))

    @_get(app, "/models/{name}", "One model: its contract and history", shape=catalog.Model)
    async def model(name: str) -> Response:
        return _reply(catalog.model(registry, name))

    path = "/models/{name}/versions/{version}"

    @_get(app, path, "One version that is served: its contract", shape=catalog.NamedVersion)
    async def version(name: str, version: str) -> Response:
        return _reply(catalog.version(registry, name, version))


def _add_documents(app: FastAPI, registry: Registry) -> None:
    @_get(app, "/", "Where things are")
    async def index(request: Request) -> Response:
        if playground.wanted(request):
            return playground.answer(request, playground.PAGE)
        at = request.scope.get(MOUNTED_AT, "")
        return _reply(
            {
                "status": "alive",  # what KServe's clients of V1 look for
                "name": TITLE,
                "version": app.version,
                "docs": f"{at}/docs",
                "openapi": f"{at}/openapi.json",
                "models": f"{at}/models",
                "predict": [at + path for path in hot.PATHS],
                "health": [f"{at}/health/live", f"{at}/health/ready"],
            },
            headers={"vary": "accept"},
        )

    @_get(app, "/docs", "The interface as a page", shown=False)
    async def docs(request: Request) -> Response:
        return playground.answer(request, playground.DOCS)

    @_get(app, "/playground/{file}", "A file of the page", shown=False)
    async def playground_file(file: str, request: Request) -> Response:
        if file not in playground.FILES:
            raise NotFound(f"The page has no file {file[:64]!r}.")
        return playground.answer(request, file)

    # The document names the models, so it is made again whenever they change.
    cached: tuple[int, dict[str, Any]] = (-1, {})

    def document() -> dict[str, Any]:
        nonlocal cached
        if cached[0] != registry.changes:
            changes = registry.changes
            made = get_openapi(title=app.title, version=app.version, routes=app.routes)
            cached = (changes, openapi.extend(made, registry))
        return cached[1]

    @_get(app, "/openapi.json", "The interface for programs", shown=False)
    async def openapi_document(request: Request) -> Response:
        at = request.scope.get(MOUNTED_AT, "")
        return _reply({**document(), "servers": [{"url": at}]} if at else document())

    app.openapi = document  # type: ignore[method-assign]


def _get(
    app: FastAPI,
    path: str,
    summary: str,
    answer: type[Response] = JSONResponse,
    *,
    shown: bool = True,
    shape: type[BaseModel] | None = None,
) -> Callable[[Endpoint], Endpoint]:
    """A GET route with its HEAD twin, which the documentation need not show.

    Args:
        shape: what the documentation says of the answer.
    """
    responses = _ERRORS if shape is None else {**_ERRORS, 200: {"model": shape}}

    def register(endpoint: Endpoint) -> Endpoint:
        app.add_api_route(
            path,
            endpoint,
            methods=["GET"],
            summary=summary,
            responses=responses,
            response_class=answer,
            include_in_schema=shown,
        )
        app.add_api_route(path, endpoint, methods=["HEAD"], include_in_schema=False)
        return endpoint

    return register


def _add_error_handlers(app: FastAPI) -> None:
    async def failed(request: Request, error: Exception) -> Response:
        ours = _translate(request, error)
        http.exchange(request.scope).error = ours.code
        if isinstance(error, HTTPException):
            return _reply(ours.body(), error.status_code, dict(error.headers or {}))
        return _reply(ours.body(), ours.status, {k.decode(): v.decode() for k, v in ours.headers()})

    for kind in (ServiceError, HTTPException, RequestValidationError, Exception):
        app.add_exception_handler(kind, failed)


def _translate(request: Request, error: Exception) -> ServiceError:
    """The framework's own errors in our words; the path is cut, it may be a megabyte long."""
    if isinstance(error, ServiceError):
        return error
    if isinstance(error, RequestValidationError):
        where = ".".join(str(part) for part in error.errors()[0]["loc"])
        return BadRequest(f"The request is not valid: {where}.")
    if not isinstance(error, HTTPException):
        return defect()  # the server logs the exception itself, with its traceback
    path = (request.scope.get(MOUNTED_AT, "") + request.url.path)[:128]
    if error.status_code == HTTPStatus.NOT_FOUND:
        return NotFound(f"There is no route {path!r}.")
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        return MethodNotAllowed(f"{path!r} does not allow {request.method}.")
    return ClientError(str(error.detail))
