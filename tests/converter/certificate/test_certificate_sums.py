"""Sums that become one op, factors that pass, axes that are reduced: what is folded is certified,
and with any one of its numbers moved by more than roundings it is not."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from converter.certificate import Certified, certify
from converter.evaluation.normalize import normalize
from converter.folding import FoldOptions, fold_graph
from patterns.graphs import Graph

Build = Callable[[Graph], str]


def written(build: Build) -> ir.Model:
    g = Graph("float32")
    g.output(g.rename(build(g), "y"))
    return g.model()


def depthwise(g: Graph, x: str, taps: int = 3) -> str:
    pads = [taps // 2] * 4
    return str(g.op("Conv", x, g.weight(4, 1, taps, taps), group=4, pads=pads))


def around_a_padded_convolution(g: Graph) -> str:
    """The convolution reads x with a border, the sum reads x: the batch-norm gives it a shift."""
    x = g.bn(g.op("Sigmoid", g.input("x", "N", 4, 6, 6)), 4)
    return str(g.op("Relu", g.op("Add", g.bn(depthwise(g, x), 4), x)))


def two_borders(g: Graph) -> str:
    x = g.bn(g.op("Sigmoid", g.input("x", "N", 4, 6, 6)), 4)
    total = g.op("Add", g.bn(depthwise(g, x), 4), g.bn(depthwise(g, x, 5), 4))
    return str(g.op("Relu", g.op("Add", total, g.bn(x, 4))))


def around_a_convolution_of_a_convolution(g: Graph) -> str:
    x = g.bn(g.op("Conv", g.input("x", "N", 4, 6, 6), g.weight(4, 4, 1, 1)), 4)
    return str(g.op("Relu", g.op("Add", g.bn(depthwise(g, x), 4), x)))


def around_a_convolution_of_a_sum(g: Graph) -> str:
    x = g.input("x", "N", 4, 6, 6)
    x = g.op("Add", g.op("Sigmoid", x), g.op("Tanh", x))
    return str(g.op("Relu", g.op("Add", g.bn(depthwise(g, x), 4), x)))


def sums_within_sums(g: Graph) -> str:
    """What a first round has merged is merged again in the next: fastvit's token mixer."""
    x = g.op("Sigmoid", g.input("x", "N", 4, 6, 6))
    mixed = g.op("Add", g.bn(depthwise(g, x, 1), 4), g.bn(x, 4))
    mixed = g.op("Sub", g.op("Add", mixed, g.bn(depthwise(g, x), 4)), g.bn(x, 4))
    mixed = g.op("Mul", mixed, g.weight(4, 1, 1))
    return str(g.op("Relu", g.op("Add", x, mixed)))


def a_part_of_the_way(g: Graph) -> str:
    """x + a*(f(x) - x), with a computed from a constant: efficientvim."""
    x = g.bn(g.op("Conv", g.input("x", "N", 4, 6, 6), g.weight(4, 4, 1, 1)), 4)
    a = g.op("Sigmoid", g.weight(4, 1, 1))
    there = g.op("Sub", g.bn(depthwise(g, x), 4), x)
    return str(g.op("Relu", g.op("Add", x, g.op("Mul", a, there))))


def a_sum_and_its_multiple(g: Graph) -> str:
    """Both are averaged: one value, that the folded graph computes once."""
    x = g.input("x", "N", 4, 6, 6)
    x = g.op("Add", g.op("Sigmoid", x), g.op("Tanh", x))
    pools = [g.op("AveragePool", v, kernel_shape=[2, 2]) for v in (x, g.bn(x, 4))]
    return str(g.op("Concat", *[g.op("Conv", p, g.weight(4, 4, 1, 1)) for p in pools], axis=1))


def attention(g: Graph) -> str:
    """Queries and keys with a batch-norm each, and a factor of what is computed from both."""
    x = g.op("Sigmoid", g.input("x", "N", 4, 5))
    q, k, v = (g.bn(g.op("Conv", x, g.weight(4, 4, 1)), 4) for _ in range(3))
    scores = g.op("MatMul", g.op("Transpose", q, perm=[0, 2, 1]), k)
    scores = g.op("Softmax", g.op("Mul", scores, g.const(np.full((), 0.25))), axis=-1)
    return str(g.op("MatMul", v, g.op("Transpose", scores, perm=[0, 2, 1])))


def embedded(g: Graph) -> str:
    """A table of positions, then a batch-norm before a convolution: visformer."""
    x = g.bn(g.op("Conv", g.input("x", "N", 3, 6, 6), g.weight(4, 3, 1, 1)), 4)
    x = g.op("Add", x, g.weight(1, 4, 6, 6))
    return str(g.op("Relu", g.op("Conv", g.bn(x, 4), g.weight(5, 4, 1, 1))))


BUILDS = (
    around_a_padded_convolution,
    two_borders,
    around_a_convolution_of_a_convolution,
    around_a_convolution_of_a_sum,
    sums_within_sums,
    a_part_of_the_way,
    a_sum_and_its_multiple,
    attention,
    embedded,
)


@pytest.mark.parametrize("build", BUILDS)
def test_what_is_folded_is_certified_and_with_a_number_moved_it_is_not(build: Build) -> None:
    users = written(build)
    folded = fold_graph(normalize(users), FoldOptions()).model
    found = certify(users, folded)
    assert isinstance(found, Certified), str(found)
    assert found.largest_move <= 2.0
    for name, changed in _changed(folded):
        assert not isinstance(certify(users, changed), Certified), name


def _changed(model: ir.Model) -> Iterator[tuple[str, ir.Model]]:
    """The largest number of each constant, larger by 50 roundings."""
    proto = ir.to_proto(model)
    for place, tensor in enumerate(proto.graph.initializer):
        array = np.array(onnx.numpy_helper.to_array(tensor))
        if array.dtype != np.float32:
            continue
        flat = array.reshape(-1)
        flat[np.argmax(np.abs(flat))] *= 1 + 50 * 2.0**-24
        other = onnx.ModelProto()
        other.CopyFrom(proto)
        other.graph.initializer[place].CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
        yield tensor.name, ir.from_proto(other)


def keys(left: float, right: float, factors: np.ndarray | None = None) -> Build:
    """q @ k, with a factor for each channel on q, its inverse on k, and numbers on both."""
    shape = (4, 1)

    def build(g: Graph) -> str:
        x = g.input("x", "N", 4, 5)
        q, k = g.op("Sigmoid", x), g.op("Tanh", x)
        c = np.ones(shape) if factors is None else factors.reshape(shape)
        q = g.op("Mul", q, g.const(np.arange(1.0, 5).reshape(shape) * c * left))
        k = g.op("Mul", k, g.const(right / c))
        return str(g.op("MatMul", g.op("Transpose", q, perm=[0, 2, 1]), k))

    return build


def test_a_factor_may_stand_on_either_side_of_a_product() -> None:
    powers = np.array([1.0, 2.0, 4.0, 0.5])
    for other in (keys(0.25, 4.0), keys(4.0, 0.25), keys(2.0, 0.5, powers)):
        assert isinstance(certify(written(keys(1.0, 1.0)), written(other)), Certified)
    for other in (keys(1.0, 1.001), keys(1.001, 1.0), keys(1.0, -1.0)):
        assert not isinstance(certify(written(keys(1.0, 1.0)), written(other)), Certified)


def reduced(op: str, axis: int, perm: list[int] | None) -> Build:
    def build(g: Graph) -> str:
        x = g.op("Sigmoid", g.input("x", "N", 4, 4))
        x = x if perm is None else g.op("Transpose", x, perm=perm)
        return str(g.op(op, x, g.const(np.array([axis])), keepdims=0))

    return build


@pytest.mark.parametrize("op", ["ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin"])
def test_which_axis_is_reduced_counts_and_not_where_it_lies(op: str) -> None:
    turned = written(reduced(op, 1, [0, 2, 1]))
    assert isinstance(certify(turned, written(reduced(op, 2, None))), Certified)
    assert not isinstance(certify(turned, written(reduced(op, 1, None))), Certified)


def ramp_before_a_border(size: float) -> Build:
    """A padded convolution of x and a number for each place: raft's coordinates."""

    def build(g: Graph) -> str:
        x = g.op("Sigmoid", g.input("x", "N", 4, 6, 6))
        ramp = np.linspace(0.0, size, 6).reshape(6, 1)
        return str(depthwise(g, g.op("Add", x, g.const(ramp))))

    return build


def test_what_varies_along_a_padded_axis_is_padded_with_it() -> None:
    once = written(ramp_before_a_border(1.0))
    assert isinstance(certify(once, written(ramp_before_a_border(1.0))), Certified)
    assert not isinstance(certify(once, written(ramp_before_a_border(1.001))), Certified)


def weighted(op: str, factors: list[float], behind: float) -> Build:
    """A sum of four heads, each with a factor, and a factor of the sum."""

    def build(g: Graph) -> str:
        x = g.op("Sigmoid", g.input("x", "N", 4, 5))
        x = g.op("Mul", x, g.const(np.array(factors).reshape(4, 1)))
        x = g.op(op, g.op("Add", x, g.const(np.full((), 1.0))), g.const(np.array([1])), keepdims=0)
        return str(g.op("Mul", x, g.const(np.full((), behind))))

    return build


@pytest.mark.parametrize("op", ["ReduceMean", "ReduceSum"])
def test_factors_of_what_is_added_up_count_in_proportion(op: str) -> None:
    once = written(weighted(op, [1.0, 2.0, -3.0, 0.0], 0.5))
    terms = 1 if op == "ReduceMean" else 4

    def other(factors: list[float], behind: float, shift: float) -> ir.Model:
        def build(g: Graph) -> str:
            x = g.op("Sigmoid", g.input("x", "N", 4, 5))
            x = g.op("Mul", x, g.const(np.array(factors).reshape(4, 1)))
            x = g.op(op, x, g.const(np.array([1])), keepdims=0)
            x = g.op("Mul", x, g.const(np.full((), behind)))
            return str(g.op("Add", x, g.const(np.full((), shift))))

        return written(build)

    shift = 0.5 * terms
    assert isinstance(certify(once, other([0.5, 1.0, -1.5, 0.0], 1.0, shift)), Certified)
    assert not isinstance(certify(once, other([0.5, 1.0, -1.501, 0.0], 1.0, shift)), Certified)
    assert not isinstance(certify(once, other([0.5, 1.0, -1.5, 0.1], 1.0, shift)), Certified)
    assert not isinstance(certify(once, other([0.5, 1.0, -1.5, 0.0], 1.0, shift + 0.1)), Certified)
    assert not isinstance(certify(once, other([1.0, 0.5, -1.5, 0.0], 1.0, shift)), Certified)


@pytest.mark.parametrize(("taps", "more"), [(1, {}), (3, {"pads": [1, 1, 1, 1]}), (3, {
    "pads": [2, 0, 1, 3], "strides": [2, 1], "dilations": [1, 2]})])  # fmt: skip
@pytest.mark.parametrize("group", [1, 2])
def test_a_number_for_each_place_goes_through_a_convolution(
    taps: int, more: dict[str, list[int]], group: int
) -> None:
    """Before it, with a batch-norm between them (visformer), or convolved by hand, behind it."""
    rng = np.random.default_rng(0)
    weight, table = rng.standard_normal((4, 4 // group, taps, taps)), rng.standard_normal((4, 6, 6))

    def apart(by: float) -> Build:
        def build(g: Graph) -> str:
            x = g.op("Sigmoid", g.input("x", "N", 4, 6, 6))
            x = g.op("Conv", x, g.const(weight), group=group, **more)
            there = g.const(table.reshape(1, 4, 6, 6) * by)
            return str(g.op("Add", x, g.op("Conv", there, g.const(weight), group=group, **more)))

        return build

    def before(g: Graph) -> str:
        x = g.op("Add", g.op("Sigmoid", g.input("x", "N", 4, 6, 6)), g.const(table))
        return str(g.op("Conv", x, g.const(weight), group=group, **more))

    assert isinstance(certify(written(before), written(apart(1.0))), Certified)
    assert isinstance(certify(written(apart(1.0)), written(before)), Certified)
    assert not isinstance(certify(written(before), written(apart(1.0 + 2.0**-15))), Certified)


def summed(turned: bool, by: float) -> Build:
    """Two convolutions, each with a scale, added up, in the layout of another framework or not."""

    def build(g: Graph) -> str:
        x = g.input("x", "N", 3, 6, 6)
        y, z = (g.op("Conv", x, g.weight(4, 3, 1, 1)) for _ in range(2))
        scale = np.array([1.0, -2.0, 3.0, 0.5])
        if turned:
            y, z = (g.op("Transpose", v, perm=[0, 2, 3, 1]) for v in (y, z))
            y = g.op("Mul", y, g.const(scale * by))
        else:
            y = g.op("Mul", y, g.const(scale.reshape(4, 1, 1) * by))
        y = g.op("Relu", g.op("Add", y, z))
        return str(g.op("Transpose", y, perm=[0, 3, 1, 2]) if turned else y)

    return build


def test_a_sum_may_be_made_in_another_layout() -> None:
    once = written(summed(turned=True, by=1.0))
    assert isinstance(certify(once, written(summed(turned=False, by=1.0))), Certified)
    assert not isinstance(certify(once, written(summed(turned=False, by=1.0001))), Certified)


def rotated(by: float) -> Build:
    """A sum with a factor for each place of each part, before a matrix: a spectrum."""

    def build(g: Graph) -> str:
        x = g.input("x", "N", 5, 6)
        tables = g.rng.standard_normal((2, 5, 6)).astype(np.float32)
        y = g.op("Mul", g.op("Sigmoid", x), g.const(tables[0] * np.float32(by)))
        y = g.op("Add", y, g.op("Mul", g.op("Tanh", x), g.const(tables[1])))
        return str(g.op("MatMul", y, g.weight(6, 3)))

    return build


def test_a_factor_for_each_place_may_be_moved_by_a_rounding() -> None:
    once = written(rotated(1.0))
    assert isinstance(certify(once, written(rotated(1 + 2.0**-23))), Certified)
    assert not isinstance(certify(once, written(rotated(1 + 2.0**-19))), Certified)


def power(exponent: float | None, by: float = 1.0) -> Build:
    """(by * x) to the power; None: by * by times x * x."""

    def build(g: Graph) -> str:
        x = g.op("Sigmoid", g.input("x", "N", 4))
        if exponent is None:
            return str(g.op("Mul", g.op("Mul", x, x), g.const(np.full((), by * by))))
        x = g.op("Mul", x, g.const(np.full((), by)))
        return str(g.op("Pow", x, g.const(np.full((), exponent))))

    return build


def test_a_square_is_a_product() -> None:
    assert isinstance(certify(written(power(2.0, 3.0)), written(power(None, 3.0))), Certified)
    assert not isinstance(certify(written(power(2.0, 3.0)), written(power(None, 3.1))), Certified)
    assert not isinstance(certify(written(power(3.0)), written(power(None))), Certified)
    assert isinstance(certify(written(power(3.0)), written(power(3.0))), Certified)
    assert not isinstance(certify(written(power(3.0)), written(power(3.0001))), Certified)


def parts(turned: bool, first: int = 0, op: str = "Gelu") -> Build:
    """A part of a value, whose numbers are done one by one before it is turned, or behind that."""

    def build(g: Graph) -> str:
        x = g.op("Softplus", g.input("x", "N", 8, 5))
        bounds = [g.const(np.array([n])) for n in (first, first + 3)]
        if turned:
            x = g.op("Slice", g.op("Transpose", x, perm=[0, 2, 1]), *bounds, g.const([2]))
            x = g.op("Mul", g.op(op, x), g.op(op, x)) if op == "Tanh" else g.op(op, x)
            return str(g.op("Transpose", x, perm=[0, 2, 1]))
        x = g.op("Slice", x, *bounds, g.const([1]))
        return str(g.op("Mul", g.op(op, x), g.op(op, x)) if op == "Tanh" else g.op(op, x))

    return build


@pytest.mark.parametrize("op", ["Gelu", "Relu", "Tanh"])
def test_a_part_may_be_turned_before_or_behind_what_is_done_by_number(op: str) -> None:
    once = written(parts(turned=True, op=op))
    assert isinstance(certify(once, written(parts(turned=False, op=op))), Certified)
    assert not isinstance(certify(once, written(parts(turned=False, first=1, op=op))), Certified)
