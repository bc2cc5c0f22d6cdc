"""What becomes of a mutant: refused; or certified, and then evaluated in float64.

    equal     no number differs
    moved     by no more than a certificate allows
    wrong     by more than that: a defect of the checker
    not run   the evaluator has no result for it

How much is allowed: every weight may move by k roundings, so each is moved by k, up or down at
random, and what that does to the output, `SPARE` times, is what a certified mutant may do; and
`LIMIT` roundings of the largest output where that is more.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np
import onnx
import onnx_ir as ir
from onnx import AttributeProto, numpy_helper

from benchmarks.mutants import ROUNDING, mutant
from benchmarks.populations import Pair
from converter.certificate import ROUNDINGS, Certified, certify
from converter.proof import Oracle
from patterns.graphs import Feeds, feeds

LIMIT = 10.0
SPARE = 4.0
# Seeds of the inputs, and batches. A truth is false for even seeds and true for odd ones.
BATCHES = ((1, 2), (2, 3), (3, 1), (4, 5))
# Sizes for axes of open size behind the first, the first that the graph can be evaluated with.
SIZES = (7, 16, 32, 64)


def unit(model: onnx.ModelProto) -> float:
    """One rounding of the coarsest type of floats in a graph."""
    names = {a.dtype.name for _, a in _weights(model.graph)}
    return max((ROUNDING[n] for n in names if n in ROUNDING), default=ROUNDING["float32"])


def _weights(graph: onnx.GraphProto) -> list[tuple[onnx.TensorProto, np.ndarray]]:
    tensors = list(graph.initializer)
    found = []
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == AttributeProto.TENSOR:
                tensors.append(attribute.t)
            if attribute.type == AttributeProto.GRAPH:
                found += _weights(attribute.g)
    return [*found, *((t, numpy_helper.to_array(t)) for t in tensors)]


def given(model: ir.Model, seed: int, batch: int, size: int) -> Feeds:
    """Random inputs, with truths by the seed and `size` for the open axes behind the first."""
    sized = model.clone()
    for value in sized.graph.inputs:
        assert value.shape is not None
        value.shape = ir.Shape(
            size if axis and not isinstance(dim, int) else dim
            for axis, dim in enumerate(value.shape)
        )
    found = feeds(sized, seed, batch)
    return {
        name: np.full_like(array, seed % 2 == 1) if array.dtype == np.bool_ else array
        for name, array in found.items()
    }


def distance(folded: onnx.ModelProto, changed: onnx.ModelProto) -> float | None:
    """The largest difference of an output, relative to its largest number, in float64.

    None: one of them cannot be evaluated; infinite: the outputs have other shapes.
    """
    one, other = ir.from_proto(folded), ir.from_proto(changed)
    worst: float | None = None
    for seed, batch in BATCHES:
        runs = _evaluated(one, seed, batch)
        if runs is None:
            continue  # a graph of one batch alone
        inputs, expected = runs
        try:
            found = Oracle(other).run(inputs)
        except Exception:  # noqa: BLE001 - whatever it is, there is no number
            return None
        worst = max(worst or 0.0, _apart(expected, found))
    return worst


def _evaluated(model: ir.Model, seed: int, batch: int) -> tuple[Feeds, Feeds] | None:
    for size in SIZES:
        try:
            inputs = given(model, seed, batch, size)
            return inputs, Oracle(model).run(inputs)
        except Exception:  # noqa: BLE001 - whatever it is, there is no number
            continue
    return None


def _apart(expected: Feeds, found: Feeds) -> float:
    worst = 0.0
    for name, array in expected.items():
        a, b = np.asarray(array, float), np.asarray(found[name], float)
        if a.shape != b.shape:
            return float("inf")
        with np.errstate(all="ignore"):
            apart = np.where((a == b) | (np.isnan(a) & np.isnan(b)), 0.0, np.abs(a - b))
        apart = np.where(np.isnan(apart), np.inf, apart)
        scale = max(float(np.max(np.abs(a), where=np.isfinite(a), initial=0.0)), 1e-30)
        worst = max(worst, float(np.max(apart, initial=0.0)) / scale)
    return worst


@lru_cache(maxsize=30)
def _certified(pair: Pair) -> bool:
    return bool(certify(pair.original, ir.from_proto(pair.folded)))


@lru_cache(maxsize=30)
def allowed(pair: Pair) -> float:
    """What a certified mutant of it may differ by, of an output."""
    moved = [distance(pair.folded, _moved(pair.folded, seed)) or 0.0 for seed in (0, 1)]
    return max(LIMIT * unit(pair.folded), SPARE * max(moved))


def _moved(model: onnx.ModelProto, seed: int) -> onnx.ModelProto:
    rng = np.random.default_rng(seed)
    made = onnx.ModelProto()
    made.CopyFrom(model)
    for tensor, array in _weights(made.graph):
        if array.dtype.name not in ROUNDING:
            continue
        by = ROUNDINGS * ROUNDING[array.dtype.name] * rng.choice([-1.0, 1.0], array.shape)
        # In double, so that roundings of the type are not rounded again.
        double = numpy_helper.from_array(array.astype(np.float64) * (1 + by), tensor.name)
        tensor.CopyFrom(double)
    return made


def outcome(
    pair: Pair, seed: int, *, of: str = "folded", tell: Callable[[str], None] = lambda _: None
) -> tuple[str, str]:
    """What became of a mutant, and what it is.

    Args:
        of: which graph is changed, "folded" or "original".
        tell: is told how far it came, as an evaluator may end the process that it is in.
    """
    if not _certified(pair):
        return "not certified unchanged", pair.name
    unchanged = pair.folded if of == "folded" else ir.to_proto(pair.original)
    made = mutant(unchanged, seed)
    if made is None:
        return "unchanged", ""
    changed, told = made
    told = f"{pair.name}, {of}, seed {seed}: {told}"
    tell(f"certifying {told}")
    try:
        model = ir.from_proto(changed)
    except Exception:  # noqa: BLE001 - a mutant may be no graph
        return "unreadable", told
    first, second = (
        (pair.original, model) if of == "folded" else (model, ir.from_proto(pair.folded))
    )
    if not isinstance(certify(first, second), Certified):
        return "refused", told
    tell(f"evaluating {told}")
    worst = distance(unchanged, changed)
    if worst is None:
        return "not run", told
    if worst == 0.0:
        return "equal", told
    moved = worst <= allowed(pair)
    return "moved" if moved else "wrong", f"{told}, {worst:.1e} where {allowed(pair):.1e} may be"
