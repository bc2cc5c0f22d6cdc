"""Moves forward: a batch-norm, the op that it passes, and convolutions that take it up."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from patterns.graphs import Graph

Build = Callable[[Graph, str], str]


def conv(g: Graph, x: str, channels: int) -> str:
    return g.op("Conv", x, g.weight(3, channels, 1, 1))


def norm(g: Graph, x: str, channels: int = 4, *, scale: str = "mixed", shift: bool = True) -> str:
    """A batch-norm with scales of both signs, all positive, or all 1."""
    given: dict[str, Any] = {}
    if scale == "positive":
        given["gamma"] = g.rng.uniform(0.3, 1.5, channels)
    if scale == "none":
        given = {"gamma": np.ones(channels), "var": np.ones(channels)}
    if not shift:
        given |= {"beta": np.zeros(channels), "mean": np.zeros(channels)}
    more = {"epsilon": 0.0} if scale == "none" else {}
    return g.op("BatchNormalization", x, *g.statistics(channels, **given), **more)


def split(g: Graph, x: str) -> str:
    one, other = g.op("Split", norm(g, x), g.const([1, 3]), outputs=2, axis=1)
    g.output(g.op("Relu", conv(g, one, 1)))
    return conv(g, other, 3)


def rows(g: Graph, x: str) -> str:
    one, other = g.op("Split", norm(g, x), outputs=2, axis=2, num_outputs=2)
    g.output(g.op("Relu", conv(g, one, 4)))
    return conv(g, other, 4)


def gate(g: Graph, x: str) -> str:
    """Squeeze and excite: the gate and the product both read the batch-norm."""
    y = norm(g, x, shift=False)
    squeezed = g.op("Conv", g.op("GlobalAveragePool", y), g.weight(4, 4, 1, 1))
    return conv(g, g.op("Mul", y, g.op("Sigmoid", squeezed)), 4)


def shuffle(g: Graph, x: str) -> str:
    y = g.op("Reshape", norm(g, x), g.const([-1, 2, 2, 6, 6]))
    y = g.op("Transpose", y, perm=[0, 2, 1, 3, 4])
    return conv(g, g.op("Reshape", y, g.const([-1, 4, 6, 6])), 4)


def pad(g: Graph, x: str, mode: str) -> str:
    """A reflected border, and then a convolution that needs no padding of its own."""
    y = g.op("Pad", norm(g, x), g.const([0, 0, 1, 1, 0, 0, 1, 1]), mode=mode)
    return g.op("Conv", y, g.weight(3, 4, 3, 3))


def reduced(op: str, **more: Any) -> Build:
    def build(g: Graph, x: str) -> str:
        y = g.op(op, norm(g, x, **more), g.const([-1, 2]), keepdims=0)
        return g.op("Gemm", y, g.weight(4, 5))

    return build


def one(
    op: str, *, channels: int = 4, scale: str = "mixed", shift: bool = True, **more: Any
) -> Build:
    """One op without further inputs, which leaves `channels`."""

    def build(g: Graph, x: str) -> str:
        return conv(g, g.op(op, norm(g, x, scale=scale, shift=shift), **more), channels)

    return build


def upsample(g: Graph, x: str) -> str:
    g.opset = 9
    factors = g.const([1.0, 1, 2, 2], dtype="float32")
    return conv(g, g.op("Upsample", norm(g, x), factors, mode="linear"), 4)


def cast(g: Graph, x: str) -> str:
    y = g.op("Cast", norm(g, x), to=1)
    return conv(g, g.op("Cast", y, to=11 if g.dtype == "float64" else 1), 4)


def space_to_depth(g: Graph, x: str) -> str:
    return conv(g, g.op("SpaceToDepth", norm(g, x), blocksize=2), 16)


def depth_to_space(g: Graph, x: str) -> str:
    """All four channels have one map."""
    values = {key: np.full(4, 0.7) for key in ("gamma", "beta", "mean", "var")}
    y = g.op("BatchNormalization", x, *g.statistics(4, **values))
    return conv(g, g.op("DepthToSpace", y, blocksize=2), 1)


def two(op: str, **more: Any) -> Build:
    """With another value on the left."""

    def build(g: Graph, x: str) -> str:
        return conv(g, g.op(op, g.op("Exp", x), norm(g, x, **more)), 4)

    return build


def constant(op: str, *shape: int, left: bool = False) -> Build:
    def build(g: Graph, x: str) -> str:
        pair = [norm(g, x), g.weight(*shape)]
        return conv(g, g.op(op, *(reversed(pair) if left else pair)), 4)

    return build


# By op, or by op and what is special.
MORE: dict[str, Build] = {
    "Abs": one("Abs", scale="positive", shift=False),
    "Resize": lambda g, x: conv(
        g,
        g.op("Resize", norm(g, x), "", g.const([1.0, 1, 2, 2], dtype="float32"), mode="linear"),
        4,
    ),
    "Upsample": upsample,
    "Cast": cast,
    "Neg": one("Neg"),
    "Max": constant("Max", 4, 1, 1),
    "Min": constant("Min", 1, 4, 1, 1, left=True),
    "ReduceMax": reduced("ReduceMax", scale="positive"),
    "ReduceMin": reduced("ReduceMin", scale="positive"),
    "ReduceSum": reduced("ReduceSum"),
    "SpaceToDepth": space_to_depth,
    "DepthToSpace": depth_to_space,
    "Expand": lambda g, x: conv(
        g, g.op("Expand", g.op("GlobalAveragePool", norm(g, x)), g.const([1, 4, 3, 3])), 4
    ),
    "Tile": lambda g, x: conv(g, g.op("Tile", norm(g, x), g.const([1, 1, 2, 2])), 4),
    "Pad": lambda g, x: pad(g, x, "reflect"),
    "Pad, wrapped": lambda g, x: pad(g, x, "wrap"),
    "Pad, zeros around a scale": lambda g, x: conv(
        g, g.op("Pad", norm(g, x, shift=False), g.const([1, 2]), "", g.const([3])), 4
    ),
    "Pad, new channels": lambda g, x: conv(
        g, g.op("Pad", norm(g, x), g.const([2, 1]), g.const(5.0), g.const([1])), 7
    ),
    "Split": split,
    "Split, of rows": rows,
    "Slice": lambda g, x: conv(
        g, g.op("Slice", norm(g, x), g.const([3]), g.const([0]), g.const([1]), g.const([-2])), 2
    ),
    "Slice, of rows": lambda g, x: conv(
        g, g.op("Slice", norm(g, x), g.const([1]), g.const([4]), g.const([-1])), 4
    ),
    "Gather": lambda g, x: conv(
        g, g.op("Gather", norm(g, x), g.const([2, 2, -1, 0, 1]), axis=1), 5
    ),
    "Gather, a row": lambda g, x: g.op(
        "Conv", g.op("Gather", norm(g, x), g.const(np.array(1)), axis=2), g.weight(3, 4, 2)
    ),
    "Add": two("Add", scale="none"),
    "Add, to itself": lambda g, x: conv(
        g, (lambda y: g.op("Add", y, y))(norm(g, x, scale="none")), 4
    ),
    "Add, a constant a channel": constant("Add", 4, 1, 1),
    "Add, one constant": constant("Add", left=True),
    "Sub": two("Sub", scale="none"),
    "Sub, a constant on the right": constant("Sub", 1, 4, 1, 1),
    "Sub, a constant on the left": constant("Sub", 1, 4, 1, 1, left=True),
    "Sum": two("Sum", scale="none"),
    "Mean": two("Mean", scale="none"),
    "Mul": two("Mul", shift=False),
    "Mul, a gate": gate,
    "Mul, by itself": lambda g, x: conv(
        g, (lambda y: g.op("Mul", y, y))(norm(g, x, shift=False)), 4
    ),
    "Mul, a mask": lambda g, x: conv(g, g.op("Mul", norm(g, x, shift=False), g.weight(6, 6)), 4),
    "Div": lambda g, x: conv(g, g.op("Div", norm(g, x, shift=False), g.op("Exp", x)), 4),
    "Div, below": two("Div", shift=False),
    "Reshape, a channel shuffle": shuffle,
}
