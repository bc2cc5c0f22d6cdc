"""Across the border of an If, Loop or Scan body: exact wherever nobody else sees the value."""

from __future__ import annotations

import numpy as np
import pytest

from converter.evaluation.normalize import normalize
from patterns.graphs import (
    Graph,
    assert_equal,
    batchnorms,
    count,
    distance,
    feeds,
    float32,
    fold,
    ort_run,
    signature,
)

SHAPE = ["N", 4, 5, 5]


def conv(g: Graph, x: str, inputs: int = 4, **more: object) -> str:
    return g.op("Conv", x, g.weight(4, inputs, 1, 1), **more)


def chosen(g: Graph, one: Graph, two: Graph) -> str:
    condition = g.input("c", dtype="bool")
    return g.op("If", condition, then_branch=one.graph(), else_branch=two.graph())


def loop(g: Graph, inner: Graph, y: str, state: str, rounds: int = 3) -> str:
    """`inner` computes y from its state "s", three times."""
    inner.output(inner.op("Identity", "go"), dtype="bool", shape=[])
    inner.output(y, shape=SHAPE)
    return g.op("Loop", g.const(rounds), g.const(np.array(True)), state, body=inner.graph())


def body(g: Graph) -> Graph:
    inner = g.body()
    inner.input("i", dtype="int64")
    inner.input("go", dtype="bool")
    inner.input("s", *SHAPE)
    return inner


def check(g: Graph, left: int) -> None:
    """Both branches in float64, both in onnxruntime in float32."""
    model = g.model()
    before = normalize(model)
    folded = fold(model)
    assert batchnorms(folded.model) == left, [str(d.outcome) for d in folded.plan.kept]
    assert signature(folded.model) == signature(before)
    assert count(folded.model) <= count(before)
    for seed in range(6):  # the condition is drawn, too
        assert_equal(before, folded.model, seed=seed)
    one, other = float32(before), float32(folded.model)
    for seed in range(3):
        given = feeds(one, seed)
        for a, b in zip(ort_run(one, given), ort_run(other, given), strict=True):
            assert distance(a, b) < 1e-5


@pytest.mark.parametrize("more", [{}, {"pads": [1] * 4}])
def test_a_conv_outside_is_read_by_one_branch_alone(more: dict[str, object]) -> None:
    g = Graph()
    y = conv(g, g.input("x", "N", 4, 5, 5), **more)
    one, two = g.body(), g.body()
    size = [*SHAPE[:2], 7, 7] if more else SHAPE
    one.output(one.bn(y, 4), shape=size)
    two.output(two.op("Identity", g.weight(3, 4, *size[2:])), shape=size)
    g.output(chosen(g, one, two))
    check(g, 0)


def test_behind_a_move_outside() -> None:
    g = Graph()
    y = g.op("AveragePool", conv(g, g.input("x", "N", 4, 6, 6)), kernel_shape=[2, 2])
    one, two = g.body(), g.body()
    one.output(one.op("Tanh", one.bn(y, 4)), shape=SHAPE)
    two.output(two.op("Identity", g.weight(3, 4, 5, 5)), shape=SHAPE)
    g.output(chosen(g, one, two))
    check(g, 0)


@pytest.mark.parametrize("norm_in_both", [True, False])
def test_the_other_branch_reads_it_too(norm_in_both: bool) -> None:
    g = Graph()
    y = conv(g, g.input("x", "N", 4, 5, 5))
    one, two = g.body(), g.body()
    one.output(one.op("Tanh", one.bn(y, 4)), shape=SHAPE)
    two.output(two.op("Tanh", two.bn(y, 4) if norm_in_both else y), shape=SHAPE)
    g.output(chosen(g, one, two))
    check(g, 2 if norm_in_both else 1)


def test_somebody_outside_reads_it_too() -> None:
    g = Graph()
    y = conv(g, g.input("x", "N", 4, 5, 5))
    one, two = g.body(), g.body()
    one.output(one.op("Tanh", one.bn(y, 4)), shape=SHAPE)
    two.output(two.op("Identity", g.weight(3, 4, 5, 5)), shape=SHAPE)
    g.output(g.op("Add", chosen(g, one, two), g.op("Sigmoid", y)))
    check(g, 1)


def test_it_is_an_output_of_the_model_too() -> None:
    g = Graph()
    y = conv(g, g.input("x", "N", 4, 5, 5))
    one, two = g.body(), g.body()
    one.output(one.op("Tanh", one.bn(y, 4)), shape=SHAPE)
    two.output(two.op("Identity", g.weight(3, 4, 5, 5)), shape=SHAPE)
    g.output(chosen(g, one, two))
    g.output(y)
    check(g, 1)


def test_two_borders() -> None:
    """An If inside of an If."""
    g = Graph()
    y = conv(g, g.input("x", "N", 4, 5, 5))
    condition = g.input("c", dtype="bool")
    one, two = g.body(), g.body()
    inner, other = one.body(), one.body()
    inner.output(inner.bn(y, 4), shape=SHAPE)
    other.output(other.op("Identity", g.weight(3, 4, 5, 5)), shape=SHAPE)
    bodies = {"then_branch": inner.graph(), "else_branch": other.graph()}
    one.output(one.op("If", g.input("d", dtype="bool"), **bodies), shape=SHAPE)
    two.output(two.op("Identity", g.weight(3, 4, 5, 5)), shape=SHAPE)
    g.output(g.op("If", condition, then_branch=one.graph(), else_branch=two.graph()))
    check(g, 0)


def test_a_loop_reads_a_conv_outside_in_every_round() -> None:
    g = Graph()
    x = g.input("x", "N", 4, 5, 5)
    y, inner = conv(g, x), body(g)
    total = inner.op("Add", inner.op("Tanh", "s"), inner.bn(y, 4))
    g.output(loop(g, inner, total, x))
    check(g, 0)


def test_the_state_of_a_loop_is_what_the_last_round_made() -> None:
    """A convolution that makes the first state is no convolution of the others."""
    g = Graph()
    inner = body(g)
    g.output(loop(g, inner, inner.op("Tanh", inner.bn("s", 4)), conv(g, g.input("x", *SHAPE))))
    check(g, 1)


def test_forward_into_both_branches() -> None:
    """Each convolution of a branch takes the map of the one batch-norm outside."""
    g = Graph()
    y = g.bn(g.op("Tanh", g.input("x", "N", 4, 5, 5)), 4)
    one, two = g.body(), g.body()
    w = g.weight(4, 4, 1, 1)
    one.output(one.op("Conv", y, w), shape=SHAPE)
    two.output(two.op("Conv", one_of_two(two, y), w), shape=SHAPE)
    g.output(chosen(g, one, two))
    check(g, 0)


def one_of_two(g: Graph, y: str) -> str:
    return g.op("AveragePool", y, kernel_shape=[1, 1])


def test_forward_into_a_loop_and_beside_it() -> None:
    g = Graph()
    x = g.input("x", "N", 4, 5, 5)
    y, inner = g.bn(g.op("Tanh", x), 4), body(g)
    total = inner.op("Add", inner.op("Tanh", "s"), conv(inner, y))
    g.output(g.op("Add", loop(g, inner, total, x), conv(g, y)))
    check(g, 0)


def test_forward_where_one_branch_cannot_take_it() -> None:
    g = Graph()
    y = g.bn(g.op("Tanh", g.input("x", "N", 4, 5, 5)), 4)
    one, two = g.body(), g.body()
    one.output(conv(one, y), shape=SHAPE)
    two.output(two.op("Sigmoid", y), shape=SHAPE)
    g.output(chosen(g, one, two))
    check(g, 1)


def test_forward_to_what_a_branch_gives() -> None:
    g = Graph()
    y = g.bn(g.op("Tanh", g.input("x", "N", 4, 5, 5)), 4)
    one, two = g.body(), g.body()
    one.output(one.op("Identity", y), shape=SHAPE)
    two.output(conv(two, y), shape=SHAPE)
    g.output(chosen(g, one, two))
    check(g, 1)


@pytest.mark.parametrize("inside", [True, False])
def test_no_add_comes_to_stand_beyond_the_border(inside: bool) -> None:
    """A product has no bias; in a loop its Add would run in every round."""
    g = Graph()
    x = g.op("Tanh", g.input("x", "N", 4, 5, 4))
    inner, s = g.body(), g.input("s", "N", 4, 5, 4)
    inner.input("i", dtype="int64")
    inner.input("go", dtype="bool")
    inner.input("t", "N", 4, 5, 4)
    if inside:
        y = inner.op("MatMul", g.op("Transpose", g.bn(g.op("Transpose", x, perm=[0, 3, 1, 2]), 4),
                                    perm=[0, 2, 3, 1]), g.weight(4, 4))  # fmt: skip
    else:
        product = g.op("Transpose", g.op("MatMul", x, g.weight(4, 4)), perm=[0, 3, 1, 2])
        y = inner.op("Transpose", inner.bn(product, 4), perm=[0, 2, 3, 1])
    inner.output(inner.op("Identity", "go"), dtype="bool", shape=[])
    inner.output(inner.op("Add", inner.op("Tanh", "t"), y), shape=["N", 4, 5, 4])
    g.output(g.op("Loop", g.const(2), g.const(np.array(True)), s, body=inner.graph()))
    check(g, 1)
