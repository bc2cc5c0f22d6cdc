"""A model that is served: its contract, its session and the owner that runs it."""

from __future__ import annotations

import time
import weakref
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

from service.batching import choose
from service.batching.batch import attempt
from service.batching.batcher import Batcher
from service.batching.choose import Running, RunSettings
from service.device import CPU, Choice
from service.engines import pick
from service.engines.choice import Row
from service.manifest import MODEL_FILE, Manifest, TensorSpec
from service.models import bundle, warm_up
from service.models.check import check
from service.models.held import Held
from service.models.runtime import Runtime
from service.models.signed import Trust
from service.signature import Signature, Tensors

_EXAMPLE_ELEMENTS = 2048
_LOADS = count()
# Files up to this size are loaded twice where that pays: once for requests that are alone.
_LARGEST_TWICE_BYTES = 256 * 1024**2


@dataclass(frozen=True, slots=True, weakref_slot=True, eq=False)
class ServedModel:
    """A loaded, warmed and self-tested version.

    `name`, `version`: as the manifest has them.
    `manifest` is derived from the graph for a bare model (`declared` is False then).
    `warm_up_ms`: duration of one run on one row, None when no input could be made up.
    `self_test_errors`: largest difference per output, None without a self-test.
    `example`: one row of real (or made-up) input for the documentation, None when it is large.
    `running`: how its requests are run, and why.
    `signer`: who has signed it, None unless a signature is required.
    `repeatable`: the same request has the same answer: no node of it draws random numbers.
    `serial`: a number that no other load of a version has.
    `engines`: those that were tried, and why each of them serves or does not; none as a rule.
    `load_s`: how long it took to load, from the first byte that was read, in seconds.
    """

    name: str
    version: int
    manifest: Manifest
    signature: Signature
    batcher: Batcher
    provider: str
    declared: bool
    warm_up_ms: float | None
    self_test_errors: dict[str, float] | None
    example: Tensors | None
    running: Running
    signer: str | None = None
    engines: tuple[Row, ...] = ()
    repeatable: bool = False
    serial: int = field(default_factory=_LOADS.__next__)
    load_s: float = 0.0

    def describe(self) -> dict[str, Any]:
        """What GET /models/<name> tells about the version; plain JSON types."""
        manifest = self.manifest.model_dump(
            mode="json",
            include={
                "description", "inputs", "outputs", "dynamic_batch", "batch_invariant",
                "classification", "preprocessing", "metrics", "curves", "provenance",
            },
        )  # fmt: skip
        certificate = self.manifest.certificate
        return {
            "version": self.version,
            "provider": self.provider,
            "manifest": self.declared,
            **({"signed_by": self.signer} if self.signer else {}),
            "warm_up_ms": self.warm_up_ms,
            "self_test_errors": self.self_test_errors,
            "engines": [row.describe() for row in self.engines],
            "running": {
                **self.running.describe(),
                # As it is now: a model that cannot be batched may have shown it after the choice.
                "max_batch_size": self.batcher.max_batch_rows,
            },
            **manifest,
            "certificate": certificate and certificate.model_dump(mode="json"),
            "left_out": self.signature.left_out,
        }


def load(
    folder: Path,
    name: str,
    version: int,
    choice: Choice,
    threads: int,
    capacity_samples: int,
    settings: RunSettings | None = None,
    max_tensor_bytes: int | None = None,
    trust: Trust | None = None,
    engines: pick.Wish | None = None,
) -> ServedModel:
    """Load, verify, warm up and self-test one version folder.

    Args:
        folder, name, version: models/<name>/<version>.
        threads: CPUs that the model's runs may keep busy, all together.
        capacity_samples: rows that may wait, unless the manifest says otherwise.
        settings: how to run it, where the manifest does not say; None leaves it to measurements.
        max_tensor_bytes: of an input of a request, None for any number.
        trust: whose signature it must have, None for no matter whose or none.
        engines: which may run it, None for onnxruntime as `choice` has it.

    Raises:
        Rejected: with the reason; no thread is left behind.
        DeviceUnavailable: CUDA was required and did not start.
    """
    settings = settings or RunSettings()
    began = time.monotonic()
    checked = check(
        folder, name, version, choice, settings.threads_per_run, max_tensor_bytes, trust
    )
    declared, manifest, signature = checked.declared, checked.manifest, checked.signature
    example = checked.example
    settings = _with_manifest(settings, declared)
    source = checked.source
    model = source if isinstance(source, Held) else source / MODEL_FILE
    size = source.size_bytes if isinstance(source, Held) else bundle.size_bytes(source)
    small_enough = size <= _LARGEST_TWICE_BYTES
    if engines is None:
        picked = pick.unasked(checked, settings)
    else:
        picked = pick.pick(engines, checked, model, threads, settings, twice=small_enough)
    runtime, settings = picked.runtime, picked.settings
    run = partial(attempt, runtime.run)
    on_cpu = runtime.provider == CPU
    content = model.model if isinstance(model, Held) else model
    running, run_alone = choose.running(
        runtime.run,
        signature,
        example,
        settings=settings,
        cpus=threads,
        invariant=declared.batch_invariant if declared else None,
        on_cpu=on_cpu,
        steady=not bundle.has_node(content, bundle.CONTROL_FLOW),
        make_alone=(
            (lambda: Runtime(model, choice, threads, runtime.left_out).run)
            if on_cpu and small_enough
            else None
        ),
    )
    for each in [run, partial(attempt, run_alone)] if run_alone else [run]:
        warm_up.sizes(each, manifest, signature, example)
    # The queue must have room for at least one request of a graph whose batch size is fixed.
    fixed = 1 if signature.batched else max(_sizes(manifest.inputs), default=1)
    capacity_samples = manifest.serving.queue_capacity_samples or capacity_samples
    small = example is not None and sum(a.size for a in example.values()) <= _EXAMPLE_ELEMENTS
    served = ServedModel(
        name=manifest.name,
        version=manifest.version,
        manifest=manifest,
        signature=signature,
        batcher=Batcher(
            runtime.run,
            max(capacity_samples, fixed),
            f"{name}/{version}",
            running.limits,
            run_alone,
            signature.answer_row_bytes(),
        ),
        provider=runtime.provider,
        declared=declared is not None,
        warm_up_ms=picked.warm_up_ms,
        self_test_errors=picked.self_test_errors,
        engines=tuple(picked.rows),
        example=example if small else None,
        running=running,
        signer=checked.signer,
        load_s=time.monotonic() - began,
        repeatable=not bundle.has_node(content, bundle.RANDOM),
    )
    # Requests that have found the model may still use it; its threads end with the last reference.
    weakref.finalize(served, served.batcher.retire).atexit = False
    return served


def _with_manifest(settings: RunSettings, declared: Manifest | None) -> RunSettings:
    """The server's settings, and over them what the manifest of the model says."""
    if declared is None:
        return settings
    mine = declared.serving
    wait_us = mine.max_wait_us
    return RunSettings(
        runners=mine.runners or settings.runners,
        threads=mine.threads or settings.threads,
        max_batch_rows=mine.max_batch_size or settings.max_batch_rows,
        max_wait_s=settings.max_wait_s if wait_us is None else wait_us / 1e6,
    )


def _sizes(specs: list[TensorSpec]) -> list[int]:
    """The fixed sizes of axis 0."""
    return [spec.shape[0] for spec in specs if spec.shape and isinstance(spec.shape[0], int)]
