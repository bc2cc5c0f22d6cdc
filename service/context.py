"""What everything that answers requests shares: one for a process, whatever protocols it speaks."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from service import health
from service.budget import Budget
from service.connections.auth import Access
from service.health import Lifecycle
from service.models.registry import Registry
from service.protocols.response_cache import Recall, ResponseCache
from service.settings import Settings
from service.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from service.connections.gate import Observer

# The pool is small because a decoded body takes several times its size in memory.
_LARGE_JOBS_AT_ONCE = 2


class Context:
    """`pool`: for work that would hold up the event loop.

    Args:
        settings: limits and policies.
        access: the keys; by default there are none: anyone may predict, and no one change anything.
        observers: told of every request after its answer.
    """

    def __init__(
        self,
        registry: Registry,
        settings: Settings,
        access: Access | None = None,
        version: str = "0",
        metrics: Metrics | None = None,
        observers: Sequence[Observer] = (),
    ) -> None:
        self.registry = registry
        self.settings = settings
        self.access = access or Access()
        self.version = version
        self.metrics = metrics or Metrics(version)
        self.observers = observers
        self.lifecycle = lifecycle = Lifecycle(every_model=settings.ready_when == "all")
        self.budget = budget = Budget(settings.budget_bytes)
        self.pool = ThreadPoolExecutor(_LARGE_JOBS_AT_ONCE, thread_name_prefix="codec")
        self.response_cache: ResponseCache | None = None
        if settings.response_cache_bytes:
            self.response_cache = self.metrics.response_cache = ResponseCache(
                settings.response_cache_bytes, registry, self.metrics.tallies.looked_up
            )
        self.metrics.ready = lambda: not health.obstacles(registry, lifecycle)
        self.metrics.held_bytes, self.metrics.budget_bytes = lambda: budget.held, budget.limit

    def recall(self, *facts: object) -> Recall | None:
        """How answers to requests with these facts in their heads are found; None to keep none."""
        return None if self.response_cache is None else Recall(self.response_cache, *facts)
