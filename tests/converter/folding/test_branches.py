"""Parallel branches that are summed become one convolution, and only those."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from converter.folding import Folded
from converter.normalize import normalize
from tests.converter.folding.graphs import Graph, assert_equal, batchnorms, count, fold

PADS = {1: [0, 0, 0, 0], 3: [1, 1, 1, 1], 5: [2, 2, 2, 2]}


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


def test_another_group_stays_apart() -> None:
    g = Graph()
    x = g.input("x", "N", 4, 6, 6)
    g.output(g.op("Add", conv(g, x, 3), conv(g, x, 1, group=2)), shape=["N", 4, 6, 6])
    assert count(checked(g).model, "Conv") == 2


def test_padding_told_by_mode_stays_apart() -> None:
    g = Graph()
    x = g.input("x", "N", 4, 6, 6)
    same = g.op("Conv", x, g.weight(4, 4, 3, 3), auto_pad="SAME_UPPER")
    g.output(g.op("Add", same, conv(g, x, 1)), shape=["N", 4, 6, 6])
    assert count(checked(g).model, "Conv") == 2


def test_equal_strides_merge_where_the_kernels_meet() -> None:
    """3x3 with pad 1 and 1x1 with pad 0, both of stride 2, read around the same positions."""
    g = Graph()
    x = g.input("x", "N", 4, 7, 7)
    three, one = (conv(g, x, kernel, strides=[2, 2]) for kernel in (3, 1))
    g.output(g.op("Add", three, one), shape=["N", 4, 4, 4])
    assert count(checked(g).model, "Conv") == 1


def test_equal_sizes_of_unequal_strides_stay_apart() -> None:
    """On 7 positions 3 with stride 2 and 4 with stride 2 and more padding leave 3 and 3."""
    g = Graph()
    x = g.input("x", "N", 4, 7, 7)
    two = conv(g, x, 3, strides=[2, 2], pads=[0, 0, 0, 0])
    three = conv(g, x, 1, strides=[3, 3], pads=[0, 0, 0, 0])
    g.output(g.op("Add", two, three), shape=["N", 4, 3, 3])
    assert count(checked(g).model, "Conv") == 2


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


@st.composite
def branches(draw: st.DrawFn) -> dict[str, Any]:
    """A convolution of any geometry on an input of 4 channels."""
    axes = draw(st.integers(1, 2))
    kernel = [draw(st.integers(1, 4)) for _ in range(axes)]
    return {
        "kernel": kernel,
        "dilations": [draw(st.integers(1, 2)) for _ in range(axes)],
        "pads": [draw(st.integers(0, 3)) for _ in range(2 * axes)],
        "group": draw(st.sampled_from([1, 2, 4])),
    }


@given(branches(), st.lists(branches(), min_size=1, max_size=3), st.integers(1, 2), st.booleans())
def test_any_geometries(
    first: dict[str, Any], others: list[dict[str, Any]], stride: int, identity: bool
) -> None:
    """Whatever the geometries are, the sum stays what it was (cropped to a common size)."""
    axes = len(first["kernel"])
    g = Graph()
    x = g.op("Relu", g.input("x", "N", 4, *[9] * axes))
    summands = []
    sizes: list[tuple[int, ...]] = []
    for spec in [first, *(spec for spec in others if len(spec["kernel"]) == axes)]:
        size = tuple(
            (9 + spec["pads"][i] + spec["pads"][axes + i] - (k - 1) * d - 1) // stride + 1
            for i, (k, d) in enumerate(zip(spec["kernel"], spec["dilations"], strict=True))
        )
        if sizes and size != sizes[0]:
            continue
        sizes.append(size)
        weight = g.weight(4, 4 // spec["group"], *spec["kernel"])
        summands.append(
            g.op(
                "Conv", x, weight, g.weight(4), strides=[stride] * axes,
                dilations=spec["dilations"], pads=spec["pads"], group=spec["group"],
            )
        )  # fmt: skip
    if identity and all(size == 9 for size in sizes[0]):
        summands.append(g.bn(x, 4))
    total = summands[0]
    for summand in summands[1:]:
        total = g.op("Add", total, summand)
    g.output(g.op("Sigmoid", total), shape=["N", 4, *sizes[0]])
    checked(g)
