"""One replica: the whole service as an ASGI application, with its start and end as `lifespan`.

The plain server's connection limits belong to a listening socket, and Ray's proxies have that;
everything behind it is the same: gate, keys, protocols, deadlines, queues, batchers, metrics.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from starlette.types import Receive, Scope, Send

from service import assembly, cpu, faults, health, http
from service.cluster.pages import NodePages
from service.models import subnormals
from service.settings import Settings

logger = logging.getLogger("foldserve")

_TICK_S = 1.0


class Served:
    """ASGI. The constructor returns once the models are loaded.

    Args:
        session: a name that the replicas of one cluster share.

    Raises:
        CannotStart: no repository, or no keys where keys were asked for.
        DeviceUnavailable: CUDA was required and did not start.
    """

    def __init__(self, values: Mapping[str, Any], version: str, session: str) -> None:
        subnormals.flush()
        settings = Settings(**values)
        self._parts = assembly.build(
            settings,
            version,
            threads=min(settings.cpus_per_replica, cpu.available().threads),
            alone=settings.max_replicas == 1,
            shared=NodePages(session, os.getpid()),
        )
        self._context = self._parts.context
        self._context.registry.load()

    def obstacles(self) -> list[str]:
        """Why the replica should get no requests, as sentences."""
        return health.obstacles(self._context.registry, self._context.lifecycle)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        # The proxies know by nosniff whose answer it is; the id they put on every one themselves.
        send_on = http.adding(send, [http.NOSNIFF], in_place_of=b"x-request-id")
        await self._parts.app(scope, receive, send_on)

    async def _live(self, receive: Receive, send: Send) -> None:
        """From the start of the replica to its end, which Ray begins once it is drained."""
        await receive()
        ticking = asyncio.create_task(self._tick())
        self._parts.watch()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        self._context.lifecycle.draining = True
        ticking.cancel()
        with suppress(asyncio.CancelledError):
            await ticking
        await asyncio.to_thread(self._parts.close)
        await send({"type": "lifespan.shutdown.complete"})

    async def _tick(self) -> None:
        while True:
            with faults.contained(logger, "the duties of each second could not be done"):
                self._context.access.refresh()
                self._context.metrics.share(self._context.registry)
            await asyncio.sleep(_TICK_S)
