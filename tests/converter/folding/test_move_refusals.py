"""Where a map does not pass an op, either way: it stays, and the sentence names the op."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from converter.folding import Refusal
from patterns.graphs import Graph, assert_equal, batchnorms, fold
from tests.converter.folding.forward_cases import norm as before
from tests.converter.folding.move_cases import conv, norm, two

BACKWARD: dict[str, tuple[str, str, Callable[[Graph], str]]] = {}
FORWARD: dict[str, tuple[str, str, Callable[[Graph, str], str]]] = {}


def back(code: str, names: str) -> Callable[[Callable[[Graph], str]], None]:
    def register(build: Callable[[Graph], str]) -> None:
        BACKWARD[build.__name__] = code, names, build

    return register


def ahead(code: str, names: str) -> Callable[[Callable[[Graph, str], str]], None]:
    def register(build: Callable[[Graph, str], str]) -> None:
        FORWARD[build.__name__] = code, names, build

    return register


def image(g: Graph, channels: int = 4) -> str:
    return conv(g, g.input("x", "N", 3, 6, 6), channels)


@back("not-linear", "Mul")
def shift_behind_a_product(g: Graph) -> str:
    return norm(g, g.op("Mul", *two(g)))


@back("unknown-shape", "broadcasts")
def sum_with_one_channel_for_all(g: Graph) -> str:
    x = g.input("x", "N", 3, 6, 6)
    return norm(g, g.op("Add", conv(g, x, 4), conv(g, g.op("Sigmoid", x), 1)))


@back("shared-value", "twice")
def sum_of_one_value_with_itself(g: Graph) -> str:
    y = image(g)
    return norm(g, g.op("Add", y, y))


@back("shared-value", "Relu")
def sum_of_two_ways_from_one_value(g: Graph) -> str:
    """Only one of the two ways can bring the shift."""
    y = image(g)
    return norm(g, g.op("Add", g.op("AveragePool", y, kernel_shape=[1, 1]), g.op("Relu", y)))


@back("shared-value", "Gather")
def channels_that_are_picked_twice(g: Graph) -> str:
    y = image(g)
    g.output(g.op("Gather", y, g.const([1]), axis=1))
    return norm(g, g.op("Gather", y, g.const([0, 1, 2, 3]), axis=1))


@back("not-per-channel", "repeats a channel")
def one_channel_with_two_maps(g: Graph) -> str:
    return norm(g, g.op("Gather", image(g), g.const([0, 1, 1, 2]), axis=1))


@back("unknown-shape", "Gather")
def channels_picked_at_run_time(g: Graph) -> str:
    x = g.input("i", 4, dtype="int64")
    return norm(g, g.op("Gather", image(g), x, axis=1))


@back("shared-value", "splits along axis 2")
def rows_that_are_all_read(g: Graph) -> str:
    one, other = g.op("Split", image(g), outputs=2, axis=2, num_outputs=2)
    g.output(g.op("Relu", one))
    return norm(g, other)


@back("shared-value", "Slice")
def slices_that_overlap(g: Graph) -> str:
    y = image(g, 6)
    low = g.op("Slice", y, g.const([0]), g.const([4]), g.const([1]))
    g.output(g.op("Slice", y, g.const([3]), g.const([6]), g.const([1])))
    return norm(g, low)


@back("shared-value", "Slice")
def rows_of_the_same_channels(g: Graph) -> str:
    y = image(g)
    g.output(g.op("Slice", y, g.const([0]), g.const([2]), g.const([2])))
    return norm(g, g.op("Slice", y, g.const([0]), g.const([4]), g.const([1])))


@back("padding", "pads with 0")
def zeros_in_front_of_a_shift(g: Graph) -> str:
    return norm(g, g.op("Pad", image(g), g.const([0, 0, 1, 1, 0, 0, 1, 1])))


@back("padding", "pads with 2")
def a_number_in_front_of_a_scale(g: Graph) -> str:
    pads = g.const([0, 0, 1, 1, 0, 0, 1, 1])
    return norm(g, g.op("Pad", image(g), pads, g.const(2.0)), shift=False)


@back("padding", "Pad")
def zero_channels_with_a_shift(g: Graph) -> str:
    return norm(g, g.op("Pad", image(g, 3), g.const([0, 0, 0, 0, 0, 1, 0, 0])))


@back("wrong-axis", "channels themselves")
def reflected_channels(g: Graph) -> str:
    y = g.op("Pad", image(g, 3), g.const([0, 0, 0, 0, 0, 1, 0, 0]), mode="reflect")
    return norm(g, y)


@back("unknown-shape", "how much")
def padding_at_run_time(g: Graph) -> str:
    y = g.op("Pad", image(g), g.input("p", 8, dtype="int64"))
    return norm(g, g.annotate(y, "N", 4, None, None))


@back("wrong-axis", "Resize")
def resized_channels(g: Graph) -> str:
    factors = g.const([1.0, 2.0, 1.0, 1.0], dtype="float32")
    return norm(g, g.op("Resize", image(g, 2), "", factors))


@back("wrong-axis", "Resize")
def channels_resized_to_as_many(g: Graph) -> str:
    """4 * 1.2 is 4 channels again, but not the same ones."""
    factors = g.const([1.0, 1.2, 1.0, 1.0], dtype="float32")
    return norm(g, g.op("Resize", image(g), "", factors, mode="linear"))


@back("padding", "outside of its input")
def crop_and_resize(g: Graph) -> str:
    more = {"coordinate_transformation_mode": "tf_crop_and_resize", "mode": "linear"}
    window = g.const([0.0, 0, 0, 0, 1, 1, 1.5, 1.5])
    factors = g.const([1.0, 1.0, 2.0, 2.0], dtype="float32")
    return norm(g, g.op("Resize", image(g), window, factors, **more))


@back("not-linear", "whole numbers")
def cast_to_integers(g: Graph) -> str:
    y = g.op("Cast", g.op("Cast", image(g), to=6), to=11)
    return norm(g, y)


@back("sign", "ReduceMax")
def maximum_with_negative_scales(g: Graph) -> str:
    y = g.op("ReduceMax", image(g), g.const([2]), keepdims=0)
    return g.op("BatchNormalization", y, *g.statistics(4, gamma=[1.0, -1, 1, 1]))


@back("unknown-shape", "how many")
def sum_of_an_open_number(g: Graph) -> str:
    y = conv(g, g.input("x", "N", 3, "H", 6))
    return norm(g, g.op("ReduceSum", y, g.const([2]), keepdims=0))


@back("unknown-shape", "repeats the channels")
def tiled_channels(g: Graph) -> str:
    return norm(g, g.op("Tile", image(g, 2), g.const([1, 2, 1, 1])))


@back("not-per-channel", "SpaceToDepth")
def positions_with_maps_of_their_own(g: Graph) -> str:
    return norm(g, g.op("SpaceToDepth", image(g, 1), blocksize=2))


@back("dearer", "would need an Add")
def two_products_without_a_bias(g: Graph) -> str:
    x = g.input("x", "N", 3)
    parts = [g.op("MatMul", v, g.weight(3, 4)) for v in (x, g.op("Relu", x))]
    return norm(g, g.op("Concat", *parts, axis=1), 8)


@back("not-linear", "Div")
def constant_over_a_value_lets_no_shift_pass(g: Graph) -> str:
    return norm(g, g.op("Div", g.const(1.0), g.op("Exp", image(g))))


@ahead("not-linear", "adds another value")
def scale_in_front_of_a_sum(g: Graph, x: str) -> str:
    return conv(g, g.op("Add", before(g, x), x), 3, 4)


@ahead("not-linear", "Mul")
def shift_in_front_of_a_product(g: Graph, x: str) -> str:
    return conv(g, g.op("Mul", before(g, x), x), 3, 4)


@ahead("not-linear", "Mul")
def shift_of_a_gated_value(g: Graph, x: str) -> str:
    y = before(g, x)
    gate = g.op("Sigmoid", g.op("Conv", g.op("GlobalAveragePool", y), g.weight(4, 4, 1, 1)))
    return conv(g, g.op("Mul", y, gate), 3, 4)


@ahead("not-linear", "no inverse")
def scale_of_zero_in_front_of_a_constant(g: Graph, x: str) -> str:
    y = g.op("BatchNormalization", x, *g.statistics(4, gamma=[1.0, 0, 2, 3]))
    return conv(g, g.op("Add", y, g.weight(4, 1, 1)), 3, 4)


@ahead("dearer", "repeated for every channel")
def constant_that_would_grow(g: Graph, x: str) -> str:
    return conv(g, g.op("Add", before(g, x), g.weight(1, 6, 6)), 3, 4)


@ahead("not-linear", "divides by it")
def scale_of_zero_below(g: Graph, x: str) -> str:
    none = {"beta": np.zeros(4), "mean": np.zeros(4)}
    y = g.op("BatchNormalization", x, *g.statistics(4, gamma=[1.0, 0, 2, 3], **none))
    return g.op("Conv", g.op("Div", x, y), g.weight(3, 4, 1, 1))


@ahead("wrong-axis", "over the channels")
def sum_over_the_channels(g: Graph, x: str) -> str:
    return g.op("ReduceSum", before(g, x), g.const([1]), keepdims=1)


@ahead("padding", "pads with 0")
def zeros_behind_a_shift(g: Graph, x: str) -> str:
    return conv(g, g.op("Pad", before(g, x), g.const([1, 1, 1, 1]), "", g.const([2, 3])), 3, 4)


@ahead("not-per-channel", "DepthToSpace")
def channels_that_become_one(g: Graph, x: str) -> str:
    return conv(g, g.op("DepthToSpace", before(g, x), blocksize=2), 3, 1)


@ahead("not-linear", "Softmax")
def behind_one_part_of_a_split(g: Graph, x: str) -> str:
    one, other = g.op("Split", before(g, x), outputs=2, axis=1, num_outputs=2)
    g.output(g.op("Softmax", one, axis=1))
    return conv(g, other, 3, 2)


@pytest.mark.parametrize("name", BACKWARD)
def test_backward(name: str) -> None:
    code, names, build = BACKWARD[name]
    g = Graph()
    g.output(build(g))
    stays(g, code, names, behind=False)


@pytest.mark.parametrize("name", FORWARD)
def test_forward(name: str) -> None:
    code, names, build = FORWARD[name]
    g = Graph()
    g.output(build(g, g.op("Sigmoid", g.input("x", "N", 4, 6, 6))))
    stays(g, code, names, behind=True)


def test_the_factor_of_an_activation_stays_one_number() -> None:
    """A constant 1/6 could take the scale, but runtimes look for it in a hard swish."""
    g = Graph()
    x = g.input("x", "N", 4, 6, 6)
    part = g.op("Mul", g.op("Sigmoid", x), g.const(1 / 6))
    g.output(norm(g, g.op("Mul", part, x), shift=False))
    (decision,) = fold(g).plan.batchnorms
    assert isinstance(decision.outcome, Refusal)
    assert "Sigmoid" in decision.outcome.sentence


def stays(g: Graph, code: str, names: str, *, behind: bool) -> None:
    folded = fold(g)
    (decision,) = folded.plan.decisions
    found = decision.outcome
    assert isinstance(found, Refusal), found
    if behind:
        assert found.behind is not None
        found = found.behind
    assert found.code == code, found
    assert names in found.sentence
    assert found.sentence.endswith(".")
    assert batchnorms(folded.model) == 1
    if not {"p", "i"} & {value.name for value in g.inputs} and "divides" not in names:
        assert_equal(g.model(), folded.model)
