"""The process: bind, load, serve, drain.

bind      before loading, so that a busy port is known at once
load      in a thread, while the rest is imported and health is answered
serve     uvicorn on uvloop and httptools
drain     SIGTERM or Ctrl-C: not ready, then no new connections, then the requests under
          way, then the owners; each with its own deadline, exit code 0
"""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import TYPE_CHECKING, Literal

import uvicorn

from service import assembly, cpu, faults, listen
from service.banner import banner, url_of
from service.connections.auth import Access
from service.context import Context
from service.device import DeviceUnavailable
from service.http import NOSNIFF
from service.listen import CannotStart
from service.models import subnormals
from service.models.heap import TrimWhenIdle, give_back, map_large
from service.settings import Settings
from service.telemetry.pages import SharedPages
from service.worker import Worker

if TYPE_CHECKING:
    from service.protocols.grpc_server import GrpcServer
    from service.tls.certificates import Certificates

logger = logging.getLogger("foldserve")

_TICKS_PER_REFRESH = 10  # of 0.1 s
_LAST = (b"connection", b"close")
# How long a thread that decodes or encodes keeps the interpreter from the event loop that wants
# it; Python's own 5 ms come with every turn of the loop, and an answer takes several.
_SWITCH_S = 1e-3


class Server(uvicorn.Server):
    """uvicorn's server, but it is not ready any more before it stops, and a signal is no error."""

    def __init__(
        self,
        config: uvicorn.Config,
        context: Context,
        grpc: GrpcServer | None = None,
        certificates: Certificates | None = None,
    ) -> None:
        super().__init__(config)
        self._lifecycle = context.lifecycle
        self._files: list[Access | Certificates] = [context.access]
        if certificates is not None:
            self._files.append(certificates)
        self._reread = False
        self.each_second: Callable[[], None] = lambda: None
        self.leaving: Callable[[], None] = lambda: None
        self._delay_s = context.settings.drain_delay_ms / 1000
        self._exit_at = float("inf")
        self._grpc = grpc
        self.failure: Exception | None = None  # why it could not start
        self.up = threading.Event()  # from here on a signal is handled as below

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self._grpc is not None:
            try:
                await self._grpc.start()
            except Exception as error:  # noqa: BLE001  told by `serve`, on the main thread
                self.failure = error
                self.should_exit = True
        self.up.set()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Both front ends at the same time, each with the same deadline."""
        self.leaving()
        grace_s = self.config.timeout_graceful_shutdown or 0
        stopping = self._grpc.stop(0 if self.force_exit else grace_s) if self._grpc else None
        await asyncio.gather(super().shutdown(sockets), *([stopping] if stopping else []))

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002
        """First signal: drain. Second: leave at once."""
        if self._lifecycle.draining:
            self.should_exit = self.force_exit = True
            return
        self._lifecycle.draining = True
        self._exit_at = time.monotonic() + self._delay_s

    def handle_hang_up(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002
        """SIGHUP: read the files with keys and certificates again."""
        self._reread = True

    def _look_around(self, *, force: bool) -> None:
        """What is done once a second; if a part of it fails, the others are done all the same."""
        for each in self._files:
            with faults.contained(logger, "keys or certificates could not be read again"):
                each.refresh(force=force)
        with faults.contained(logger, "the duties of each second could not be done"):
            self.each_second()
        now = time.monotonic()
        for connection in list(self.server_state.connections):
            if check_time := getattr(connection, "check_time", None):
                with faults.contained(logger, "a connection could not be looked at"):
                    check_time(now)

    async def on_tick(self, counter: int) -> bool:
        if self._reread or counter % _TICKS_PER_REFRESH == 0:
            force, self._reread = self._reread, False
            self._look_around(force=force)
        if time.monotonic() >= self._exit_at:
            self.should_exit = True
        if self._lifecycle.draining and _LAST not in self.config.encoded_headers:
            # A client that keeps its connection is told to close it with its next answer.
            self.config.encoded_headers.append(_LAST)
            counter = 0  # uvicorn then makes the headers of all answers again
        return await super().on_tick(counter)


def serve(settings: Settings, version: str, worker: Worker | None = None) -> int:
    """Run until a signal; the exit code is returned.

    Args:
        worker: which of several processes this is, None for the only one.

    Raises:
        CannotStart: no repository, no port, no keys where keys were asked for.
        DeviceUnavailable: --device cuda without CUDA.
    """
    ways = 1 if settings.grpc_port is None else 2
    assembly.allow_files(ways * settings.max_connections)
    map_large()
    subnormals.flush()  # before there is another session, and before there are other threads
    sys.setswitchinterval(_SWITCH_S)
    cpus = cpu.available()
    count = worker.count if worker else 1
    threads = max(cpus.threads // count, settings.threads or 1)
    port = worker.port if worker else settings.port
    # Where others serve already, connections must not come to a worker that still loads.
    late = worker is not None and not worker.first
    listener = listen.bind(settings.host, port, shared=worker is not None, listening=not late)
    parts = assembly.build(
        settings, version, threads=threads, alone=count == 1,
        shared=SharedPages(worker.pages, worker.index) if worker else None,
    )  # fmt: skip
    context = parts.context
    registry, metrics, budget = context.registry, context.metrics, context.budget
    certificates = assembly.certificates(context)
    grpc = assembly.grpc(context, shared=count > 1, certificates=certificates)
    http: type[asyncio.Protocol] | Literal["h11"] = "h11"
    if _has("httptools"):
        http = assembly.protocol(context, certificates)
    elif certificates is not None:
        raise CannotStart("--tls-certificate needs the package httptools: pip install httptools.")
    config = uvicorn.Config(
        parts.app,
        loop="uvloop" if _has("uvloop") else "asyncio",
        http=http,
        limit_concurrency=None if _has("httptools") else settings.max_connections,
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        headers=[(NOSNIFF[0].decode(), NOSNIFF[1].decode())],
        timeout_keep_alive=settings.keep_alive_timeout_ms / 1000,  # type: ignore[arg-type]
        timeout_graceful_shutdown=settings.drain_timeout_ms / 1000,  # type: ignore[arg-type]
    )
    server = Server(config, context, grpc, certificates)
    trim = TrimWhenIdle()

    def each_second() -> None:
        if worker:
            worker.beat()
        metrics.share(registry)
        trim.second(budget.held, metrics.in_flight, budget.most)
        budget.most = budget.held

    server.each_second = each_second
    if worker:
        server.leaving = worker.leaving
    metrics.connections = lambda: len(server.server_state.connections)
    if hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, server.handle_hang_up)
    failure: list[DeviceUnavailable] = []

    def load() -> None:
        try:
            registry.load()
            give_back()  # loading has used several times the memory that is needed afterwards
        except DeviceUnavailable as error:
            failure.append(error)
            server.should_exit = True

    def begin() -> None:
        if not late:
            load()
        if failure:
            return
        server.up.wait()
        if server.failure is not None:
            return
        threads_line = f"{settings.threads or threads} for each model ({cpus})"
        if count > 1:
            threads_line += f", in each of {count} workers"
        if not late:
            grpc_url = f"{settings.host}:{grpc.port}" if grpc else None
            if grpc_url and certificates is not None:
                grpc_url += " (TLS)"
            url = url_of(listener, secure=certificates is not None)
            _say(banner(registry, parts.choice, url, threads_line, version, grpc_url))
        if worker:
            worker.serving()
        if settings.watch_interval_ms:
            registry.watch(settings.watch_interval_ms / 1000)

    if late:
        load()
        if failure:
            raise failure[0]
    # The objects of now stay: a full collection would stop every thread for 20 ms to look at them.
    gc.freeze()
    loader = threading.Thread(target=begin, name="load", daemon=True)
    loader.start()
    server.run(sockets=listen.several(listener))
    clean = parts.close()
    loader.join(assembly.CLOSE_S)
    if failure:
        raise failure[0]
    if server.failure is not None:
        raise CannotStart(str(server.failure)) from server.failure
    if not clean:
        logger.warning("A model was still running at the deadline; its answer is lost.")
        _leave_at_once(0)
    if loader.is_alive():  # a model is still being loaded
        _leave_at_once(0)
    return 0


def _has(module: str) -> bool:
    from importlib.util import find_spec

    return find_spec(module) is not None


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _leave_at_once(code: int) -> None:
    """Skip the interpreter's clean-up, which would unload the runtime while a model runs."""
    import os

    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
