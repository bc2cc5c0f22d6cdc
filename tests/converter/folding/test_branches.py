"""Parallel branches that are summed become one op, and only those: what holds for all of them.

The geometry of convolutions and pools is tested in `test_branch_windows.py`, matrices are in
`test_branch_matrices.py`, random sums in `test_branch_sums.py`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import numpy_helper

from converter.evaluation.normalize import normalize
from converter.folding import Folded
from patterns.graphs import Graph, assert_equal, batchnorms, count, fold

PADS = {kernel: [kernel // 2] * 4 for kernel in (1, 2, 3, 5, 7)}


def checked(g: Graph) -> Folded:
    """Fold, and compare in float64."""
    before = normalize(g.model())
    folded = fold(g)
    assert_equal(before, folded.model)
    assert count(folded.model) <= count(before)
    return folded


def conv(g: Graph, x: str, kernel: int, channels: int = 4, group: int = 1, **more: Any) -> str:
    more.setdefault("pads", PADS[kernel])
    return g.op(
        "Conv", x, g.weight(channels, 4 // group, kernel, kernel), group=group, **more
    )  # fmt: skip


@pytest.mark.parametrize("group", [1, 2, 4])
def test_repvgg_block(group: int) -> None:
    """3x3 + 1x1 + identity, each with a batch-norm: one 3x3 convolution with a bias."""
    g = Graph()
    x = g.op("Relu", g.input("x", "N", 4, 6, 7))
    three = g.bn(conv(g, x, 3, group=group), 4)
    one = g.bn(conv(g, x, 1, group=group), 4)
    total = g.op("Add", g.op("Add", three, one), g.bn(x, 4, name="identity"))
    g.output(g.op("Relu", total), shape=["N", 4, 6, 7])
    folded = checked(g)
    assert batchnorms(folded.model) == 0
    assert [node.op_type for node in folded.model.graph] == ["Relu", "Conv", "Relu"]
    route = folded.plan.decisions[2].outcome
    assert route.direction == "in parallel"


def test_a_sum_of_five_branches_in_any_shape_of_tree() -> None:
    g = Graph()
    x = g.op("Sigmoid", g.input("x", "N", 4, 6, 6))
    a, b, c = (g.bn(conv(g, x, kernel), 4) for kernel in (3, 1, 3))
    left = g.op("Add", g.bn(x, 4), a)
    right = g.op("Add", g.op("Add", b, c), conv(g, x, 5))
    g.output(g.op("Add", left, right), shape=["N", 4, 6, 6])
    folded = checked(g)
    assert [node.op_type for node in folded.model.graph] == ["Sigmoid", "Conv"]


def test_a_residual_around_one_convolution_goes_into_it() -> None:
    g = Graph()
    x = g.op("Relu", g.input("x", "N", 4, 6, 6))
    g.output(g.op("Add", g.bn(conv(g, x, 3), 4), x), shape=["N", 4, 6, 6])
    assert count(checked(g).model, "Add") == 0


def test_a_batchnorm_behind_a_sum_goes_into_what_the_sum_became() -> None:
    g = Graph()
    x = g.op("Relu", g.input("x", "N", 4, 6, 6))
    y = g.bn(g.op("Add", conv(g, x, 3), x), 4)
    g.output(g.op("Relu", y), shape=["N", 4, 6, 6])
    folded = checked(g)
    assert [node.op_type for node in folded.model.graph] == ["Relu", "Conv", "Relu"]
    assert folded.plan.folded[0].site.name == folded.plan.decisions[0].site.name


def test_a_batchnorm_that_went_with_its_branch_takes_nothing_more() -> None:
    """The second goes into the convolution that the sum has become, not into the first."""
    g = Graph()
    x = g.input("x", "N", 4, 6, 6)
    total = g.op("Add", g.bn(x, 4), conv(g, x, 3, group=4))
    g.output(g.bn(total, 4), shape=["N", 4, 6, 6])
    folded = checked(g)
    assert [node.op_type for node in folded.model.graph] == ["Conv"]


def test_branches_of_different_inputs_stay_apart() -> None:
    g = Graph()
    x = g.input("x", "N", 4, 6, 6)
    y = g.op("Relu", x)
    g.output(g.op("Add", conv(g, x, 3), conv(g, y, 3)), shape=["N", 4, 6, 6])
    assert count(checked(g).model, "Conv") == 2


def test_groups_of_one_sum_merge_apart() -> None:
    g = Graph()
    x = g.input("x", "N", 4, 6, 6)
    y = g.op("Relu", x)
    first = g.op("Add", conv(g, x, 3), conv(g, y, 1))
    second = g.op("Add", conv(g, x, 1), conv(g, y, 3))
    g.output(g.op("Add", first, second), shape=["N", 4, 6, 6])
    folded = checked(g)
    assert count(folded.model, "Conv") == 2
    assert count(folded.model, "Add") == 1


def test_a_sum_that_is_an_output_keeps_its_name() -> None:
    g = Graph()
    x = g.input("x", "N", 4, 6, 6)
    g.output(g.rename(g.op("Add", conv(g, x, 3), conv(g, x, 1)), "y"), shape=["N", 4, 6, 6])
    folded = checked(g)
    assert [value.name for value in folded.model.graph.outputs] == ["y"]
    assert count(folded.model) == 1


def test_a_branch_that_others_read_stays() -> None:
    g = Graph()
    x = g.input("x", "N", 4, 6, 6)
    one = conv(g, x, 1)
    total = g.op("Add", conv(g, x, 3), one)
    g.output(g.op("Mul", total, one), shape=["N", 4, 6, 6])
    assert count(checked(g).model, "Conv") == 2


def test_a_partial_sum_that_others_read_keeps_its_branches() -> None:
    g = Graph()
    x = g.input("x", "N", 4, 6, 6)
    part = g.op("Add", conv(g, x, 3), conv(g, x, 1))
    total = g.op("Add", part, conv(g, x, 3))
    g.output(total, shape=["N", 4, 6, 6])
    g.output(part, shape=["N", 4, 6, 6])
    folded = checked(g)
    assert count(folded.model, "Conv") == 2


def test_one_channel_that_is_broadcast_stays_apart() -> None:
    g = Graph()
    x = g.input("x", "N", 4, 6, 6)
    g.output(g.op("Add", conv(g, x, 3), conv(g, x, 1, channels=1)), shape=["N", 4, 6, 6])
    assert count(checked(g).model, "Conv") == 2


def test_a_batchnorm_that_is_to_be_left_is_no_branch() -> None:
    g = Graph()
    x = g.op("Relu", g.input("x", "N", 4, 6, 6))
    g.output(g.op("Add", conv(g, x, 3), g.bn(x, 4, name="id")), shape=["N", 4, 6, 6])
    assert batchnorms(fold(g).model) == 0
    assert batchnorms(fold(g, skip=["id"]).model) == 1


def test_a_merge_that_overflows_is_taken_back() -> None:
    g = Graph("float16")
    x = g.input("x", "N", 2, 4, 4)
    weights = [g.const([[[[4e4]], [[1.0]]], [[[1.0]], [[1.0]]]]) for _ in range(2)]
    g.output(g.op("Add", *(g.op("Conv", x, w) for w in weights)), shape=["N", 2, 4, 4])
    folded = fold(g)
    assert count(folded.model, "Conv") == 2
    assert not folded.plan.merges


def test_the_report_names_what_was_merged() -> None:
    g = Graph()
    x = g.op("Relu", g.input("x", "N", 4, 6, 6))
    g.output(g.op("Add", conv(g, x, 3), g.bn(x, 4, name="id")), shape=["N", 4, 6, 6])
    (merge,) = fold(g).plan.merges
    assert [branch.name for branch in merge.branches] == ["batch-norm id"]


def test_signs() -> None:
    """-(conv - bn(x)) + x - (pool - x): everything is one convolution, its sign turned."""
    g = Graph()
    x = g.op("Relu", g.input("x", "N", 4, 6, 6))
    pool = g.op("AveragePool", x, kernel_shape=[3, 3], pads=[1] * 4, count_include_pad=1)
    inner = g.op("Sub", conv(g, x, 3), g.bn(x, 4))
    right = g.op("Sub", pool, x)
    g.output(g.op("Sub", g.op("Sub", x, inner), right), shape=["N", 4, 6, 6])
    folded = checked(g)
    assert [node.op_type for node in folded.model.graph] == ["Relu", "Conv"]
    assert batchnorms(folded.model) == 0


def test_a_target_that_is_subtracted_beside_others_that_stay() -> None:
    g = Graph()
    x, y, z = (g.input(name, "N", 4, 6, 6) for name in "xyz")
    left = g.op("Sub", y, conv(g, x, 3))
    right = g.op("Sub", g.op("Sub", z, x), g.op("Sigmoid", y))
    g.output(g.op("Add", left, right), shape=["N", 4, 6, 6])
    folded = checked(g)
    ops = sorted(node.op_type for node in folded.model.graph)
    assert ops == ["Add", "Add", "Conv", "Sigmoid", "Sub"]


def test_a_sum_node_of_many_inputs() -> None:
    g = Graph()
    x, y, z = (g.input(name, "N", 4, 6, 6) for name in "xyz")
    total = g.op("Sum", conv(g, x, 3), y, g.bn(x, 4), z, conv(g, x, 1))
    g.output(total, shape=["N", 4, 6, 6])
    folded = checked(g)
    assert [node.op_type for node in folded.model.graph] == ["Conv", "Sum"]


def test_a_sum_node_from_which_another_is_subtracted_grows_no_nodes() -> None:
    g = Graph()
    x, y, z, w = (g.input(name, "N", 4, 6, 6) for name in "xyzw")
    total = g.op("Sub", g.op("Sum", conv(g, x, 3), y, z), g.op("Sum", conv(g, x, 1), z, w))
    g.output(total, shape=["N", 4, 6, 6])
    folded = checked(g)
    assert [node.op_type for node in folded.model.graph] == ["Conv", "Sum", "Add", "Sub"]


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("shape", [(), (1,), (4, 1, 1), (1, 4, 1, 1)])
def test_a_constant_goes_into_the_bias(shape: tuple[int, ...], bias: bool) -> None:
    g = Graph()
    x = g.input("x", "N", 4, 6, 6)
    more = [g.weight(4)] if bias else []
    y = g.op("Conv", x, g.weight(4, 4, 1, 1), *more)
    g.output(g.op("Sub", g.weight(*shape), y), shape=["N", 4, 6, 6])
    folded = checked(g)
    assert [node.op_type for node in folded.model.graph] == ["Conv"]


@pytest.mark.parametrize("shape", [(4, 6, 1), (2, 1, 4, 1, 1), (1, 1, 6), (3, 1, 1, 1)])
def test_a_constant_that_differs_inside_a_channel_stays(shape: tuple[int, ...]) -> None:
    g = Graph()
    x = g.input("x", 3, 4, 6, 6)
    g.output(g.op("Add", g.weight(*shape), conv(g, x, 1)))
    assert count(checked(g).model) == 2


def test_a_constant_that_widens_the_channels_stays() -> None:
    g = Graph()
    x = g.input("x", "N", 4, 6, 6)
    g.output(g.op("Add", g.weight(4, 1, 1), conv(g, x, 1, channels=1)), shape=["N", 4, 6, 6])
    assert count(checked(g).model) == 2


def test_a_constant_that_a_caller_may_replace_stays() -> None:
    g = Graph()
    x = g.input("x", "N", 4, 6, 6)
    constant = g.const([[[1.0]]], overridable=True)
    g.output(g.op("Add", conv(g, x, 1), constant), shape=["N", 4, 6, 6])
    assert count(checked(g).model) == 2


def test_scales_on_branches() -> None:
    """LayerScale on a branch, one number on another, both on what is already a sum."""
    g = Graph()
    x = g.op("Relu", g.input("x", "N", 4, 6, 6))
    inner = g.op("Sub", g.bn(conv(g, x, 3, group=4), 4), g.bn(x, 4))
    scaled = g.op("Mul", inner, g.weight(4, 1, 1))
    halved = g.op("Mul", x, g.const(0.5))
    total = g.op("Add", g.op("Add", x, scaled), halved)
    g.output(g.op("Sigmoid", total), shape=["N", 4, 6, 6])
    folded = checked(g)
    assert [node.op_type for node in folded.model.graph] == ["Relu", "Conv", "Sigmoid"]
    assert batchnorms(folded.model) == 0


def test_a_branch_whose_size_is_read_stays() -> None:
    """Shape(branch) needs the branch."""
    g = Graph()
    x = g.input("x", "N", 4, 6, 6)
    one = conv(g, x, 1)
    total = g.op("Add", conv(g, x, 3), one)
    g.output(total, shape=["N", 4, 6, 6])
    g.output(g.op("Expand", g.const(1.0), g.op("Shape", one)))
    assert count(checked(g).model, "Conv") == 2


def test_the_same_value_twice_is_twice_the_identity() -> None:
    g = Graph()
    x = g.op("Relu", g.input("x", "N", 4, 6, 6))
    total = g.op("Add", g.op("Add", x, conv(g, x, 3)), x)
    g.output(total, shape=["N", 4, 6, 6])
    assert [node.op_type for node in checked(g).model.graph] == ["Relu", "Conv"]


def test_a_branch_that_is_added_to_itself_stays() -> None:
    g = Graph()
    x = g.input("x", "N", 4, 6, 6)
    one = conv(g, x, 1)
    g.output(g.op("Add", g.op("Add", one, one), conv(g, x, 3)), shape=["N", 4, 6, 6])
    assert count(checked(g).model, "Conv") == 2


def test_a_weight_that_both_branches_share() -> None:
    g = Graph()
    x = g.input("x", "N", 4, 6, 6)
    weight = g.weight(4, 4, 1, 1)
    one, other = (g.bn(g.op("Conv", x, weight), 4) for _ in range(2))
    g.output(g.op("Sub", one, other), shape=["N", 4, 6, 6])
    assert count(checked(g).model) == 1


def test_a_sum_inside_of_a_body() -> None:
    """Branches in a body that read what it captures are merged there."""
    g = Graph()
    x = g.op("Relu", g.input("x", "N", 4, 6, 6))
    flag = g.input("flag", dtype="bool")
    bodies = []
    for kernel in (3, 5):
        body = g.body()
        summands = [conv(body, x, kernel), conv(body, x, 1)]
        body.output(body.op("Add", *summands), shape=["N", 4, 6, 6])
        bodies.append(body.graph())
    total = g.op("If", flag, then_branch=bodies[0], else_branch=bodies[1])
    g.output(total, shape=["N", 4, 6, 6])
    assert count(checked(g).model, "Conv") == 2


def test_the_report_names_constants_and_pools() -> None:
    g = Graph()
    x = g.op("Relu", g.input("x", "N", 4, 6, 6))
    pool = g.bn(g.op("AveragePool", x, kernel_shape=[1, 1], node="pool"), 4, name="bn")
    total = g.op("Sum", conv(g, x, 3), pool, g.const([[[2.0]]], "shift"))
    g.output(total, shape=["N", 4, 6, 6])
    (merge,) = fold(g).plan.merges
    names = [branch.name for branch in merge.branches]
    assert names == ["batch-norm bn behind AveragePool pool", "the constant shift"]


def test_weights_that_two_rounds_add_up_are_rounded_once() -> None:
    """x + c*(f(x) - x): the sum of a first round is a part of another, and 1 - c may be small."""

    def build(dtype: str) -> Graph:
        g = Graph(dtype)
        x = g.op("Sigmoid", g.input("x", "N", 4, 6, 6))
        inner = g.op("Sub", g.bn(conv(g, x, 3, group=4), 4), g.bn(x, 4))
        factor = g.op("Sigmoid", g.weight(4, 1, 1))
        g.output(g.op("Add", x, g.op("Mul", inner, factor)), shape=["N", 4, 6, 6])
        return g

    narrow, wide = build("float32"), build("float64")
    for one, other in zip(narrow.initializers, wide.initializers, strict=True):
        array = numpy_helper.to_array(one).astype(np.float64)
        other.CopyFrom(numpy_helper.from_array(array, other.name))
    found, exact = (
        [value.const_value.numpy() for value in fold(g).model.graph.initializers.values()]
        for g in (narrow, wide)
    )
    assert len(found) == 2  # a convolution and its bias
    for rounded, array in zip(found, exact, strict=True):
        np.testing.assert_array_equal(rounded, array.astype(np.float32))
