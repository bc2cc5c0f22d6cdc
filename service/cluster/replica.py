"""One replica: the whole service as an ASGI application, with its start and end as `lifespan`.

The plain server's connection limits belong to a listening socket, and Ray's proxies have that;
everything behind it is the same: gate, keys, protocols, deadlines, queues, batchers, metrics.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from starlette.types import Message, Receive, Scope, Send

from service import assembly, cpu, device, faults, health
from service.app import create_app
from service.budget import Budget
from service.cluster.pages import NodePages
from service.connections.auth import Access, KeysUnusable
from service.health import Lifecycle
from service.listen import CannotStart
from service.settings import Settings
from service.telemetry.metrics import Metrics

logger = logging.getLogger("foldserve")

_CLOSE_S = 1.0
_TICK_S = 1.0
# As the plain server sets it on every answer; and the proxies know by it whose answer it is.
_NOSNIFF = (b"x-content-type-options", b"nosniff")


class Served:
    """ASGI. The constructor returns once the models are loaded.

    Args:
        values: all settings, by name.
        version: of the program.
        session: a name that the replicas of one cluster share.

    Raises:
        CannotStart: no repository, or no keys where keys were asked for.
        DeviceUnavailable: CUDA was required and did not start.
    """

    def __init__(self, values: Mapping[str, Any], version: str, session: str) -> None:
        self._settings = settings = Settings(**values)
        source = assembly.repository(settings)
        try:
            self._access = Access.of(settings.api_keys_file, settings.admin_keys_file)
        except KeysUnusable as error:
            raise CannotStart(str(error)) from None
        choice = device.choose(
            settings.device,
            device_id=settings.cuda_device_id,
            memory_limit_bytes=settings.cuda_memory_limit_bytes,
        )
        self._lifecycle = Lifecycle(every_model=settings.ready_when == "all")
        self._metrics = Metrics(version, NodePages(session, os.getpid()))
        self._registry = assembly.open_registry(
            settings,
            source,
            self._metrics,
            choice,
            threads=min(settings.cpus_per_replica, cpu.available().threads),
            alone=settings.max_replicas == 1,
        )
        self._observers = assembly.observers(settings, version)
        self._application = create_app(
            self._registry,
            settings,
            self._lifecycle,
            version,
            self._access,
            self._metrics,
            self._observers,
            Budget(settings.budget_bytes),
        )
        self._registry.load()

    def obstacles(self) -> list[str]:
        """Why the replica should get no requests, as sentences."""
        return health.obstacles(self._registry, self._lifecycle)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return

        async def send_on(message: Message) -> None:
            if message["type"] == "http.response.start":
                # The proxy puts the id on every answer, its own ones as well.
                headers = [pair for pair in message["headers"] if pair[0] != b"x-request-id"]
                message["headers"] = [*headers, _NOSNIFF]
            await send(message)

        await self._application(scope, receive, send_on)

    async def _live(self, receive: Receive, send: Send) -> None:
        """From the start of the replica to its end, which Ray begins once it is drained."""
        await receive()
        ticking = asyncio.create_task(self._tick())
        if self._settings.watch_interval_ms:
            interval_s = self._settings.watch_interval_ms / 1000
            watch = threading.Thread(target=self._registry.watch, args=(interval_s,), daemon=True)
            watch.start()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        self._lifecycle.draining = True
        ticking.cancel()
        with suppress(asyncio.CancelledError):
            await ticking
        await asyncio.to_thread(self._registry.close, _CLOSE_S)
        for observer in self._observers:
            observer.close()
        await send({"type": "lifespan.shutdown.complete"})

    async def _tick(self) -> None:
        while True:
            with faults.contained(logger, "the duties of each second could not be done"):
                self._access.refresh()
                self._metrics.share(self._registry)
            await asyncio.sleep(_TICK_S)
