"""Just inside and just outside of what lets a map pass: conditions that only such a graph meets."""

from __future__ import annotations

import pytest

from patterns.graphs import Graph, assert_equal, batchnorms, fold


def left(g: Graph) -> int:
    """The batch-norms that stay; what comes out is equal in any case."""
    model = g.model()
    after = fold(model).model
    assert_equal(model, after)
    return batchnorms(after)


@pytest.mark.parametrize(("op", "stays"), [("ReduceMean", 0), ("ReduceSum", 1)])
def test_joined_parts_must_have_the_same_shift(op: str, stays: int) -> None:
    """a*x + b beside its mean, a*mean(x) + b; beside its sum over three, a*sum(x) + 3b."""
    g = Graph()
    x = g.op("Tanh", g.input("x", "N", 4, 3, 3))
    y = g.op("BatchNormalization", x, *g.statistics(4))
    joined = g.op("Concat", y, g.op(op, y, g.const([2]), keepdims=1), axis=2)
    g.output(g.op("Conv", joined, g.weight(2, 4, 2, 2)), shape=["N", 2, 3, 2])
    assert left(g) == stays


@pytest.mark.parametrize(("more", "stays"), [({}, 0), ({"output_padding": [1, 1]}, 1)])
def test_output_padding_is_no_position_that_a_shift_reaches(
    more: dict[str, list[int]], stays: int
) -> None:
    """What is added at the end of a transposed convolution is its bias alone."""
    g = Graph()
    y = g.bn(g.op("Tanh", g.input("x", "N", 3, 4, 4)), 3)
    held = g.weight(3, 2, 1, 1)
    g.output(g.op("ConvTranspose", y, held, strides=[1, 1], dilations=[2, 2], **more))
    folded = fold(g)
    assert batchnorms(folded.model) == stays


@pytest.mark.parametrize(
    ("attributes", "stays"),
    [
        ({}, 0),
        ({"count_include_pad": 1}, 0),
        ({"ceil_mode": 1}, 0),
        ({"ceil_mode": 1, "count_include_pad": 1}, 1),
        ({"pads": [1, 1, 1, 1]}, 0),
        ({"pads": [1, 1, 1, 1], "count_include_pad": 1}, 1),
        ({"auto_pad": "VALID", "count_include_pad": 1}, 0),
    ],
)
def test_a_window_past_the_end_counts_zeros(attributes: dict[str, object], stays: int) -> None:
    g = Graph()
    y = g.bn(g.op("Tanh", g.input("x", "N", 3, 5, 5)), 3)
    pooled = g.op("AveragePool", y, kernel_shape=[2, 2], strides=[2, 2], **attributes)
    g.output(g.op("Conv", pooled, g.weight(2, 3, 1, 1)))
    assert batchnorms(fold(g).model) == stays


@pytest.mark.parametrize(
    ("ceil", "count", "branches"), [(0, 1, 1), (1, 1, 2), (1, 0, 2), (0, 0, 1)]
)
def test_a_pool_of_windows_past_the_end_is_no_branch(ceil: int, count: int, branches: int) -> None:
    """Unpadded, a pool is a kernel of 1/k; with ceil_mode its last windows may be smaller."""
    g = Graph()
    x = g.op("Tanh", g.input("x", "N", 3, 6, 6))
    pool = g.op(
        "AveragePool", x, kernel_shape=[2, 2], strides=[2, 2], ceil_mode=ceil,
        count_include_pad=count,
    )  # fmt: skip
    conv = g.op("Conv", x, g.weight(3, 3, 2, 2), strides=[2, 2])
    g.output(g.op("Add", conv, pool), shape=["N", 3, 3, 3])
    model = g.model()
    after = fold(model).model
    assert_equal(model, after)
    kinds = [node.op_type for node in after.graph]
    assert kinds.count("Conv") + kinds.count("AveragePool") == branches


@pytest.mark.parametrize(
    ("start", "end", "step", "picked"),
    [(-1, -100, -1, 4), (3, 0, -2, 2), (-4, -100, -1, 1), (100, -100, -3, 2)],
)
def test_steps_backward(start: int, end: int, step: int, picked: int) -> None:
    g = Graph()
    y = g.bn(g.op("Tanh", g.input("x", "N", 4, 3, 3)), 4)
    bounds = [g.const([number]) for number in (start, end, 1, step)]
    g.output(g.op("Conv", g.op("Slice", y, *bounds), g.weight(2, picked, 1, 1)))
    assert left(g) == 0


@pytest.mark.parametrize("start", [-5, -100])
def test_a_step_backward_from_before_the_beginning_is_not_decided(start: int) -> None:
    """The specification clamps such a start to 0, so channel 0 is taken; numpy takes none."""
    g = Graph()
    y = g.bn(g.op("Tanh", g.input("x", "N", 4, 3, 3)), 4)
    bounds = [g.const([number]) for number in (start, -100, 1, -1)]
    cut = g.annotate(g.op("Slice", y, *bounds), "N", 1, 3, 3)
    g.output(g.op("Conv", cut, g.weight(2, 1, 1, 1)))
    assert batchnorms(fold(g).model) == 1


@pytest.mark.parametrize(("end", "extra", "branches"), [(1, 1, 1), (0, 0, 1)])
def test_output_padding_is_as_good_as_less_padding(end: int, extra: int, branches: int) -> None:
    """Both make 2n positions of n, and their taps lie on each other."""
    g = Graph()
    x = g.op("Tanh", g.input("x", "N", 3, "H", "W"))
    more = {"strides": [2, 2], "pads": [1, 1, end, end], "output_padding": [extra, extra]}
    one = g.op("ConvTranspose", x, g.weight(3, 3, 3, 3), **more)
    other = g.op("ConvTranspose", x, g.weight(3, 3, 3, 3), strides=[2, 2], pads=[1, 1, 0, 0])
    g.output(g.op("Add", one, other), shape=["N", 3, "P", "Q"])
    model = g.model()
    after = fold(model).model
    assert_equal(model, after)
    assert [node.op_type for node in after.graph].count("ConvTranspose") == branches
