"""Counts and times of all requests, for GET /metrics; `families` has how they are shown.

A request costs a dictionary entry and a few additions after its answer was sent. All of it
happens on the event loop, but for the batches, which each runner's thread counts for itself.
Labels come from the server alone (its routes, its models, its error codes), so that no client
can make their number grow.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from operator import attrgetter
from typing import TYPE_CHECKING

from service.batching.limits import Ran
from service.errors import ServiceError
from service.exchange import Exchange
from service.models.registry import Registry
from service.telemetry import families
from service.telemetry.exposition import Exposition, Histogram, merge
from service.telemetry.pages import SharedPages
from service.telemetry.tally import Tallies

if TYPE_CHECKING:
    from service.protocols.response_cache import ResponseCache

SECONDS = (
    25e-6, 50e-6, 1e-4, 25e-5, 5e-4, 1e-3, 25e-4, 5e-3, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0,
    2.5, 5.0, 10.0, 30.0,
)  # fmt: skip
ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)

_KIND = attrgetter("route", "model", "version", "status", "error")

# What is read again when its files change.
RELOADED = ("model", "keys", "certificate")
STAGES = ("decode", "queue", "batch_wait", "compute", "encode")


class _Batches:
    """Rows of the batches of one model; each runner's thread has a histogram of its own."""

    def __init__(self) -> None:
        self._by_thread: dict[int, Histogram] = {}

    def count(self, ran: Ran) -> None:
        thread = threading.get_ident()
        rows = self._by_thread.get(thread)
        if rows is None:
            rows = self._by_thread[thread] = Histogram(ROWS)
        rows.observe(ran.rows)

    def all(self) -> Histogram:
        total = Histogram(ROWS)
        for rows in list(self._by_thread.values()):
            total.add(rows)
        return total


class Metrics:
    """Everything that is counted in this process.

    Args:
        shared: where the other workers' pages are, if there are several.
    """

    def __init__(self, version: str, shared: SharedPages | None = None) -> None:
        self.shared = shared
        self.tallies = Tallies(shared)
        self.in_flight = 0
        self.ready: Callable[[], bool] = lambda: False
        self.connections: Callable[[], int] = lambda: 0
        self.held_bytes: Callable[[], int] = lambda: 0
        self.budget_bytes = 0
        self.certificate_expires: Callable[[], float] | None = None
        self.response_cache: ResponseCache | None = None
        self.version = version
        self.started = time.time()
        self.requests: dict[tuple[str, str, int], int] = {}
        self.seconds: dict[tuple[str, str], Histogram] = {}
        self.stages: dict[str, tuple[Histogram, ...]] = {}
        self.errors: dict[str, int] = {}
        self.failed_reloads = dict.fromkeys(RELOADED, 0)
        self.batch_rows: dict[str, _Batches] = {}

    def refused(self, code: str) -> None:
        """Count a refusal by its error code."""
        self.errors[code] = self.errors.get(code, 0) + 1

    def refused_early(self, route: str, model: str, version: int, error: ServiceError) -> None:
        """Count a request that its connection refused, as if its route had done so."""
        self.tallies.refused(model, version)
        key = (route, model, error.status)
        self.requests[key] = self.requests.get(key, 0) + 1
        self.refused(error.code)

    def reload_failed(self, what: str) -> None:
        """Count a change on disk that could not be used; what there was is used on."""
        self.failed_reloads[what] = self.failed_reloads.get(what, 0) + 1

    def batches(self, model: str, version: int) -> Callable[[Ran], object]:
        """The observer for the batcher of a version that was loaded just now."""
        rows = self.batch_rows.setdefault(model, _Batches())
        tally = self.tallies.begin(model, version)

        def observe(ran: Ran) -> None:
            rows.count(ran)
            tally.ran(ran)

        return observe

    def finish(self, exchange: Exchange) -> None:
        """Count a request that has been answered or given up."""
        self.finish_all([exchange])

    def finish_all(self, exchanges: Iterable[Exchange]) -> None:
        """`finish` for requests that have ended at about the same time, mostly alike."""
        for (route, model, version, status, error), alike in groupby(exchanges, _KIND):
            same = list(alike)
            key = (route, model, status)
            self.requests[key] = self.requests.get(key, 0) + len(same)
            if error:
                self.errors[error] = self.errors.get(error, 0) + len(same)
            seconds = self.seconds.get((route, model))
            if seconds is None:
                seconds = self.seconds[route, model] = Histogram(SECONDS)
            took_s = seconds.observe_all([each.finished - each.started for each in same])
            if model:
                run = [each for each in same if each.batch is not None]
                spans = self._count_stages(model, run) if run else ()
                self.tallies.add(model, version, same, took_s, len(run), spans)

    def _count_stages(self, model: str, run: Sequence[Exchange]) -> list[float]:
        """Requests that were run: the seconds of each stage in all, as in STAGES."""
        stages = self.stages.get(model)
        if stages is None:
            stages = self.stages[model] = tuple(Histogram(SECONDS) for _ in STAGES)
        seen: tuple[list[float], ...] = ([], [], [], [], [])
        decode, queue, batch_wait, compute, encode = seen
        batch = None
        for each in run:
            if each.batch is not batch:
                batch = each.batch
                assert batch is not None
                idle, started, ended = batch.free, batch.started, batch.ended
            decoded = each.decoded
            free = idle if idle > decoded else decoded
            ran = started if started > free else free
            decode.append(decoded - each.read)
            queue.append(free - decoded)
            batch_wait.append(ran - free)
            compute.append(ended - ran)
            if each.encoded:
                encode.append(each.encoded - each.answered)
        return [one.observe_all(values) for one, values in zip(stages, seen, strict=True)]

    def page(self, registry: Registry) -> str:
        """What GET /metrics answers: this process, and the other workers."""
        own = self.render(registry)
        return own if self.shared is None else merge([own, *self.shared.others()])

    def share(self, registry: Registry) -> None:
        """Let the other workers show this one's page; to be called once a second."""
        if self.shared is not None:
            self.shared.publish(self.render(registry))
            self.tallies.share()

    def render(self, registry: Registry) -> str:
        """This process alone."""
        page = Exposition(self.shared.labels if self.shared else None)
        return families.render(page, self, registry)
