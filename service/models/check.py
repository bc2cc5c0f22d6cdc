"""Whether a version can be served: the same check for the service and for those who publish.

    manifest -> hashes -> files outside -> session -> signature -> warm-up -> shapes -> self-test

Where a version must be signed, it is verified (signed.py) in place of the hashes, and loaded from
the bytes that were verified.

The shapes of outputs that a graph declares are ignored, for they are often stale. Those that
model.json declares are compared with a run; a bare model's are taken from runs (observed.py).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from service.batching.batch import Run, attempt
from service.device import Choice
from service.errors import ServiceError
from service.manifest import MODEL_FILE, Manifest, TensorSpec
from service.models import bundle, external, observed, selftest, signed, warm_up
from service.models.bundle import Rejected, own_file
from service.models.held import Held
from service.models.runtime import CannotLoad, Runtime, own_name, without_paths
from service.signature import NUMPY_DTYPES, Signature, Tensors, show

_MOST_ELEMENTS = 2**31


@dataclass(frozen=True, slots=True)
class Checked:
    """A version that can be served.

    `declared`: what its model.json says, None for a bare model; `manifest`: this, or what the
    graph itself declares. `example`: one row of inputs, None when none could be made up.
    `warm_up_ms`: the fastest run of it. `self_test_errors`: see `selftest.compare`.
    `test`: its self-test. `source`: what it was loaded from. `signer`: who has signed it, None if
    that was not asked.
    """

    declared: Manifest | None
    manifest: Manifest
    signature: Signature
    runtime: Runtime
    example: Tensors | None
    warm_up_ms: float | None
    self_test_errors: dict[str, float] | None
    test: selftest.SelfTestData | None
    source: Path | Held
    signer: str | None


def check(
    folder: Path,
    name: str,
    version: int,
    choice: Choice,
    threads: int = 1,
    max_tensor_bytes: int | None = None,
    trust: signed.Trust | None = None,
) -> Checked:
    """Load, verify, warm up and self-test one version folder.

    Args:
        folder: what is, or will be, models/<name>/<version>.
        name, version: which its manifest must confirm.
        threads: of a run, unless the manifest says otherwise.
        max_tensor_bytes: of an input of a request, None for any number.
        trust: whose signature it must have, None for no matter whose or none.

    Raises:
        Rejected: with the reason.
        DeviceUnavailable: CUDA was required and did not start.
    """
    declared, source, signer = _verified(folder, name, version, trust)
    threads = (declared and declared.serving.threads) or threads
    model = source if isinstance(source, Held) else source / MODEL_FILE
    runtime = _runtime(model, choice, threads, declared)
    which = name, version
    return _tried(runtime, declared, which, source, signer, max_tensor_bytes)


def check_file(file: Path, name: str, choice: Choice, threads: int = 1) -> Checked:
    """`check` for an ONNX file by itself: its graph is all of its contract.

    Args:
        file: of any name.

    Raises:
        Rejected, DeviceUnavailable: as `check`.
    """
    own_file(file.parent, file.name)
    _keeps_to_its_folder(file)
    return _tried(_runtime(file, choice, threads, None), None, (name, 1), file.parent, None, None)


def _runtime(
    model: Path | Held, choice: Choice, threads: int, declared: Manifest | None
) -> Runtime:
    try:
        return Runtime(model, choice, threads, declared.left_out if declared else {})
    except CannotLoad as error:
        raise Rejected(f"{MODEL_FILE}: {error}") from None


def _tried(
    runtime: Runtime,
    declared: Manifest | None,
    which: tuple[str, int],
    source: Path | Held,
    signer: str | None,
    max_tensor_bytes: int | None,
) -> Checked:
    """What a session that is loaded takes and gives, from its contract and from a few runs."""
    if not runtime.inputs:
        raise Rejected("the graph has no inputs")
    run = partial(attempt, runtime.run)
    if declared is None:
        _refuse_huge(runtime.inputs)
        example = warm_up.made_up(runtime.inputs, run)
        manifest = _manifest_of(runtime, *which, example)
        signature, test = Signature.of(manifest, max_tensor_bytes, runtime.left_out), None
    else:
        manifest = declared
        _compare_with_graph(manifest, runtime)
        _refuse_huge(manifest.inputs)
        left_out = {**manifest.left_out, **runtime.left_out}
        signature = Signature.of(manifest, max_tensor_bytes, left_out)
        test = selftest.load(source, manifest, signature)
        example = (
            warm_up.first_row(test, signature) if test else warm_up.made_up(manifest.inputs, run)
        )
    warm_up_ms, outputs = warm_up.fastest_ms(run, signature, example)
    _check_outputs(manifest, outputs)
    _check_labels(manifest, outputs)
    return Checked(
        declared=declared,
        manifest=manifest,
        signature=signature,
        runtime=runtime,
        example=example,
        warm_up_ms=warm_up_ms,
        self_test_errors=_self_test(run, test) if test else None,
        test=test,
        source=source,
        signer=signer,
    )


def _verified(
    folder: Path, name: str, version: int, trust: signed.Trust | None
) -> tuple[Manifest | None, Path | Held, str | None]:
    """The manifest if there is one, what to load, and who signed it if that is asked."""
    if trust is not None:
        found = signed.read(folder, name, version, trust, hold=True)
        assert found.held is not None
        return found.manifest, found.held, found.signer
    declared = bundle.read(folder, name, version)
    _keeps_to_its_folder(folder / MODEL_FILE)
    return declared, folder, None


def _keeps_to_its_folder(model: Path) -> None:
    try:
        external.check(model)
    except external.Unreadable as error:
        raise Rejected(str(error)) from None


def _manifest_of(runtime: Runtime, name: str, version: int, example: Tensors | None) -> Manifest:
    """The contract of a bare model: its inputs as declared, its outputs as runs show them."""
    specs = [*runtime.inputs, *runtime.outputs]
    by_rows = all(spec.shape and isinstance(spec.shape[0], str) for spec in specs)
    nameless = {own_name(spec.name, 0) for spec in specs}
    inputs, outputs = _batch(runtime.inputs, nameless), _batch(runtime.outputs, nameless)
    if example is not None:
        seen = observed.look(partial(attempt, runtime.run), inputs, outputs, example)
        outputs, by_rows = seen.outputs, seen.by_rows
    if not by_rows and len(inputs) > 1:
        inputs = runtime.inputs  # nothing says that their first axes have the same size
    return Manifest.model_construct(
        name=name,
        version=version,
        inputs=inputs,
        outputs=outputs,
        dynamic_batch=by_rows,
        left_out=runtime.left_out,
    )


def _batch(specs: list[TensorSpec], nameless: set[str]) -> list[TensorSpec]:
    """The same, with "batch" in place of the names that were made up for the first axes."""
    return [
        spec.model_copy(
            update={"shape": ["batch" if dim in nameless else dim for dim in spec.shape]}
        )
        for spec in specs
    ]


def _refuse_huge(inputs: list[TensorSpec]) -> None:
    """Refuse an input that no request can hold, and whose example would take all the memory."""
    for spec in inputs:
        elements = math.prod([dim for dim in spec.shape if isinstance(dim, int)])
        if elements > _MOST_ELEMENTS:
            raise Rejected(f"input {spec.name!r} has {elements} elements, more than can be served")
        if 0 in spec.shape:
            raise Rejected(
                f"input {spec.name!r} of shape {show(spec.shape)} has no elements: a size of 0 in "
                "a file often means an open one, but onnxruntime takes it at its word"
            )


def _compare_with_graph(manifest: Manifest, runtime: Runtime) -> None:
    """Names, dtypes and fixed sizes of inputs in model.json must be those of model.onnx."""
    for what, declared, graph in (
        ("input", manifest.inputs, runtime.inputs),
        ("output", manifest.outputs, runtime.outputs),
    ):
        in_graph = {spec.name: spec for spec in graph}
        if set(in_graph) != {spec.name for spec in declared} or len(declared) != len(in_graph):
            raise Rejected(
                f"model.json and the graph disagree about the {what}s: "
                f"{[s.name for s in declared]} against {list(in_graph)}"
            )
        for spec in declared:
            other = in_graph[spec.name]
            if spec.dtype not in NUMPY_DTYPES:
                raise Rejected(f"{what} {spec.name!r} is {spec.dtype}, which cannot be served")
            fits = what == "output" or _fits(spec, other.shape)
            if spec.dtype != other.dtype or not fits:
                raise Rejected(
                    f"{what} {spec.name!r} is {spec.dtype} {show(spec.shape)} in model.json, "
                    f"but {other.dtype} {show(other.shape)} in the graph"
                )
            if manifest.dynamic_batch and (not spec.shape or not isinstance(spec.shape[0], str)):
                raise Rejected(
                    f"{what} {spec.name!r} has no open batch axis, but model.json says "
                    "dynamic_batch"
                )


def _fits(declared: TensorSpec, shape: tuple[int, ...] | list[int | str]) -> bool:
    return len(declared.shape) == len(shape) and all(
        a == b or isinstance(a, str) or isinstance(b, str)
        for a, b in zip(declared.shape, shape, strict=True)
    )


def _check_outputs(manifest: Manifest, outputs: Tensors) -> None:
    """What model.json says of the outputs must be what a run gives."""
    for spec in manifest.outputs:
        if spec.name in outputs and not _fits(spec, shape := outputs[spec.name].shape):
            raise Rejected(
                f"output {spec.name!r} is {show(spec.shape)} in model.json, but a run gives "
                f"{show(shape)}"
            )


def _check_labels(manifest: Manifest, outputs: Tensors) -> None:
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


def _self_test(run: Run, test: selftest.SelfTestData) -> dict[str, float]:
    try:
        return selftest.compare(test, run(test.inputs))
    except ServiceError as error:
        raise Rejected(f"self-test failed: {without_paths(error)}") from None
