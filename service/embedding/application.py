"""The service inside of another ASGI application.

    ml = foldserve.app("models")

    app.mount("/ml", ml)                                  behind the middleware of the application
    app.include_router(ml.router, prefix="/ml", ...)      and behind dependencies as well

Nobody tells a mounted application of the start and the end of the one around it (Starlette runs the
lifespan of the outermost only). So there are three ways to start:

    FastAPI(lifespan=ml.lifespan)     before the first request, and it ends with the application;
                                      or `async with ml.lifespan():` in a lifespan of one's own
    include_router(ml.router)         the same by itself: FastAPI joins the lifespans of routers
    neither                           at the first request, which waits; it ends with the process,
                                      or when nobody refers to it any more

It may be started again after its end, which tests do.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import weakref
from collections.abc import AsyncIterator, Callable, MutableMapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from service import assembly, cpu, http, source
from service.app import MOUNTED_AT
from service.device import DeviceUnavailable
from service.embedding.running import Running
from service.errors import ModelUnavailable
from service.listen import CannotStart
from service.protocols import shapes
from service.settings import Settings
from service.settings_read import SettingsError, given
from service.version import program_version

logger = logging.getLogger("foldserve")

METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
# What the ASGI specification says of a request; the rest of a scope is the outer application's.
_OF_ASGI = (
    "type", "asgi", "http_version", "method", "scheme", "raw_path", "query_string", "headers",
    "client", "server", "extensions", "subprotocols",
)  # fmt: skip
# Beginnings of the settings that are about a process, its port and its log.
_OF_A_SERVER = (
    "host", "port", "grpc_", "engine", "ray_", "min_replicas", "max_replicas", "cpus_per",
    "gpus_per", "target_ongoing", "scale_window", "upscale", "downscale", "surge_",
    "worker_timeout", "header_timeout", "keep_alive", "max_header", "max_connections", "drain_",
    "log_", "tls_",
)  # fmt: skip


def app(models: str | Path = "models", **settings: Any) -> Embedded:
    """The service for another application to mount.

    Args:
        models: the folder of models/<name>/<version>/, or the address of one.
        settings: any of the command line's that is not about a process, a port or a log, by its
            name with underscores: `api_keys_file`, `watch_interval_ms`, `max_body_bytes`, ... They
            are all there is: no environment variable is read. `workers` is how many processes your
            server runs, which share the CPUs.

    Raises:
        SettingsError: one is unknown, cannot be used, or belongs to a server; a ValueError.
        CannotStart: the folder does not exist, or keys for signatures cannot be used.
    """
    for name in settings:
        if name.startswith(_OF_A_SERVER) and name in Settings.model_fields:
            raise SettingsError(
                f"{name} is a matter of the server that runs your application: set it there."
            )
    found = given({"models": models, **settings})
    if isinstance(found.models, Path):
        found = found.model_copy(update={"models": found.models.absolute()})
    source.check(found)
    return Embedded(found, program_version())


class Embedded:
    """ASGI, under any path. `router`: the same for FastAPI's include_router."""

    def __init__(self, settings: Settings, version: str) -> None:
        self._settings = settings
        self._version = version
        self._changing = threading.Lock()
        self._running: Running | None = None
        self._lifespans = 0
        self._close: Callable[[], object] = lambda: None

    @asynccontextmanager
    async def lifespan(self, app: object = None) -> AsyncIterator[None]:  # noqa: ARG002  FastAPI's
        """From the load of the models to their end; for FastAPI(lifespan=...), or in one's own.

        Raises:
            CannotStart, DeviceUnavailable: it cannot start, with the reason. A model that cannot be
                served is no such reason: GET models and health/ready tell of it.
        """
        await asyncio.to_thread(self._enter)
        try:
            yield
        finally:
            await asyncio.to_thread(self._leave)

    @property
    def router(self) -> APIRouter:
        """A router that hands on everything under its prefix, once its dependencies are content."""
        made = APIRouter(lifespan=self.lifespan)
        made.add_api_route("/{below:path}", self._hand_on, methods=METHODS, include_in_schema=False)
        return made

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":  # it is the outermost itself
            await self._live(receive, send)
            return
        inside = _inside(scope)
        send_on = http.adding(send, [http.NOSNIFF])
        running = self._running
        if running is None:
            try:
                running = await asyncio.to_thread(self._begin)
            except (CannotStart, DeviceUnavailable) as error:
                logger.error("the models cannot be served: %s", error)
                refusal = ModelUnavailable("The service could not start; its log tells why.")
                body = shapes.error_body(inside["path"], refusal)
                await http.respond(send_on, refusal.status, body, refusal.headers())
                return
        await running.app(inside, receive, send_on)

    async def _hand_on(self, request: Request, response: Response) -> Response:
        """`response` has the headers that dependencies have set."""
        path = request.scope["path"]
        prefix = path[: len(path) - len(request.path_params["below"])].rstrip("/")
        return _HandedOn(self, prefix, response.headers.raw)

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        try:
            async with self.lifespan():
                await send({"type": "lifespan.startup.complete"})
                await receive()
        except (CannotStart, DeviceUnavailable) as error:
            await send({"type": "lifespan.startup.failed", "message": str(error)})
        else:
            await send({"type": "lifespan.shutdown.complete"})

    def _parts(self) -> assembly.Parts:
        settings = self._settings
        threads = max(cpu.available().threads // settings.workers, settings.threads or 1)
        return assembly.build(settings, self._version, threads=threads, alone=settings.workers == 1)

    def _enter(self) -> None:
        self._begin(lifespan=True)

    def _begin(self, *, lifespan: bool = False) -> Running:
        """Start it, unless it runs; whoever comes meanwhile waits."""
        with self._changing:
            if self._running is None:
                self._running = Running(self._parts())
                # Without a lifespan it ends when nobody has it any more, or with the process.
                self._close = weakref.finalize(self, self._running.close)
            self._lifespans += lifespan
            return self._running

    def _leave(self) -> None:
        with self._changing:
            self._lifespans -= 1
            if not self._lifespans:
                self._running = None
                self._close()


class _HandedOn(Response):
    """The answer of a route: whatever the service answers, with the headers of the dependencies."""

    def __init__(self, app: ASGIApp, prefix: str, added: http.Headers) -> None:
        super().__init__()
        self._app = app
        self._prefix = prefix
        self._added = added

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        send_on = http.adding(send, self._added)
        await self._app({**scope, "root_path": self._prefix}, receive, send_on)
        if self.background is not None:
            await self.background()


def _inside(scope: Scope) -> MutableMapping[str, Any]:
    """The scope of a request as the service would have it on a port of its own."""
    root, path = scope.get("root_path", "").rstrip("/"), scope["path"]
    if root and (path == root or path.startswith(f"{root}/")):
        path = path[len(root) :] or "/"
    kept = {key: scope[key] for key in _OF_ASGI if key in scope}
    return {**kept, "path": path, "root_path": "", "state": {}, MOUNTED_AT: root}
