"""What is told of the models: the answers of GET /models, of one model, and of one version.

The classes are the shapes of these answers, for the documentation.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel

from service.certificate import Certificate
from service.manifest import Classification, Curve, Preprocessing, TensorSpec
from service.models.entry import Entry
from service.models.registry import Registry


class RejectedVersion(BaseModel):
    """A version that is not served."""

    version: int
    reason: str


class Row(BaseModel):
    """A model of the repository.

    `version`: the one for requests that name none; `versions`: those served, highest first.
    `certified`: whether that version holds a certificate that it computes what the original does,
    for every input; null if nothing is said of it.
    """

    name: str
    state: Literal["serving", "unavailable"]
    version: int | None
    versions: list[int]
    provider: str | None
    self_tested: bool
    certified: bool | None
    inputs: list[TensorSpec]
    outputs: list[TensorSpec]
    rejected: list[RejectedVersion]
    older_versions: list[int]


class Store(BaseModel):
    """Where the models come from, if from an address, and what is wrong with it."""

    address: str
    trouble: str | None


class Models(BaseModel):
    """GET /models."""

    loading: bool
    models: list[Row]
    store: Store | None = None


class TriedEngine(BaseModel):
    """A way to run the model that `--provider auto` has measured, and why it serves or does not."""

    engine: str
    precision: str
    lone_ms: float | None
    row_ms: float | None
    error: float | None
    chosen: bool
    why: str


class Version(BaseModel):
    """A version that is served; see model.json for what it declares."""

    version: int
    provider: str
    manifest: bool
    warm_up_ms: float | None
    self_test_errors: dict[str, float] | None
    engines: list[TriedEngine] = []
    running: dict[str, Any]
    description: str
    inputs: list[TensorSpec]
    outputs: list[TensorSpec]
    dynamic_batch: bool
    batch_invariant: bool
    classification: Classification | None
    preprocessing: Preprocessing | None
    metrics: dict[str, float]
    curves: list[Curve] = []
    provenance: dict[str, Any]
    certificate: Certificate | None
    left_out: dict[str, str]


class NamedVersion(Version):
    """GET /models/{name}/versions/{version}."""

    name: str


class Model(Row):
    """GET /models/{name}: the row, and the version for requests that name none, if there is one."""

    manifest: bool = True
    warm_up_ms: float | None = None
    self_test_errors: dict[str, float] | None = None
    engines: list[TriedEngine] = []
    running: dict[str, Any] = {}
    description: str = ""
    dynamic_batch: bool = True
    batch_invariant: bool = False
    classification: Classification | None = None
    preprocessing: Preprocessing | None = None
    metrics: dict[str, float] = {}
    curves: list[Curve] = []
    provenance: dict[str, Any] = {}
    certificate: Certificate | None = None
    left_out: dict[str, str] = {}


def models(registry: Registry) -> dict[str, Any]:
    """Every model, and whether more of them are being loaded; plain JSON types."""
    entries = list(registry.entries.values())
    shown = {"loading": registry.loading, "models": [_row(entry) for entry in entries]}
    if mirror := registry.mirror:
        shown["store"] = {"address": mirror.address, "trouble": mirror.trouble}
    return shown


def model(registry: Registry, name: str) -> dict[str, Any]:
    """One model, served or not; raises what `Registry.entry` raises."""
    entry = registry.entry(name)
    return {**_row(entry), **(entry.served.describe() if entry.served else {})}


def version(registry: Registry, name: str, number: str) -> dict[str, Any]:
    """One version that is served; raises what `Registry.find` raises."""
    return {"name": name, **registry.find(name, number).describe()}


def _row(entry: Entry) -> dict[str, Any]:
    served = entry.served
    certificate = served.manifest.certificate if served else None
    return {
        "name": entry.name,
        "state": "serving" if served else "unavailable",
        "version": served.version if served else None,
        "versions": list(entry.versions),
        "provider": served.provider if served else None,
        "self_tested": bool(served and served.self_test_errors is not None),
        "certified": certificate.certified if certificate else None,
        "inputs": [spec.model_dump() for spec in served.manifest.inputs] if served else [],
        "outputs": [spec.model_dump() for spec in served.manifest.outputs] if served else [],
        "rejected": [{"version": v, "reason": why} for v, why in entry.rejected.items()],
        "older_versions": entry.older,
    }
