"""A model that is served: its contract, its session and the owner that runs it."""

from __future__ import annotations

import math
import weakref
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from service.batching import choose
from service.batching.batch import Run, attempt
from service.batching.batcher import Batcher
from service.batching.choose import Running, Wish
from service.device import CPU, Choice
from service.errors import ServiceError
from service.manifest import MODEL_FILE, Manifest, TensorSpec
from service.models import bundle, external, selftest, warm_up
from service.models.bundle import Rejected
from service.models.runtime import CannotLoad, Runtime, without_paths
from service.signature import NUMPY_DTYPES, Signature, Tensors, show

_EXAMPLE_ELEMENTS = 2048
_MOST_ELEMENTS = 2**31
# Up to here it pays to hold the weights twice, once for requests that are alone.
_LARGEST_TWICE_BYTES = 256 * 1024**2


@dataclass(frozen=True, slots=True, weakref_slot=True, eq=False)
class ServedModel:
    """A loaded, warmed and self-tested version.

    `manifest` is made up from the graph for a bare model (`declared` is False then).
    `warm_up_ms`: duration of one run on one row, None when no input could be made up.
    `self_test_errors`: largest difference per output, None without a self-test.
    `example`: one row of real (or made-up) input for the documentation, None when it is large.
    `running`: how its requests are run, and why so.
    """

    manifest: Manifest
    signature: Signature
    batcher: Batcher
    provider: str
    declared: bool
    warm_up_ms: float | None
    self_test_errors: dict[str, float] | None
    example: Tensors | None
    running: Running

    @property
    def name(self) -> str:
        return self.manifest.name

    @property
    def version(self) -> int:
        return self.manifest.version

    def describe(self) -> dict[str, Any]:
        """What GET /models/<name> tells about the version; plain JSON types."""
        manifest = self.manifest.model_dump(
            mode="json",
            include={
                "description", "inputs", "outputs", "dynamic_batch", "batch_invariant",
                "classification", "preprocessing", "metrics", "curves", "provenance",
            },
        )  # fmt: skip
        return {
            "version": self.version,
            "provider": self.provider,
            "manifest": self.declared,
            "warm_up_ms": self.warm_up_ms,
            "self_test_errors": self.self_test_errors,
            "running": {
                **self.running.describe(),
                # Not as it was chosen but as it is: a model may have turned out otherwise.
                "max_batch_size": self.batcher.max_batch_rows,
            },
            **manifest,
        }


def load(
    folder: Path,
    name: str,
    version: int,
    choice: Choice,
    threads: int,
    capacity_samples: int,
    wish: Wish | None = None,
    max_tensor_bytes: int | None = None,
) -> ServedModel:
    """Load, verify, warm up and self-test one version folder.

    Args:
        folder, name, version: models/<name>/<version>.
        choice: the provider.
        threads: CPUs that the model's runs may keep busy, all together.
        capacity_samples: rows that may wait, unless the manifest says otherwise.
        wish: how to run it, where the manifest does not say; None leaves it to measurements.
        max_tensor_bytes: of an input of a request, None for any number.

    Raises:
        Rejected: with the reason; no thread is left behind.
        DeviceUnavailable: CUDA was required and did not start.
    """
    declared = bundle.read(folder, name, version)
    wish = _wish(wish or Wish(), declared)
    path = folder / MODEL_FILE
    try:
        external.check(path)
    except external.Unreadable as error:
        raise Rejected(str(error)) from None
    try:
        runtime = Runtime(path, choice, wish.threads_per_run)
    except CannotLoad as error:
        raise Rejected(f"{MODEL_FILE}: {error}") from None
    manifest = declared or _manifest_of(runtime, name, version)
    _compare_with_graph(manifest, runtime)
    signature = Signature.of(manifest, max_tensor_bytes)
    _refuse_huge(manifest)
    test = selftest.load(folder, manifest, signature)

    run = partial(attempt, runtime.run)
    example = warm_up.first_row(test, signature) if test else warm_up.made_up(signature, run)
    warm_up_ms, outputs = warm_up.fastest_ms(run, signature, example)
    _check_outputs(manifest, outputs)
    errors = _self_test(run, test) if test else None

    on_cpu = runtime.provider == CPU
    running, run_alone = choose.running(
        runtime.run,
        signature,
        example,
        wish=wish,
        cpus=threads,
        invariant=declared.batch_invariant if declared else None,
        on_cpu=on_cpu,
        steady=not bundle.has_control_flow(path),
        make_alone=(
            (lambda: Runtime(path, choice, threads).run)
            if on_cpu and bundle.size_bytes(folder) <= _LARGEST_TWICE_BYTES
            else None
        ),
    )
    for each in [run, partial(attempt, run_alone)] if run_alone else [run]:
        warm_up.sizes(each, manifest, signature, example)
    # A graph with a fixed batch must find room for at least one.
    fixed = 1 if signature.batched else max(_sizes(manifest.inputs), default=1)
    capacity_samples = manifest.serving.queue_capacity_samples or capacity_samples
    small = example is not None and sum(a.size for a in example.values()) <= _EXAMPLE_ELEMENTS
    served = ServedModel(
        manifest=manifest,
        signature=signature,
        batcher=Batcher(
            runtime.run,
            max(capacity_samples, fixed),
            f"{name}/{version}",
            running.limits,
            run_alone,
        ),
        provider=runtime.provider,
        declared=declared is not None,
        warm_up_ms=warm_up_ms,
        self_test_errors=errors,
        example=example if small else None,
        running=running,
    )
    # Whoever has found the model may still use it; the last one to let go of it ends its threads.
    weakref.finalize(served, served.batcher.retire).atexit = False
    return served


def _wish(wish: Wish, declared: Manifest | None) -> Wish:
    """The server's settings, and over them the manifest's."""
    if declared is None:
        return wish
    mine = declared.serving
    wait_us = mine.max_wait_us
    return Wish(
        runners=mine.runners or wish.runners,
        threads=mine.threads or wish.threads,
        max_batch_rows=mine.max_batch_size or wish.max_batch_rows,
        max_wait_s=wish.max_wait_s if wait_us is None else wait_us / 1e6,
    )


def _manifest_of(runtime: Runtime, name: str, version: int) -> Manifest:
    """The contract that the graph itself declares."""
    specs = [*runtime.inputs, *runtime.outputs]
    if not runtime.inputs:
        raise Rejected("the graph has no inputs")
    return Manifest.model_construct(
        name=name,
        version=version,
        inputs=runtime.inputs,
        outputs=runtime.outputs,
        dynamic_batch=all(spec.shape and isinstance(spec.shape[0], str) for spec in specs),
    )


def _refuse_huge(manifest: Manifest) -> None:
    """An input that no request can bring, and whose example would take all the memory."""
    for spec in manifest.inputs:
        elements = math.prod([dim for dim in spec.shape if isinstance(dim, int)])
        if elements > _MOST_ELEMENTS:
            raise Rejected(f"input {spec.name!r} has {elements} elements, more than can be served")


def _compare_with_graph(manifest: Manifest, runtime: Runtime) -> None:
    """Names, dtypes and fixed sizes of model.json must be those of model.onnx."""
    for what, declared, graph in (
        ("input", manifest.inputs, runtime.inputs),
        ("output", manifest.outputs, runtime.outputs),
    ):
        in_graph = {spec.name: spec for spec in graph}
        if set(in_graph) != {spec.name for spec in declared} or len(declared) != len(graph):
            raise Rejected(
                f"model.json and the graph disagree about the {what}s: "
                f"{[s.name for s in declared]} against {list(in_graph)}"
            )
        for spec in declared:
            other = in_graph[spec.name]
            if spec.dtype not in NUMPY_DTYPES:
                raise Rejected(f"{what} {spec.name!r} is {spec.dtype}, which cannot be served")
            if spec.dtype != other.dtype or not _same_shape(spec, other, what):
                raise Rejected(
                    f"{what} {spec.name!r} is {spec.dtype} {show(spec.shape)} in model.json, "
                    f"but {other.dtype} {show(other.shape)} in the graph"
                )
            if manifest.dynamic_batch and (not spec.shape or not isinstance(spec.shape[0], str)):
                raise Rejected(
                    f"{what} {spec.name!r} has no open batch axis, but model.json says "
                    "dynamic_batch"
                )


def _same_shape(declared: TensorSpec, graph: TensorSpec, what: str) -> bool:
    if what == "output" and not graph.shape:
        return True  # an output whose shape the graph does not infer looks like a scalar
    return len(declared.shape) == len(graph.shape) and all(
        a == b or isinstance(a, str) or isinstance(b, str)
        for a, b in zip(declared.shape, graph.shape, strict=True)
    )


def _sizes(specs: list[TensorSpec]) -> list[int]:
    """The fixed sizes of axis 0."""
    return [spec.shape[0] for spec in specs if spec.shape and isinstance(spec.shape[0], int)]


def _self_test(run: Run, test: selftest.SelfTestData) -> dict[str, float]:
    try:
        return selftest.compare(test, run(test.inputs))
    except ServiceError as error:
        raise Rejected(f"self-test failed: {_reason(error)}") from None


def _check_outputs(manifest: Manifest, outputs: Tensors) -> None:
    """A classifier's output must have a column for each label."""
    how = manifest.classification
    if how is None or how.output not in outputs:
        return
    scores = outputs[how.output]
    if scores.ndim != 2 or scores.shape[1] != len(how.labels) or scores.dtype.kind != "f":
        raise Rejected(
            f"classification.output {how.output!r} is {scores.dtype} of shape {scores.shape}, "
            f"expected floats of shape (batch, {len(how.labels)}) for the labels given"
        )


def _reason(error: ServiceError) -> str:
    return without_paths(error)
