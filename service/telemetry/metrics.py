"""What GET /metrics tells: counts and times of all requests, and the state of the models.

A request costs a dictionary entry and a few additions after its answer was sent. All of it
happens on the event loop, but for the batches, which each runner's thread counts for itself.
Labels come from the server alone (its routes, its models, its error codes), so that no client
can make their number grow.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING

from service.batching.limits import Ran
from service.errors import ServiceError
from service.exchange import Exchange
from service.models.registry import Registry
from service.telemetry import replaced
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
        version: of the program.
        shared: where the other workers' pages are, if there are several.
    """

    def __init__(self, version: str, shared: SharedPages | None = None) -> None:
        self._shared = shared
        self.tallies = Tallies(shared)
        self.in_flight = 0
        self.ready: Callable[[], bool] = lambda: False
        self.connections: Callable[[], int] = lambda: 0
        self.held_bytes: Callable[[], int] = lambda: 0
        self.budget_bytes = 0
        self.certificate_expires: Callable[[], float] | None = None
        self.response_cache: ResponseCache | None = None
        self._version = version
        self._started = time.time()
        self._requests: dict[tuple[str, str, int], int] = {}
        self._seconds: dict[tuple[str, str], Histogram] = {}
        self._stages: dict[str, tuple[Histogram, ...]] = {}
        self._refused: dict[str, int] = {}
        self._failed_reloads = dict.fromkeys(RELOADED, 0)
        self._batches: dict[str, _Batches] = {}

    def refused(self, code: str) -> None:
        """Count a refusal by its error code."""
        self._refused[code] = self._refused.get(code, 0) + 1

    def refused_early(self, route: str, model: str, version: int, error: ServiceError) -> None:
        """Count a request that its connection refused, as if its route had done so."""
        self.tallies.refused(model, version)
        key = (route, model, error.status)
        self._requests[key] = self._requests.get(key, 0) + 1
        self.refused(error.code)

    def reload_failed(self, what: str) -> None:
        """Count a change on disk that could not be used; what there was is used on."""
        self._failed_reloads[what] = self._failed_reloads.get(what, 0) + 1

    def batches(self, model: str, version: int) -> Callable[[Ran], object]:
        """The observer for the batcher of a version that was loaded just now."""
        rows = self._batches.setdefault(model, _Batches())
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
            self._requests[key] = self._requests.get(key, 0) + len(same)
            if error:
                self._refused[error] = self._refused.get(error, 0) + len(same)
            seconds = self._seconds.get((route, model))
            if seconds is None:
                seconds = self._seconds[route, model] = Histogram(SECONDS)
            took_s = seconds.observe_all([each.finished - each.started for each in same])
            if model:
                run = [each for each in same if each.batch is not None]
                spans = self._count_stages(model, run) if run else ()
                self.tallies.add(model, version, same, took_s, len(run), spans)

    def _count_stages(self, model: str, run: Sequence[Exchange]) -> list[float]:
        """Requests that were run: the seconds of each stage in all, as in STAGES."""
        stages = self._stages.get(model)
        if stages is None:
            stages = self._stages[model] = tuple(Histogram(SECONDS) for _ in STAGES)
        seen: tuple[list[float], ...] = ([], [], [], [], [])
        decode, queue, batch_wait, compute, encode = seen
        for each in run:
            batch, decoded = each.batch, each.decoded
            assert batch is not None
            free = batch.free if batch.free > decoded else decoded
            ran = batch.started if batch.started > free else free
            decode.append(decoded - each.read)
            queue.append(free - decoded)
            batch_wait.append(ran - free)
            compute.append(batch.ended - ran)
            if each.encoded:
                encode.append(each.encoded - each.answered)
        return [one.observe_all(values) for one, values in zip(stages, seen, strict=True)]

    def page(self, registry: Registry) -> str:
        """What GET /metrics answers: this process, and the other workers."""
        own = self.render(registry)
        return own if self._shared is None else merge([own, *self._shared.others()])

    def share(self, registry: Registry) -> None:
        """Let the other workers show this one's page; to be called once a second."""
        if self._shared is not None:
            self._shared.publish(self.render(registry))
            self.tallies.share()

    def render(self, registry: Registry) -> str:
        """This process alone."""
        page = Exposition(self._shared.labels if self._shared else None)
        self._render_requests(page)
        self._render_stages(page)
        if self.response_cache is not None:
            self._render_cache(page, self.response_cache)
        page.family("foldserve_ready", "gauge", "1 when GET /health/ready answers 200.")
        page.sample(int(self.ready()))
        _render_models(page, registry)
        page.family(
            "foldserve_models_without_folder", "gauge",
            "Models that are served though their files are gone, as of a volume not mounted.",
        )  # fmt: skip
        page.sample(len(registry.emptied))
        self._render_files(page)
        if self._shared is None:
            replaced.none(page)
        self._render_process(page)
        return page.text()

    def _render_requests(self, page: Exposition) -> None:
        page.family(
            "foldserve_requests_total", "counter",
            "Requests by route, model and status code; 499 for clients that left.",
        )  # fmt: skip
        for (route, model, code), count in sorted(self._requests.items()):
            page.sample(count, {"route": route, "model": model, "code": str(code)})
        page.family(
            "foldserve_request_seconds", "histogram",
            "From the end of the headers to the end of the answer.",
        )  # fmt: skip
        for (route, model), seconds in sorted(self._seconds.items()):
            page.histogram(seconds, {"route": route, "model": model})
        page.family(
            "foldserve_refused_total", "counter", "Errors by their code, as in the error's body."
        )
        for reason, count in sorted(self._refused.items()):
            page.sample(count, {"reason": reason})
        page.family("foldserve_requests_in_flight", "gauge", "Requests being answered.")
        page.sample(self.in_flight)
        page.family("foldserve_connections_open", "gauge", "TCP connections that are open.")
        page.sample(self.connections())
        page.family(
            "foldserve_bodies_held_bytes", "gauge",
            "The budget in use: bodies, tensors, pictures, and answers until they are read.",
        )  # fmt: skip
        page.sample(self.held_bytes())
        page.family("foldserve_budget_bytes", "gauge", "The whole budget for all requests.")
        page.sample(self.budget_bytes)

    def _render_cache(self, page: Exposition, cache: ResponseCache) -> None:
        for name, counts, what in (
            ("hits", cache.hits, "Answers that were given again without a run."),
            ("misses", cache.misses, "Answers that were not there and had to be made."),
        ):
            page.family(f"foldserve_response_cache_{name}_total", "counter", what)
            for model, count in sorted(counts.items()):
                page.sample(count, {"model": model})
        page.family("foldserve_response_cache_bytes", "gauge", "Answers that are kept.")
        page.sample(cache.held)

    def _render_stages(self, page: Exposition) -> None:
        descriptions = {
            "decode": "Bytes to tensors.",
            "queue": "Waiting while every runner of the model was busy.",
            "batch_wait": "Waiting while a runner was free: for company, and for its start.",
            "compute": "The run of the batch that the request was in.",
            "encode": "Tensors to bytes.",
        }
        for index, stage in enumerate(STAGES):
            page.family(f"foldserve_{stage}_seconds", "histogram", descriptions[stage])
            for model, stages in sorted(self._stages.items()):
                page.histogram(stages[index], {"model": model})
        page.family("foldserve_batch_rows", "histogram", "Rows that were run together.")
        for model, batches in sorted(self._batches.items()):
            page.histogram(batches.all(), {"model": model})

    def _render_files(self, page: Exposition) -> None:
        page.family(
            "foldserve_failed_reloads_total", "counter",
            "Changes on disk that could not be used; what there was is used on.",
        )  # fmt: skip
        for what, count in self._failed_reloads.items():
            page.sample(count, {"what": what})
        if self.certificate_expires is not None:
            page.family(
                "foldserve_certificate_expires_seconds", "gauge",
                "Unix time at which the TLS certificate expires.",
            )  # fmt: skip
            page.sample(self.certificate_expires())

    def _render_process(self, page: Exposition) -> None:
        page.family("foldserve_build_info", "gauge", "Always 1; the versions are labels.")
        python = ".".join(map(str, sys.version_info[:3]))
        page.sample(1, {"version": self._version, "python": python})
        page.family("process_start_time_seconds", "gauge", "Unix time of the start.")
        page.sample(self._started)
        page.family("process_cpu_seconds_total", "counter", "CPU time of the process.")
        page.sample(time.process_time())
        resident = _resident_bytes()
        if resident is not None:
            page.family("process_resident_memory_bytes", "gauge", "Memory in use.")
            page.sample(resident)


def _render_models(page: Exposition, registry: Registry) -> None:
    page.family(
        "foldserve_model_version", "gauge", "Always 1; the state is serving, rejected or older."
    )
    entries = list(registry.entries.values())
    for entry in entries:
        serving = dict.fromkeys(entry.versions, "serving")
        states = dict.fromkeys(entry.older, "older") | dict.fromkeys(entry.rejected, "rejected")
        for version, state in sorted((states | serving).items()):
            page.sample(1, {"model": entry.name, "version": str(version), "state": state})
    page.family(
        "foldserve_load_seconds", "gauge",
        "How long it took to load a version that is served, with its checks and first runs.",
    )  # fmt: skip
    for model in registry.every_version():
        page.sample(model.load_s, {"model": model.name, "version": str(model.version)})
    page.family("foldserve_queue_rows", "gauge", "Rows that wait, the ones running not counted.")
    models = registry.every_version()
    for model in models:
        labels = {"model": model.name, "version": str(model.version)}
        page.sample(model.batcher.waiting_samples, labels)
    page.family("foldserve_queue_capacity_rows", "gauge", "Rows that may wait.")
    for model in models:
        labels = {"model": model.name, "version": str(model.version)}
        page.sample(model.batcher.capacity_samples, labels)
    page.family("foldserve_queue_age_seconds", "gauge", "How long the oldest has been waiting.")
    for model in models:
        labels = {"model": model.name, "version": str(model.version)}
        page.sample(model.batcher.oldest_wait_s, labels)


def _resident_bytes() -> int | None:
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return None
    import resource

    return pages * resource.getpagesize()
