"""Past a sum whose other terms are divided by the scale: two batch-norms become one, or none."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from converter.evaluation.normalize import normalize
from converter.folding import Folded
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
)


def check(g: Graph, left: int) -> Folded:
    model = g.model()
    before = normalize(model)
    folded = fold(model)
    assert batchnorms(folded.model) == left, [str(d.outcome) for d in folded.plan.kept]
    assert count(folded.model) <= count(before) - (batchnorms(before) - left)
    assert_equal(before, folded.model)
    one, other = float32(before), float32(folded.model)
    given = feeds(one)
    for a, b in zip(ort_run(one, given), ort_run(other, given), strict=True):
        assert distance(a, b) < 1e-5
    return folded


def bent(g: Graph, name: str = "x", channels: int = 4) -> str:
    """What no map passes backward."""
    return g.op("Sigmoid", g.input(name, "N", channels, 5, 5))


def norm(g: Graph, x: str, channels: int = 4, **given: object) -> str:
    return g.op("BatchNormalization", x, *g.statistics(channels, **given))


def conv(g: Graph, x: str, **more: object) -> str:
    return g.op("Conv", x, g.weight(3, 4, 3, 3), **more)


@pytest.mark.parametrize("op", ["Add", "Sub", "Sum", "Mean"])
def test_two_batch_norms_become_one(op: str) -> None:
    g = Graph()
    g.output(conv(g, g.op(op, norm(g, bent(g, "u")), norm(g, bent(g, "v")))))
    check(g, 1)


@pytest.mark.parametrize("op", ["Sum", "Mean"])
def test_three_become_two(op: str) -> None:
    g = Graph()
    g.output(conv(g, g.op(op, *(norm(g, bent(g, name)) for name in "uvw"))))
    check(g, 2)


def test_joined_along_the_rows() -> None:
    g = Graph()
    y = g.op("Concat", norm(g, bent(g, "u")), norm(g, bent(g, "v")), axis=2)
    g.output(conv(g, y))
    check(g, 1)


@pytest.mark.parametrize("place", [0, 1])
@pytest.mark.parametrize("op", ["Add", "Sub", "Mean", "Concat"])
def test_the_other_one_has_a_linear_producer(op: str, place: int) -> None:
    g = Graph()
    pair = [g.op("Conv", g.input("v", "N", 2, 5, 5), g.weight(4, 2, 1, 1)), norm(g, bent(g))]
    more = {"axis": 3} if op == "Concat" else {}
    g.output(conv(g, g.op(op, pair[place], pair[1 - place], **more)))
    check(g, 0)


def test_through_moves_on_both_sides() -> None:
    g = Graph()
    pool = {"kernel_shape": [2, 2], "strides": [1, 1]}
    y = g.op("AveragePool", norm(g, bent(g)), **pool)
    z = g.op("ConvTranspose", g.input("v", "N", 2, 5, 5), g.weight(2, 4, 1, 1))
    g.output(conv(g, g.op("Identity", g.op("Sub", g.op("AveragePool", z, **pool), y))))
    check(g, 0)


def test_a_residual_block() -> None:
    """x + f(x) of x = BN(..): the last convolution of f is divided by the scale, too."""
    g = Graph()
    x = norm(g, bent(g))
    f = g.op("Conv", g.op("Relu", g.op("Conv", x, g.weight(5, 4, 1, 1))), g.weight(4, 5, 1, 1))
    g.output(conv(g, g.op("Add", x, f)))
    check(g, 0)


def test_the_one_whose_scale_is_zero_keeps_its_batch_norm() -> None:
    """No y has 0*y = x: the other one goes, whatever the order."""
    gamma = np.array([0.0, 1.0, -2.0, 0.5])
    for first in (True, False):
        g = Graph()
        terms = [norm(g, bent(g, "u"), gamma=gamma), norm(g, bent(g, "v"))]
        g.output(conv(g, g.op("Add", *(terms if first else terms[::-1]))))
        folded = check(g, 1)
        (kept,) = folded.plan.kept
        assert kept.site.source is not None
        assert kept.site.source.producer() is not None
        weights = next(n for n in folded.model.graph if n.op_type == "BatchNormalization").inputs[1]
        assert weights is not None
        assert weights.const_value is not None
        assert np.any(weights.const_value.numpy() == 0.0)


def test_with_a_zero_in_both_both_stay() -> None:
    g = Graph()
    u, v = np.array([0.0, 1.0, -2.0, 0.5]), np.array([1.0, 1.0, 0.0, 0.5])
    g.output(conv(g, g.op("Add", norm(g, bent(g, "u"), gamma=u), norm(g, bent(g, "v"), gamma=v))))
    check(g, 2)


def test_a_scale_near_zero_has_no_use() -> None:
    """y/a would leave the range of numbers; in half types soon."""
    for dtype, scale, left in (("float64", 1e-12, 1), ("float16", 0.01, 1), ("float64", 0.01, 0)):
        g = Graph(dtype)
        gamma = np.array([scale, 1.0, -2.0, 0.5])
        y = g.op("Conv", g.input("v", "N", 2, 5, 5), g.weight(4, 2, 1, 1))
        g.output(conv(g, g.op("Add", y, norm(g, bent(g), gamma=gamma, var=np.ones(4)))))
        assert batchnorms(fold(g).model) == left


@pytest.mark.parametrize("why", ["output", "reader", "sigmoid", "constant along the channels"])
def test_what_stops_it(why: str) -> None:
    g = Graph()
    y = g.op("Conv", g.input("v", "N", 2, 5, 5), g.weight(4, 2, 1, 1))
    if why == "output":
        g.output(y)
    elif why == "reader":
        g.output(g.op("Tanh", y))
    elif why == "sigmoid":
        y = g.op("Sigmoid", y)
    else:
        y = g.op("Conv", g.input("w", "N", 2, 5, 5), g.weight(1, 2, 1, 1))
    g.output(conv(g, g.op("Add", y, norm(g, bent(g)))))
    check(g, 1)


def test_where_the_sum_goes_to_must_take_it() -> None:
    g = Graph()
    y = g.op("Conv", g.input("v", "N", 2, 5, 5), g.weight(4, 2, 1, 1))
    total = g.op("Add", y, norm(g, bent(g)))
    g.output(conv(g, total))
    g.output(g.op("Tanh", total))
    check(g, 1)


def test_parts_of_one_value_are_never_divided_by_each_other() -> None:
    """A batch-norm is no taker of what its own map needs."""
    g = Graph()
    a, b = g.op("Split", norm(g, bent(g, channels=8), 8), outputs=2, axis=1, num_outputs=2)
    g.output(conv(g, g.op("Add", a, b)))
    check(g, 1)


def test_a_factor_between_parts_of_one_value() -> None:
    g = Graph()
    gate = g.op("Conv", g.input("g", "N", 2, 5, 5), g.weight(8, 2, 1, 1))
    zero = {"beta": np.zeros(8), "mean": np.zeros(8)}
    y = g.op("Mul", norm(g, bent(g, channels=8), 8, **zero), gate)
    a, b = g.op("Split", y, outputs=2, axis=1, num_outputs=2)
    g.output(conv(g, g.op("Add", a, b)))
    check(g, 0)


def test_a_batch_norm_that_was_left_alone_takes_nothing_up() -> None:
    g = Graph()
    u, v = bent(g, "u"), bent(g, "v")
    g.output(conv(g, g.op("Add", g.bn(u, 4, name="keep"), g.bn(v, 4, name="other"))))
    model = g.model()
    folded = fold(model, skip=["keep"])
    assert batchnorms(folded.model) == 2
    assert_equal(model, folded.model)


def test_folding_what_is_left_again_changes_nothing() -> None:
    g = Graph()
    g.output(conv(g, g.op("Add", norm(g, bent(g, "u")), norm(g, bent(g, "v")))))
    after = fold(g).model
    again = fold(after)
    assert again.plan.folded == ()
    assert ir.to_proto(again.model) == ir.to_proto(after)
