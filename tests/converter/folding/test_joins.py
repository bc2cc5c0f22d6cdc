"""Several ways between a batch-norm and one value: both directions, and what must stay."""

from __future__ import annotations

from collections.abc import Callable

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
)

Way = Callable[[Graph, str], str]


def cut(g: Graph, x: str, start: int, end: int, axis: int) -> str:
    return g.op("Slice", x, *(g.const([n]) for n in (start, end, axis)))


def circular(g: Graph, x: str, axis: int = 2, size: int = 2) -> str:
    """What torch makes of padding_mode='circular', along one axis."""
    ends = cut(g, x, -size, 2**31, axis), cut(g, x, 0, size, axis)
    return g.op("Concat", ends[0], x, ends[1], axis=axis)


def both(g: Graph, x: str) -> str:
    return circular(g, circular(g, x, 2, 1), 3, 2)


def twice(g: Graph, x: str) -> str:
    return g.op("Concat", x, x, axis=2)


def ends_alone(g: Graph, x: str) -> str:
    """The value itself is not joined."""
    return g.op("Concat", cut(g, x, 2, 9, 3), cut(g, x, 0, 3, 3), axis=-1)


def mean_of_pools(g: Graph, x: str) -> str:
    y = g.op("AveragePool", x, kernel_shape=[3, 3], pads=[1] * 4)
    return g.op("Mean", x, y, g.op("Identity", x))


def difference(g: Graph, x: str) -> str:
    return g.op("Sub", x, g.op("AveragePool", x, kernel_shape=[3, 3], pads=[1] * 4))


def nested(g: Graph, x: str) -> str:
    y = circular(g, x)
    return circular(g, g.op("Add", y, g.op("AveragePool", y, kernel_shape=[1, 1])), 3)


JOINED: list[Way] = [circular, both, twice, ends_alone, mean_of_pools, difference, nested]


def check(g: Graph, left: int) -> None:
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


def image(g: Graph) -> str:
    return g.input("x", "N", 3, 6, 6)


def conv(g: Graph, x: str, inputs: int = 3, **more: object) -> str:
    return g.op("Conv", x, g.weight(4, inputs, 3, 3), **more)


def norm(g: Graph, x: str, channels: int, *, shift: bool = True) -> str:
    given = {} if shift else {"beta": np.zeros(channels), "mean": np.zeros(channels)}
    return g.op("BatchNormalization", x, *g.statistics(channels, **given))


@pytest.mark.parametrize("shift", [True, False])
@pytest.mark.parametrize("way", JOINED, ids=lambda way: way.__name__)
def test_backward(way: Way, shift: bool) -> None:
    """Where the sum of two ways needs a shift on one of them alone, only a scale passes."""
    g = Graph()
    g.output(g.op("Tanh", norm(g, way(g, conv(g, image(g), pads=[1] * 4)), 4, shift=shift)))
    check(g, int(shift and way in {difference, nested}))


@pytest.mark.parametrize("way", JOINED, ids=lambda way: way.__name__)
def test_forward(way: Way) -> None:
    g = Graph()
    g.output(conv(g, way(g, norm(g, g.op("Tanh", image(g)), 3))))
    check(g, 0)


def test_forward_a_zero_padding_behind_it_stops_the_shift_only() -> None:
    for shift in (True, False):
        g = Graph()
        y = circular(g, norm(g, g.op("Tanh", image(g)), 3, shift=shift))
        g.output(conv(g, y, pads=[1] * 4))
        check(g, int(shift))


def test_both_at_once() -> None:
    """Between two convolutions, two batch-norms and a padding."""
    g = Graph()
    y = circular(g, norm(g, conv(g, image(g)), 4))
    g.output(g.op("Tanh", norm(g, conv(g, y, 4), 4)))
    check(g, 0)


@pytest.mark.parametrize("seen", ["output", "reader", "slice"])
def test_somebody_else_reads_it(seen: str) -> None:
    g = Graph()
    y = conv(g, image(g))
    z = circular(g, y)
    if seen == "output":
        g.output(y)
    else:
        g.output(g.op("Sigmoid", y if seen == "reader" else g.nodes[1].output[0]))
    g.output(g.op("Tanh", norm(g, z, 4)))
    check(g, 1)


def test_another_value_is_joined_too() -> None:
    g = Graph()
    y = conv(g, image(g))
    z = g.op("Concat", cut(g, y, 0, 1, 2), y, g.op("Sigmoid", y), axis=2)
    g.output(g.op("Tanh", norm(g, z, 4)))
    check(g, 1)


def test_forward_another_value_is_joined_too() -> None:
    g = Graph()
    x = image(g)
    y = norm(g, g.op("Tanh", x), 3)
    g.output(conv(g, g.op("Concat", cut(g, y, 0, 1, 2), y, x, axis=2)))
    check(g, 1)


def test_forward_with_another_scale_on_one_of_the_ways() -> None:
    g = Graph()
    y = norm(g, g.op("Tanh", image(g)), 3)
    other = g.op("Neg", g.op("Sum", y, y))  # - 2 (a*x + b)
    g.output(conv(g, g.op("Add", y, g.op("MaxPool", other, kernel_shape=[1, 1]))))
    check(g, 1)


def test_joined_along_the_channels_each_way_goes_by_itself() -> None:
    g = Graph()
    y = norm(g, g.op("Tanh", image(g)), 3)
    g.output(conv(g, g.op("Concat", y, cut(g, y, 0, 2, 1), axis=1), 5))
    check(g, 0)


def test_another_way_is_tried_before_ways_that_meet() -> None:
    """The scale passes the factor that only the product reads."""
    g = Graph()
    x = image(g)
    y = conv(g, x, pads=[1] * 4)
    gate = g.op("Conv", x, g.weight(4, 3, 1, 1))
    z = g.op("Mul", g.op("Sigmoid", g.op("AveragePool", y, kernel_shape=[1, 1])), gate)
    g.output(g.op("Tanh", norm(g, g.op("Mul", y, z), 4, shift=False)))
    check(g, 0)
