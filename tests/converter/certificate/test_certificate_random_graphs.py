"""On random graphs: a fold is certified; what moves the output is not."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import assume, event, given, settings
from hypothesis import strategies as st
from onnx import numpy_helper

from benchmarks.judged import allowed, distance, outcome
from benchmarks.populations import Pair, folded, random_pair
from converter.certificate import Certified, certify
from patterns.graphs import Graph

pytestmark = pytest.mark.slow

SEEDS = st.integers(0, 2**31)


def affine(seed: int, layers: int) -> ir.Model:
    """Only what is affine: batch-norms, matrices, constants, sums of branches."""
    g = Graph("float32", seed=seed)
    rng = np.random.default_rng(seed)
    width = int(rng.integers(2, 5))
    x = g.input("x", "N", width)
    values = [x]
    for _ in range(layers):
        y = values[-1]
        match int(rng.integers(5)):
            case 0:
                y = g.bn(y, width)
            case 1:
                y = g.op("MatMul", y, g.weight(width, width))
            case 2:
                y = g.op("Gemm", y, g.weight(width, width), g.weight(width), transB=1)
            case 3:
                y = g.op("Mul", g.op("Sub", y, g.weight(width)), g.weight(1, width))
            case _:
                y = g.op("Add", y, values[int(rng.integers(len(values)))])
        values.append(y)
    g.output(g.rename(g.op("Identity", values[-1]), "y"))
    return g.model()


@given(SEEDS, st.integers(1, 8))
@settings(max_examples=60, deadline=None)
def test_a_fold_of_an_affine_graph_is_certified(seed: int, layers: int) -> None:
    found = folded("affine", affine(seed, layers))
    first = certify(found.original, ir.from_proto(found.folded))
    assert isinstance(first, Certified), str(first)
    assert distance(ir.to_proto(found.original), found.folded) is not None


@given(SEEDS, st.integers(1, 8), SEEDS, st.floats(-6, 0))
@settings(max_examples=150, deadline=None)
def test_an_affine_graph_whose_output_moves_is_not(
    seed: int, layers: int, place: int, size: float
) -> None:
    found = folded("affine", affine(seed, layers))
    changed = _changed(found.folded, place, 10.0**size)
    assume(changed is not None)
    assert changed is not None
    apart = distance(found.folded, changed)
    certified = certify(found.original, ir.from_proto(changed))
    event("certified" if certified else "refused")
    assert apart is not None
    if certified:
        assert apart <= allowed(found)
    if apart > 1e-3:
        assert not certified


def _changed(model: onnx.ModelProto, place: int, size: float) -> onnx.ModelProto | None:
    """One number of a constant, by a share of it."""
    made = onnx.ModelProto()
    made.CopyFrom(model)
    fit = [t for t in made.graph.initializer if t.data_type == onnx.TensorProto.FLOAT]
    if not fit:
        return None
    tensor = fit[place % len(fit)]
    array = numpy_helper.to_array(tensor).copy()
    array.reshape(-1)[place % array.size] *= 1 + size
    tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    return made


@given(SEEDS)
@settings(max_examples=40, deadline=None)
def test_a_random_graph_is_certified_against_itself(seed: int) -> None:
    found: Pair = random_pair(seed)
    for model in (found.users, found.original):
        assert certify(model, model), str(certify(model, model))


@given(SEEDS, SEEDS, st.sampled_from(["folded", "original"]))
@settings(max_examples=100, deadline=None)
def test_a_mutant_of_a_random_graph_that_is_certified_computes_the_same(
    seed: int, place: int, of: str
) -> None:
    what, told = outcome(random_pair(seed), place, of=of)
    event(what)
    assert what != "wrong", told
