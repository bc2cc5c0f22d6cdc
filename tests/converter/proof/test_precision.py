"""Outputs of float32 that were computed in a half type are measured by that type."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto

from converter.evaluation.normalize import normalize
from converter.proof.measure import BY, limits_of
from converter.proof.precision import narrower
from patterns.graphs import Graph
from tests.converter.proof.test_verify import changed, folded, prove

WIDE = TensorProto.FLOAT


def casts(half: str, depth: int = 6, seed: int = 0) -> ir.Model:
    """float32 in and out, with a Cast at either end of a net of half weights."""
    g = Graph(half, opset=17, seed=seed)
    kind = {"float16": TensorProto.FLOAT16, "bfloat16": TensorProto.BFLOAT16}[half]
    y = g.op("Cast", g.input("x", "b", 3, 8, 8, dtype="float32"), to=kind)
    channels = 3
    for index in range(depth):
        weight = g.rng.standard_normal((8, channels, 3, 3)) / np.sqrt(9.0 * channels)
        y = g.op("Conv", y, g.const(weight, f"conv{index}.weight"), pads=[1] * 4)
        y, channels = g.op("Relu", g.bn(y, 8, name=f"bn{index}")), 8
    g.rename(g.op("Cast", y, to=WIDE), "y")
    g.output("y", dtype="float32", shape=["b", 8, 8, 8])
    return g.model()


@pytest.mark.parametrize("seed", range(6))
def test_a_right_fold_of_float16_weights_between_casts_is_proven(seed: int) -> None:
    model = casts("float16", seed=seed)
    assert narrower(normalize(model)) == {"y": "float16"}
    proof = prove(model)
    assert proof.verdict == "equal"
    assert all(m.half for m in proof.measurements)


@pytest.mark.parametrize("name", ["conv0.weight", "conv5.weight"])
def test_a_wrong_one_is_not(name: str) -> None:
    model = casts("float16")
    wrong = changed(folded(model), name, lambda w: w * 1.05)
    assert prove(model, wrong).verdict == "differs"


def test_only_what_came_by_a_half_type_is_measured_by_it() -> None:
    """Through a body of an If as well; an output beside it keeps its own measure."""
    g = Graph("float32", opset=17)
    x = g.input("x", "b", 4)
    wide = g.op("Relu", x)
    sums = g.op("ReduceSum", x, g.const(np.array([0, 1])), keepdims=0)
    condition = g.op("Greater", sums, g.const(np.float32(0.0)))
    branches = []
    for to in (TensorProto.FLOAT16, TensorProto.BFLOAT16):
        body = g.body()
        end = body.op("Cast", body.op("Cast", x, to=to), to=WIDE)
        body.output(end)
        branches.append(body.graph())
    by_if = g.op("If", condition, then_branch=branches[0], else_branch=branches[1])
    behind = g.op("Add", by_if, wide)
    half = g.op("Cast", x, to=TensorProto.FLOAT16)
    g.output(wide, shape=["b", 4])
    g.output(behind, shape=["b", 4])
    g.output(half, dtype="float16", shape=["b", 4])
    assert narrower(normalize(g.model())) == {behind: "bfloat16"}


def test_its_numbers_are_as_large_as_its_own_type_allows() -> None:
    limits = limits_of(f"float32{BY}float16")
    narrow, own = limits_of("float16"), limits_of("float32")
    assert limits is not None
    assert narrow is not None
    assert own is not None
    assert (limits.roundoff, limits.usable, limits.half) == (narrow.roundoff, narrow.usable, True)
    assert limits.largest == own.largest > narrow.largest
    assert limits_of("int64") is None
