"""The page of GET /metrics: a row for each family, with where its samples come from."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from service.models.model import ServedModel
from service.models.registry import Registry
from service.telemetry import replaced
from service.telemetry.exposition import Exposition, Histogram, Labels

if TYPE_CHECKING:
    from service.telemetry.metrics import Metrics

Samples = Iterable[tuple[Labels, float | Histogram]]


class Family(NamedTuple):
    """`kind`: counter, gauge or histogram. `samples`: none leave the family out."""

    name: str
    kind: str
    what: str
    samples: Callable[[Metrics, Registry], Samples | None]


def render(page: Exposition, metrics: Metrics, registry: Registry) -> str:
    """What this process tells of itself."""
    for name, kind, what, samples in FAMILIES:
        found = samples(metrics, registry)
        if found is None:
            continue
        page.family(name, kind, what)
        for labels, value in found:
            if isinstance(value, Histogram):
                page.histogram(value, labels)
            else:
                page.sample(value, labels)
    return page.text()


def _one(value: float | None) -> Samples | None:
    return None if value is None else [({}, value)]


def _by_model(values: Mapping[str, float | Histogram]) -> Samples:
    return [({"model": model}, value) for model, value in sorted(values.items())]


def _by_version(value: Callable[[ServedModel], float]) -> Callable[[Metrics, Registry], Samples]:
    return lambda _, registry: [
        ({"model": model.name, "version": str(model.version)}, value(model))
        for model in registry.every_version()
    ]


def _stage(index: int) -> Callable[[Metrics, Registry], Samples]:
    return lambda m, _: _by_model({model: each[index] for model, each in m.stages.items()})


def _versions(registry: Registry) -> Samples:
    for entry in list(registry.entries.values()):
        states = dict.fromkeys(entry.older, "older") | dict.fromkeys(entry.rejected, "rejected")
        for version, state in sorted((states | dict.fromkeys(entry.versions, "serving")).items()):
            yield {"model": entry.name, "version": str(version), "state": state}, 1


def _build(version: str) -> Samples:
    return [({"version": version, "python": ".".join(map(str, sys.version_info[:3]))}, 1)]


def _resident_bytes() -> int | None:
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return None
    import resource

    return pages * resource.getpagesize()


# fmt: off
FAMILIES = tuple(Family(*row) for row in (
    ("foldserve_requests_total", "counter",
     "Requests by route, model and status code; 499 for clients that left.",
     lambda m, _: [({"route": route, "model": model, "code": str(code)}, count)
                   for (route, model, code), count in sorted(m.requests.items())]),
    ("foldserve_request_seconds", "histogram",
     "From the end of the headers to the end of the answer.",
     lambda m, _: [({"route": route, "model": model}, seconds)
                   for (route, model), seconds in sorted(m.seconds.items())]),
    ("foldserve_refused_total", "counter", "Errors by their code, as in the error's body.",
     lambda m, _: [({"reason": code}, count) for code, count in sorted(m.errors.items())]),
    ("foldserve_requests_in_flight", "gauge", "Requests being answered.",
     lambda m, _: _one(m.in_flight)),
    ("foldserve_connections_open", "gauge", "TCP connections that are open.",
     lambda m, _: _one(m.connections())),
    ("foldserve_bodies_held_bytes", "gauge",
     "The budget in use: bodies, tensors, pictures, and answers until they are read.",
     lambda m, _: _one(m.held_bytes())),
    ("foldserve_budget_bytes", "gauge", "The whole budget for all requests.",
     lambda m, _: _one(m.budget_bytes)),
    ("foldserve_decode_seconds", "histogram", "Bytes to tensors.", _stage(0)),
    ("foldserve_queue_seconds", "histogram",
     "Waiting while every runner of the model was busy.", _stage(1)),
    ("foldserve_batch_wait_seconds", "histogram",
     "Waiting while a runner was free: for company, and for its start.", _stage(2)),
    ("foldserve_compute_seconds", "histogram",
     "The run of the batch that the request was in.", _stage(3)),
    ("foldserve_encode_seconds", "histogram", "Tensors to bytes.", _stage(4)),
    ("foldserve_batch_rows", "histogram", "Rows that were run together.",
     lambda m, _: _by_model({model: rows.all() for model, rows in list(m.batch_rows.items())})),
    ("foldserve_response_cache_hits_total", "counter",
     "Answers that were given again without a run.",
     lambda m, _: _by_model(m.response_cache.hits) if m.response_cache else None),
    ("foldserve_response_cache_misses_total", "counter",
     "Answers that were not there and had to be made.",
     lambda m, _: _by_model(m.response_cache.misses) if m.response_cache else None),
    ("foldserve_response_cache_bytes", "gauge", "Answers that are kept.",
     lambda m, _: _one(m.response_cache.held) if m.response_cache else None),
    ("foldserve_ready", "gauge", "1 when GET /health/ready answers 200.",
     lambda m, _: _one(int(m.ready()))),
    ("foldserve_model_version", "gauge", "Always 1; the state is serving, rejected or older.",
     lambda _, registry: _versions(registry)),
    ("foldserve_load_seconds", "gauge",
     "How long it took to load a version that is served, with its checks and first runs.",
     _by_version(lambda model: model.load_s)),
    ("foldserve_queue_rows", "gauge", "Rows that wait, the ones running not counted.",
     _by_version(lambda model: model.batcher.waiting_samples)),
    ("foldserve_queue_capacity_rows", "gauge", "Rows that may wait.",
     _by_version(lambda model: model.batcher.capacity_samples)),
    ("foldserve_queue_age_seconds", "gauge", "How long the oldest has been waiting.",
     _by_version(lambda model: model.batcher.oldest_wait_s)),
    ("foldserve_models_without_folder", "gauge",
     "Models that are served though their files are gone, as of a volume not mounted.",
     lambda _, registry: _one(len(registry.emptied))),
    ("foldserve_failed_reloads_total", "counter",
     "Changes on disk that could not be used; what there was is used on.",
     lambda m, _: [({"what": what}, count) for what, count in m.failed_reloads.items()]),
    ("foldserve_certificate_expires_seconds", "gauge",
     "Unix time at which the TLS certificate expires.",
     lambda m, _: _one(m.certificate_expires and m.certificate_expires())),
    (*replaced.FAMILY,
     lambda m, _: None if m.shared else [({"reason": why}, 0) for why in replaced.REASONS]),
    ("foldserve_build_info", "gauge", "Always 1; the versions are labels.",
     lambda m, _: _build(m.version)),
    ("process_start_time_seconds", "gauge", "Unix time of the start.",
     lambda m, _: _one(m.started)),
    ("process_cpu_seconds_total", "counter", "CPU time of the process.",
     lambda *_: _one(time.process_time())),
    ("process_resident_memory_bytes", "gauge", "Memory in use.",
     lambda *_: _one(_resident_bytes())),
))
# fmt: on
