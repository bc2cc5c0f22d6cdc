"""Cases of sums, products, channels that are picked, and ops that exchange space and channels."""

from __future__ import annotations

from typing import Any

import numpy as np

from patterns.graphs import Graph
from tests.converter.folding.cases import Build, case


def conv(g: Graph, x: str, channels: int = 4, inputs: int = 3) -> str:
    return g.op("Conv", x, g.weight(channels, inputs, 1, 1), g.weight(channels))


def norm(g: Graph, y: str, channels: int = 4, sign: float = 0.0, *, shift: bool = True) -> str:
    """A batch-norm; its scales are of both signs, or all of `sign`."""
    given: dict[str, Any] = {"gamma": sign * g.rng.uniform(0.3, 1.5, channels)} if sign else {}
    if not shift:
        given |= {"beta": np.zeros(channels), "mean": np.zeros(channels)}
    return g.op("BatchNormalization", y, *g.statistics(channels, **given))


def two(g: Graph, channels: int = 4) -> tuple[str, str]:
    """Two convolutions of different values, so that they are no branches of one."""
    x = g.input("x", "N", 3, 6, 6)
    return conv(g, x, channels), conv(g, g.op("Sigmoid", x), channels)


# --- sums ---------------------------------------------------------------------------------


@case("Add", "one operand repeated over the positions")
def _(g: Graph) -> str:
    y, z = two(g)
    return norm(g, g.op("Add", g.op("GlobalAveragePool", z), y))


@case("Add", "an operand of lower rank")
def _(g: Graph) -> str:
    x = g.input("x", "N", 3, 4)
    row = g.op("MatMul", g.input("z", 1, 3), g.weight(3, 6))
    y = g.op("Add", g.op("MatMul", x, g.weight(4, 6)), g.op("Squeeze", row, g.const([0])))
    return norm(g, g.op("Transpose", y, perm=[0, 2, 1]), 6)


@case("Add", "the shift on the second, as the first has a relu")
def _(g: Graph) -> str:
    y, z = two(g)
    return norm(g, g.op("Add", g.op("Relu", y), z), sign=1)


@case("Sub", "the shift on the second, negated")
def _(g: Graph) -> str:
    y, z = two(g)
    return norm(g, g.op("Sub", g.op("Relu", y), z), sign=1)


@case("Sum", "of three")
def _(g: Graph) -> str:
    y, z = two(g)
    return norm(g, g.op("Sum", y, z, g.op("Relu", conv(g, "x"))), sign=1)


@case("Sum", "the shift on the last")
def _(g: Graph) -> str:
    y, z = two(g)
    return norm(g, g.op("Sum", g.op("Relu", y), g.op("LeakyRelu", z), conv(g, "x")), sign=1)


@case("Mean", "on all of them")
def _(g: Graph) -> str:
    return norm(g, g.op("Mean", *two(g)))


@case("Mean", "the shift on one of them")
def _(g: Graph) -> str:
    y, z = two(g)
    return norm(g, g.op("Mean", g.op("Relu", y), z), sign=1)


# --- products -----------------------------------------------------------------------------


@case("Mul", "of a gate, on the other factor")
def _(g: Graph) -> str:
    y, z = two(g)
    gate = g.op("Sigmoid", g.op("GlobalAveragePool", z))
    return norm(g, g.op("Mul", gate, y), shift=False)


@case("Mul", "of a linear gate")
def _(g: Graph) -> str:
    y, z = two(g)
    return norm(g, g.op("Mul", g.op("Sigmoid", y), g.op("GlobalAveragePool", z)), shift=False)


@case("Mul", "squeeze and excite of what it multiplies")
def _(g: Graph) -> str:
    """Both factors come from x; the last convolution of the gate is all its own."""
    x = g.op("Relu", conv(g, g.input("x", "N", 3, 6, 6)))
    gate = g.op("Relu", conv(g, g.op("GlobalAveragePool", x), 4, 4))
    return norm(g, g.op("Mul", x, gate), sign=1, shift=False)


@case("Mul", "a mask over the positions")
def _(g: Graph) -> str:
    y = conv(g, g.input("x", "N", 3, 6, 6))
    return norm(g, g.op("Mul", y, g.weight(1, 1, 6, 6)), shift=False)


@case("Mul", "a constant that takes the scale")
def _(g: Graph) -> str:
    """x is read twice, but the mask is free."""
    x = g.input("x", "N", 4, 6, 6)
    part = g.op("Mul", g.op("Sigmoid", x), g.weight(4, 6, 6))
    return norm(g, g.op("Mul", x, part), shift=False)


@case("Div", "the numerator")
def _(g: Graph) -> str:
    y, z = two(g)
    return norm(g, g.op("Div", y, g.op("Exp", z)), shift=False)


@case("Div", "of a constant")
def _(g: Graph) -> str:
    x = g.op("Exp", g.input("x", "N", 4, 6, 6))
    return norm(g, g.op("Div", g.weight(4, 6, 6), x), shift=False)


@case("Div", "by a constant that takes the scale")
def _(g: Graph) -> str:
    x = g.op("Exp", g.input("x", "N", 4, 6, 6))
    return norm(g, g.op("Div", x, g.const(g.rng.uniform(1, 2, (1, 4, 6, 6)))), shift=False)


@case("Neg", "a shift with its sign turned")
def _(g: Graph) -> str:
    return norm(g, g.op("Neg", conv(g, g.input("x", "N", 3, 6, 6))))


# --- channels that are picked -------------------------------------------------------------


@case("Split", "one of three parts")
def _(g: Graph) -> str:
    y = conv(g, g.input("x", "N", 3, 6, 6), 9)
    one, other, last = g.op("Split", y, g.const([2, 4, 3]), outputs=3, axis=1)
    g.output(g.op("Relu", one))
    g.output(g.op("Relu", last))
    return norm(g, other)


@case("Split", "equal parts, each with a batch-norm")
def _(g: Graph) -> str:
    y = conv(g, g.input("x", "N", 3, 6, 6), 8)
    parts = g.op("Split", y, outputs=2, axis=-3, num_outputs=2)
    return g.op("Concat", *(g.op("Relu", norm(g, part)) for part in parts), axis=1)


@case("Split", "of the rows, one of which is read")
def _(g: Graph) -> str:
    y = conv(g, g.input("x", "N", 3, 6, 6))
    return norm(g, g.op("Split", y, outputs=2, axis=2, num_outputs=2)[1])


@case("Slice", "a part, as another Slice reads the rest")
def _(g: Graph) -> str:
    y = conv(g, g.input("x", "N", 3, 6, 6), 8)
    axis = g.const([1])
    low = g.op("Slice", y, g.const([0]), g.const([4]), axis)
    high = g.op("Slice", y, g.const([4]), g.const([2**62]), axis)
    return g.op("Concat", norm(g, low), g.op("Relu", high), axis=1)


@case("Slice", "backwards in steps of two")
def _(g: Graph) -> str:
    y = conv(g, g.input("x", "N", 3, 6, 6), 8)
    bounds = g.const([-1, 1]), g.const([-(2**62), 5]), g.const([1, 2]), g.const([-2, 1])
    return norm(g, g.op("Slice", y, *bounds))


@case("Slice", "of rows")
def _(g: Graph) -> str:
    y = conv(g, g.input("x", "N", 3, 6, 6))
    return norm(g, g.op("Slice", y, g.const([1]), g.const([4]), g.const([2])))


@case("Gather", "some channels in another order")
def _(g: Graph) -> str:
    y = conv(g, g.input("x", "N", 3, 6, 6), 6)
    return norm(g, g.op("Gather", y, g.const([4, -1, 0, 2]), axis=1))


@case("Gather", "one step of a sequence")
def _(g: Graph) -> str:
    y = g.op("MatMul", g.input("x", "N", 7, 3), g.weight(3, 4))
    return norm(g, g.op("Gather", y, g.const(np.array(2)), axis=1))


@case("Gather", "a table of embeddings")
def _(g: Graph) -> str:
    y = g.op("Gather", g.weight(2, 4), g.input("x", "N", 5, dtype="int64"))
    return norm(g, g.op("Transpose", y, perm=[0, 2, 1]))


@case("Gather", "a table that others read")
def _(g: Graph) -> str:
    table, x = g.weight(2, 4), g.input("x", "N", dtype="int64")
    g.output(g.op("Relu", g.op("Gather", table, x)))
    return norm(g, g.op("Gather", table, x))


# --- space and channels -------------------------------------------------------------------


@case("DepthToSpace", "by blocks")
def _(g: Graph) -> str:
    y = conv(g, g.input("x", "N", 3, 6, 6), 16)
    return norm(g, g.op("DepthToSpace", y, blocksize=2))


@case("DepthToSpace", "channel by channel")
def _(g: Graph) -> str:
    y = conv(g, g.input("x", "N", 3, 6, 6), 16)
    return norm(g, g.op("DepthToSpace", y, blocksize=2, mode="CRD"))


@case("SpaceToDepth", "with one map a channel")
def _(g: Graph) -> str:
    y = g.op("SpaceToDepth", conv(g, g.input("x", "N", 3, 6, 6), 2), blocksize=2)
    drawn = {key: np.tile(g.rng.uniform(0.5, 2, 2), 4) for key in ("gamma", "beta", "mean", "var")}
    return g.op("BatchNormalization", y, *g.statistics(8, **drawn))


def resized(name: str, *, shift: bool = True, sizes: bool = False, **attributes: Any) -> None:
    def build(g: Graph) -> str:
        y = conv(g, g.input("x", 2, 3, 6, 6))
        more = (
            ["", g.const([2, 4, 9, 11])] if sizes else [g.const([1.0, 1, 2, 1.5], dtype="float32")]
        )
        return norm(g, g.op("Resize", y, "", *more, **attributes), shift=shift)

    case("Resize", name)(build)


resized("nearest", mode="nearest")
resized("linear", mode="linear", coordinate_transformation_mode="align_corners")
resized("cubic", mode="cubic", coordinate_transformation_mode="pytorch_half_pixel")
resized("to sizes", mode="linear", sizes=True)
resized("cubic without its outside", mode="cubic", exclude_outside=1)


@case("Resize", "of two axes by name")
def _(g: Graph) -> str:
    y = conv(g, g.input("x", "N", 3, 6, 6))
    factors = g.const([2.0, 3.0], dtype="float32")
    return norm(g, g.op("Resize", y, "", factors, axes=[2, 3], mode="linear"))


@case("Upsample", "in opset 9")
def _(g: Graph) -> str:
    g.opset = 9
    y = conv(g, g.input("x", "N", 3, 6, 6))
    factors = g.const([1.0, 1, 2, 2], dtype="float32")
    return norm(g, g.op("Upsample", y, factors, mode="nearest"))


@case("Pad", "zeros around a scale")
def _(g: Graph) -> str:
    y = conv(g, g.input("x", "N", 3, 6, 6))
    return norm(g, g.op("Pad", y, g.const([0, 0, 1, 1, 0, 0, 2, 0])), shift=False)


def padded(mode: str) -> Build:
    def build(g: Graph) -> str:
        y = conv(g, g.input("x", "N", 3, 6, 6))
        return norm(g, g.op("Pad", y, g.const([0, 0, 1, 1, 0, 0, 2, 0]), mode=mode))

    return build


for kind in ("reflect", "edge", "wrap"):
    case("Pad", kind)(padded(kind))


@case("Pad", "minus infinity in front of a maximum")
def _(g: Graph) -> str:
    y = conv(g, g.input("x", "N", 3, 6, 6))
    y = g.op("Pad", y, g.const([1, 1, 1, 1]), g.const(-np.inf), g.const([2, 3]))
    return norm(g, g.op("MaxPool", y, kernel_shape=[3, 3]), sign=1)


@case("Pad", "zero channels behind a residual")
def _(g: Graph) -> str:
    """The shortcut of a pyramid net: the other summand takes the shift."""
    x = g.input("x", "N", 3, 6, 6)
    short = g.op("Pad", conv(g, x, 4), g.const([0, 0, 0, 0, 0, 2, 0, 0]))
    return norm(g, g.op("Add", short, conv(g, g.op("Sigmoid", x), 6)), 6)


@case("Expand", "over the positions")
def _(g: Graph) -> str:
    y = g.op("GlobalAveragePool", conv(g, g.input("x", 2, 3, 6, 6)))
    return norm(g, g.op("Expand", y, g.const([2, 4, 5, 3])))


@case("Tile", "over the positions")
def _(g: Graph) -> str:
    y = conv(g, g.input("x", "N", 3, 6, 6))
    return norm(g, g.op("Tile", y, g.const([1, 1, 2, 1])))


def cast(dtype: int) -> Build:
    def build(g: Graph) -> str:
        y = g.op("Cast", conv(g, g.input("x", "N", 3, 6, 6)), to=dtype)
        back = g.op("Cast", y, to=11 if g.dtype == "float64" else 1)
        return norm(g, back)

    return build


case("Cast", "from and to other floats")(cast(1))


# --- reductions ---------------------------------------------------------------------------


@case("ReduceSum", "of a fixed number")
def _(g: Graph) -> str:
    y = conv(g, g.input("x", "N", 3, 6, 6))
    return norm(g, g.op("ReduceSum", y, g.const([3, -2]), keepdims=0))


@case("ReduceSum", "of an open number, without a shift")
def _(g: Graph) -> str:
    y = conv(g, g.input("x", "N", 3, "H", 6))
    return norm(g, g.op("ReduceSum", y, g.const([2, 3]), keepdims=1), shift=False)


for extreme in ("ReduceMax", "ReduceMin"):

    @case(extreme, "of the rows")
    def _(g: Graph, op: str = extreme) -> str:
        y = conv(g, g.input("x", "N", 3, 6, 6))
        return norm(g, g.op(op, y, g.const([2]), keepdims=0), sign=1)


@case("Abs", "of a convolution")
def _(g: Graph) -> str:
    return norm(g, g.op("Abs", conv(g, g.input("x", "N", 3, 6, 6))), sign=1, shift=False)


for extreme in ("Max", "Min"):

    @case(extreme, "with one constant a channel")
    def _(g: Graph, op: str = extreme) -> str:
        pair = [g.weight(4, 1, 1), conv(g, g.input("x", "N", 3, 6, 6))]
        return norm(g, g.op(op, *pair), sign=1 if op == "Max" else -1)


# --- layouts that only together keep the channels -----------------------------------------


def shuffled(g: Graph, y: str, channels: int, groups: int) -> str:
    """ShuffleNet's channel shuffle of (N, C, 6, 6), for any N."""
    y = g.op("Reshape", y, g.const([-1, groups, channels // groups, 6, 6]))
    y = g.op("Transpose", y, perm=[0, 2, 1, 3, 4])
    return g.op("Reshape", y, g.const([-1, channels, 6, 6]))


@case("Reshape", "a channel shuffle")
def _(g: Graph) -> str:
    y = conv(g, g.input("x", "N", 3, 6, 6), 6)
    return norm(g, shuffled(g, y, 6, 2), 6)


@case("Reshape", "rows of a sequence")
def _(g: Graph) -> str:
    y = g.op("MatMul", g.input("x", "N", "L", 3), g.weight(3, 4))
    return norm(g, g.op("Reshape", y, g.const([-1, 4])))
