"""The first runs of a model, before any client waits for one.

A first run allocates, and on a GPU chooses algorithms and loads kernels; the first run of each
new shape does so again. So one row is run a few times, and the manifest can name sizes of other
open axes (`serving.warm_up_sizes`), each of which is run once.

Shapes are never padded to a common one: what padding does to the answer depends on the graph. A
mean over time, a softmax without a mask, a bidirectional recurrent network or a convolution at
the border all change, by little enough to go unnoticed.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Sequence

import numpy as np

from service.batching.batch import Run
from service.errors import ServiceError
from service.manifest import Manifest, TensorSpec
from service.models import selftest
from service.models.bundle import Rejected
from service.models.runtime import without_paths
from service.signature import NUMPY_DTYPES, STRING, Signature, Tensors

# Sizes to try, in turn, for the open axes of a model that comes without a self-test.
_GUESSED_SIZES = (1, 32, 224)
# Strings to try: a model may parse them as numbers, or refuse "0".
_GUESSED_TEXTS = ("0", "")
_RUNS = 3
_LONG_RUN_MS = 100.0


def sizes(run: Run, manifest: Manifest, signature: Signature, example: Tensors | None) -> int:
    """Run once every combination of the sizes that the manifest names; how many these were.

    Args:
        run: may raise a ServiceError.
        manifest: its `serving.warm_up_sizes` is {name of an open axis: sizes}.
        example: whose values are repeated, so that indices stay valid ones; zeros without it.

    Raises:
        Rejected: one of them cannot be run.
    """
    wanted = manifest.serving.warm_up_sizes
    if not wanted:
        return 0
    for chosen in itertools.product(*wanted.values()):
        named = dict(zip(wanted, chosen, strict=True))
        try:
            tensors = _of_size(named, signature, example)
            signature.check(tensors)
            run(tensors)
        except ServiceError as error:
            said = ", ".join(f"{name}={size}" for name, size in named.items())
            raise Rejected(f"warm-up with {said} failed: {without_paths(error)}") from None
    return math.prod(map(len, wanted.values()))


def _of_size(named: dict[str, int], signature: Signature, example: Tensors | None) -> Tensors:
    tensors = {}
    for name, spec in signature.inputs.items():
        given = None if example is None else example[name]
        shape = []
        for axis, dim in enumerate(spec.shape):
            usual = 1 if given is None else given.shape[axis]
            shape.append(dim if isinstance(dim, int) else named.get(dim, usual))
        tensors[name] = _filled(shape, spec.dtype) if given is None else np.resize(given, shape)
    return tensors


def first_row(test: selftest.SelfTestData, signature: Signature) -> Tensors:
    """One row of the self-test's inputs, all of them where rows are not counted."""
    return {k: a[:1] for k, a in test.inputs.items()} if signature.batched else test.inputs


def made_up(inputs: Sequence[TensorSpec], run: Run) -> Tensors | None:
    """Zeros of the smallest size that the model accepts; None when it accepts none tried."""
    texts = any(spec.dtype == STRING for spec in inputs)
    for text, size in itertools.product(_GUESSED_TEXTS[: 1 + texts], _GUESSED_SIZES):
        zeros = {
            spec.name: _filled(
                [
                    dim if isinstance(dim, int) else 1 if axis == 0 else size
                    for axis, dim in enumerate(spec.shape)
                ],
                spec.dtype,
                text,
            )
            for spec in inputs
        }
        try:
            run(zeros)
        except ServiceError:
            continue
        return zeros
    return None


def _filled(shape: list[int], dtype: str, text: str = _GUESSED_TEXTS[0]) -> np.ndarray:
    """Zeros, or strings that are all the same."""
    return np.full(shape, text, object) if dtype == STRING else np.zeros(shape, NUMPY_DTYPES[dtype])


def fastest_ms(
    run: Run, signature: Signature, example: Tensors | None
) -> tuple[float | None, Tensors]:
    """Run one row a few times; the fastest, in milliseconds, and the outputs."""
    if example is None:
        return None, {}
    fastest = float("inf")
    try:
        signature.check(example)
        for _ in range(_RUNS):
            started = time.perf_counter()
            outputs = run(example)
            last = (time.perf_counter() - started) * 1000
            fastest = min(fastest, last)
            if last > _LONG_RUN_MS:
                break  # its first run is as good as its next ones
    except ServiceError as error:
        raise Rejected(f"warm-up failed: {without_paths(error)}") from None
    return fastest, outputs
