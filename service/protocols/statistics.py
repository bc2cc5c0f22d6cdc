"""GET /v2/models/[{m}/]stats: what the versions have done, as Triton tells it.

    inference_count    rows of the requests that were answered
    execution_count    batches that were run
    batch_stats        how often, and for how long, batches of so many rows were run

Counts begin with the load of a version. What a batch takes besides its run is told with the
requests, not in `batch_stats`, where its count is 0.

Source: Triton, extension_statistics.md.
"""

from __future__ import annotations

from typing import Any

from service.context import Context
from service.models.model import ServedModel
from service.telemetry.tally import Span

_NONE: Span = [0, 0.0]


def statistics(
    context: Context, name: str | None = None, version: str | None = None
) -> dict[str, list[dict[str, Any]]]:
    """`model_stats`, an entry for each version that is meant; plain JSON types.

    Args:
        name: of a model, None for all of them.
        version: of that model, None for all that are served.

    Raises:
        ServiceError: what `Registry.find` raises for what there is not.
    """
    registry = context.registry
    if name is None:
        models = registry.every_version()
    elif version is None:
        registry.find(name)
        models = [*registry.entry(name).versions.values()]
    else:
        models = [registry.find(name, version)]
    return {"model_stats": [_entry(context, model) for model in models]}


def _entry(context: Context, model: ServedModel) -> dict[str, Any]:
    numbers = context.metrics.tallies.numbers(model.name, model.version)
    spans, batches = numbers["spans"], numbers["batches"]
    return {
        "name": model.name,
        "version": str(model.version),
        "last_inference": numbers["last_ms"],
        "inference_count": numbers["rows"],
        "execution_count": sum(count for count, _ in batches.values()),
        "inference_stats": {name: _duration(span) for name, span in spans.items()},
        "batch_stats": [
            {
                "batch_size": size,
                "compute_input": _duration(_NONE),
                "compute_infer": _duration(batches[str(size)]),
                "compute_output": _duration(_NONE),
            }
            for size in sorted(map(int, batches))
            if size
        ],
    }


def _duration(span: Span) -> dict[str, int]:
    count, seconds = span
    return {"count": int(count), "ns": round(seconds * 1e9)}
