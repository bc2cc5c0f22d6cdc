"""Every linear op that absorbs a batch-norm: folded and un-folded compute the same."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from converter.folding import Refusal, ops
from converter.proof import Oracle
from patterns.graphs import (
    Graph,
    assert_equal,
    batchnorms,
    count,
    distance,
    feeds,
    fold,
    normalize,
    ort_run,
    signature,
)
from tests.converter.folding.cases import PARTLY

Build = Callable[[Graph], str]
CASES: dict[str, tuple[str, Build]] = {}


def case(op: str, name: str) -> Callable[[Build], Build]:
    def register(build: Build) -> Build:
        CASES[f"{op}-{name}"] = op, build
        return build

    return register


def conv(
    name: str, shape: tuple[int, ...], channels: int = 4, group: int = 1, *, bias: bool = True,
    transpose: bool = False, kernel: int = 3, **attributes: object,
) -> None:  # fmt: skip
    """Register a convolution of an input (N, 4, *shape) to `channels`, and its batch-norm."""

    def build(g: Graph) -> str:
        x = g.input("x", "N", 4, *shape)
        sizes = [kernel] * len(shape)
        weight = (
            g.weight(4, channels // group, *sizes)
            if transpose
            else g.weight(channels, 4 // group, *sizes)
        )
        inputs = [x, weight, *([g.weight(channels)] if bias else [])]
        op = "ConvTranspose" if transpose else "Conv"
        return g.bn(g.op(op, *inputs, group=group, **attributes), channels)

    CASES[f"{'ConvTranspose' if transpose else 'Conv'}-{name}"] = (
        "ConvTranspose" if transpose else "Conv",
        build,
    )


conv("1d", (9,))
conv("2d", (7, 6), channels=5)
conv("3d", (5, 4, 6), channels=3)
conv("no-bias", (7, 6), bias=False)
conv("pads", (7, 6), pads=[1, 0, 2, 1])
conv("asymmetric-1d", (9,), pads=[2, 0])
conv("strides", (9, 8), strides=[2, 3], pads=[1, 1, 1, 1])
conv("dilations", (9, 8), dilations=[2, 1])
conv("same-upper", (7, 6), auto_pad="SAME_UPPER", strides=[2, 2])
conv("same-lower", (7, 6), auto_pad="SAME_LOWER", strides=[2, 2])
conv("valid", (7, 6), auto_pad="VALID")
conv("groups", (7, 6), channels=6, group=2, bias=False)
conv("depthwise", (7, 6), group=4)
conv("depthwise-multiplier-3d", (4, 4, 4), channels=8, group=4, pads=[1] * 6)
conv("one-by-one", (3, 3), kernel=1)
conv("symbolic-size", ("H", "W"), pads=[1, 1, 1, 1])  # type: ignore[arg-type]
conv("1d", (5,), transpose=True)
conv("2d", (5, 4), channels=3, transpose=True, strides=[2, 2], pads=[1, 0, 0, 1])
conv("3d", (3, 2, 3), channels=6, group=2, transpose=True, strides=[2, 1, 2])
conv("no-bias", (5, 4), bias=False, transpose=True)
conv("groups", (5, 4), channels=8, group=2, transpose=True, dilations=[1, 2])
conv("depthwise", (5,), group=4, transpose=True, strides=[3])
conv("output-padding", (5, 4), channels=6, group=2, transpose=True, strides=[2, 3],
     output_padding=[1, 2], bias=False)  # fmt: skip
conv("same-upper", (5, 4), transpose=True, strides=[2, 2], auto_pad="SAME_UPPER")
conv("output-shape", (5, 4), transpose=True, strides=[2, 2], output_shape=[10, 9])


def gemm(name: str, bias: tuple[int, ...] | None, rows: int | str = "N", **attributes: int) -> None:
    def build(g: Graph) -> str:
        x = g.input("x", *((4, rows) if attributes.get("transA") else (rows, 4)))
        weight = g.weight(*((5, 4) if attributes.get("transB") else (4, 5)))
        c = [] if bias is None else [g.weight(*bias)]
        return g.bn(g.op("Gemm", x, weight, *c, **attributes), 5)

    CASES[f"Gemm-{name}"] = "Gemm", build


gemm("plain", (5,))
gemm("no-bias", None)
gemm("alpha-beta", (5,), alpha=0.5, beta=-2.5)  # type: ignore[arg-type]
gemm("alpha-beta-no-bias", None, alpha=0.5, beta=3.0)  # type: ignore[arg-type]
gemm("beta-zero", (5,), beta=0.0)  # type: ignore[arg-type]
gemm("transA", (5,), rows=3, transA=1)
gemm("transB", (5,), transB=1)
gemm("transA-transB", (1, 5), rows=3, transA=1, transB=1, alpha=1.5)  # type: ignore[arg-type]
gemm("scalar-bias", ())
gemm("one-number", (1,), beta=2.0)  # type: ignore[arg-type]
gemm("row-bias", (1, 5))
gemm("full-bias", (3, 5), rows=3, beta=0.25)  # type: ignore[arg-type]
gemm("one-by-one-bias", (1, 1))


@case("MatMul", "rank-2")
def _(g: Graph) -> str:
    return g.bn(g.op("MatMul", g.input("x", "N", 4), g.weight(4, 5)), 5)


@case("MatMul", "no-shift")
def _(g: Graph) -> str:
    y = g.op("MatMul", g.input("x", "N", 4), g.weight(4, 5))
    still = g.statistics(5, beta=np.zeros(5), mean=np.zeros(5))
    return g.op("BatchNormalization", y, *still)


@case("MatMul", "rank-3-transposed")
def _(g: Graph) -> str:
    y = g.op("MatMul", g.input("x", "N", 7, 4), g.weight(4, 5))
    return g.bn(g.op("Transpose", y, perm=[0, 2, 1]), 5)


@case("MatMul", "rank-4-transposed")
def _(g: Graph) -> str:
    y = g.op("MatMul", g.input("x", "N", 2, 7, 4), g.weight(4, 5))
    return g.bn(g.op("Transpose", y, perm=[0, 3, 1, 2]), 5)


@case("Einsum", "contraction")
def einsum(g: Graph) -> str:
    x = g.input("x", "N", 2, 7, 4)
    return g.bn(g.op("Einsum", x, g.weight(4, 5), equation="nhwc,co->nohw"), 5)


@case("MatMul", "batched-weight")
def _(g: Graph) -> str:
    y = g.op("MatMul", g.input("x", 2, 7, 4), g.weight(2, 4, 5))
    return g.bn(g.op("Transpose", y, perm=[0, 2, 1]), 5)


@case("MatMul", "rank-4-axis-1-is-last-after-reshape")
def _(g: Graph) -> str:
    y = g.op("MatMul", g.input("x", "N", 7, 4), g.weight(4, 5))
    return g.bn(g.op("Reshape", y, g.const([-1, 5])), 5)


@case("MatMul", "add")
def _(g: Graph) -> str:
    y = g.op("MatMul", g.input("x", "N", 4), g.weight(4, 5))
    return g.bn(g.op("Add", y, g.weight(5)), 5)


@case("BatchNormalization", "first-goes-too")
def _(g: Graph) -> str:
    y = g.op("Conv", g.input("x", "N", 3, 5, 5), g.weight(4, 3, 3, 3))
    return g.bn(g.bn(g.bn(y, 4), 4), 4)


@case("MatMul", "weight-on-the-left")
def _(g: Graph) -> str:
    """W x mixes the steps of (N, 4, 7) to 5: its rows are axis 1."""
    return g.bn(g.op("MatMul", g.weight(5, 4), g.input("x", "N", 4, 7)), 5)


@case("MatMul", "weight-on-the-left-with-its-bias")
def _(g: Graph) -> str:
    y = g.op("MatMul", g.weight(5, 4), g.input("x", "N", 4, 7))
    return g.bn(g.op("Add", y, g.weight(5, 1)), 5)


@case("MatMul", "weight-on-the-left-of-a-matrix")
def _(g: Graph) -> str:
    y = g.op("MatMul", g.weight(5, 4), g.input("x", 4, 3))
    return g.bn(g.op("Transpose", y), 5)


@case("LayerNormalization", "last-axis")
def _(g: Graph) -> str:
    y = g.op("LayerNormalization", g.input("x", "N", 7, 4), g.weight(4), g.weight(4))
    return g.bn(g.op("Transpose", y, perm=[0, 2, 1]), 4)


@case("LayerNormalization", "without-bias")
def _(g: Graph) -> str:
    y = g.op("LayerNormalization", g.input("x", "N", 7, 4), g.weight(4), epsilon=1e-3)
    return g.bn(g.op("Transpose", y, perm=[0, 2, 1]), 4)


@case("LayerNormalization", "over-channels-and-positions")
def _(g: Graph) -> str:
    y = g.op("LayerNormalization", g.input("x", "N", 4, 7), g.weight(4, 7), g.weight(4, 7), axis=1)
    return g.bn(y, 4)


@case("InstanceNormalization", "of-an-image")
def _(g: Graph) -> str:
    x = g.input("x", "N", 4, 5, 5)
    return g.bn(g.op("InstanceNormalization", x, g.weight(4), g.weight(4)), 4)


@case("GroupNormalization", "one-number-a-channel")
def _(g: Graph) -> str:
    g.opset = 21
    x = g.input("x", "N", 4, 5, 5)
    return g.bn(g.op("GroupNormalization", x, g.weight(4), g.weight(4), num_groups=2), 4)


@pytest.mark.parametrize("name", CASES)
def test_float64(name: str) -> None:
    g = Graph()
    g.output(CASES[name][1](g))
    model = g.model()
    before = normalize(model)
    folded = fold(model)
    after = folded.model
    edits = [edit for route in folded.plan.routes for edit in route.edits]
    assert {edit.update.side for edit in edits} == {"after"}
    assert batchnorms(before) > 0
    assert batchnorms(after) == 0
    assert_equal(model, after)
    assert count(after) <= count(before)
    assert signature(after) == signature(before)


@pytest.mark.parametrize("name", CASES)
def test_onnxruntime_float32(name: str) -> None:
    g = Graph("float32", seed=3)
    g.output(CASES[name][1](g))
    model = g.model()
    after = fold(model).model
    assert batchnorms(after) == 0
    given = feeds(model)
    exact = Oracle(model).run(given)[g.outputs[0].name]
    assert distance(ort_run(model, given)[0], ort_run(after, given)[0]) < 3e-6
    assert distance(exact, ort_run(after, given)[0]) < 3e-6


@pytest.mark.parametrize("op", sorted(ops.BACKWARD.keys() - PARTLY))  # the others: test_moves.py
def test_every_entry_has_a_case(op: str) -> None:
    assert any(op == covered for covered, _ in CASES.values())


def test_a_batchnorm_that_stays_takes_the_next() -> None:
    """Nothing before the first can absorb it; the second one goes into its gamma and beta."""
    g = Graph()
    first = g.bn(g.op("Relu", g.input("x", "N", 3, 4)), 3)
    g.output(g.bn(g.bn(first, 3), 3))
    model = g.model()
    after = fold(model)
    assert [decision.folded for decision in after.plan.decisions] == [False, True, True]
    assert batchnorms(after.model) == 1
    assert_equal(model, after.model)


@pytest.mark.parametrize("training", [True, False])
def test_a_batchnorm_in_training_mode_takes_the_next(training: bool) -> None:
    g = Graph()
    x = g.op("Conv", g.input("x", "N", 3, 4), g.weight(3, 3, 1))
    g.output(g.bn(g.bn(x, 3, training_mode=int(training)), 3))
    model = g.model()
    after = fold(model).model
    assert batchnorms(after) == int(training)
    assert_equal(model, after)


def test_per_position_gamma_takes_nothing() -> None:
    """spatial=0 (opsets 7 and 8) has a gamma for every position, which broadcasts otherwise."""
    g = Graph(opset=8)
    x = g.input("x", "N", 2, 2, 2)
    parameters = [g.weight(2, 2, 2) for _ in range(3)] + [g.const(np.full((2, 2, 2), 1.5))]
    y = g.op("BatchNormalization", x, *parameters, spatial=0)
    g.output(g.bn(y, 2))
    model = g.model()
    after = fold(model)
    assert [decision.outcome.code for decision in after.plan.kept] == ["unsupported-form"] * 2  # type: ignore[union-attr]
    assert_equal(model, after.model)


def test_a_weight_on_the_left_has_rows_not_columns() -> None:
    """(N, 4, 7) @ the last axis: the batch-norm's axis is what W sums over, or what it leaves."""
    g = Graph()
    y = g.op("MatMul", g.weight(7, 7), g.input("x", "N", 7, 7))
    g.output(g.bn(g.op("Transpose", y, perm=[0, 2, 1]), 7))
    (decision,) = fold(g).plan.decisions
    assert isinstance(decision.outcome, Refusal)
    assert decision.outcome.code == "wrong-axis"


def test_a_groupnorm_with_one_number_a_group_takes_nothing() -> None:
    g = Graph("float32", opset=18)
    x = g.input("x", "N", 4, 5, 5)
    g.output(g.bn(g.op("GroupNormalization", x, g.weight(2), g.weight(2), num_groups=2), 4))
    (decision,) = fold(g).plan.decisions
    assert isinstance(decision.outcome, Refusal)
    assert "2 channels where the batch-norm has 4" in decision.outcome.sentence


def test_a_layernorm_of_other_axes_takes_nothing() -> None:
    g = Graph()
    y = g.op("LayerNormalization", g.input("x", "N", 7, 7), g.weight(7), g.weight(7))
    g.output(g.bn(y, 7))
    (decision,) = fold(g).plan.decisions
    assert isinstance(decision.outcome, Refusal)
    assert decision.outcome.code == "wrong-axis"


def test_matmul_shift_becomes_an_add_in_the_batchnorms_stead() -> None:
    g = Graph()
    y = g.bn(g.op("MatMul", g.input("x", "N", 4), g.weight(4, 5, name="fc.weight")), 5)
    g.output(g.op("Relu", y))
    after = fold(g).model
    assert [node.op_type for node in after.graph] == ["MatMul", "Add", "Relu"]
    assert "fc.bias" in after.graph.initializers


def test_gemm_keeps_alpha_and_sets_beta() -> None:
    g = Graph()
    y = g.op("Gemm", g.input("x", "N", 4), g.weight(4, 5), g.weight(5), alpha=0.5, beta=2.0)
    g.output(g.bn(y, 5))
    (node,) = fold(g).model.graph
    assert node.attributes["alpha"].as_float() == 0.5
    assert node.attributes["beta"].as_float() == 1.0
