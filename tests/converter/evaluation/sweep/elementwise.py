"""Cases: ops that go number by number, and reductions."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.converter.evaluation.sweep.net import Case, Net, one


def usual(net: Net) -> Any:
    return net.normal(*net.shape())


def inside(net: Net) -> Any:
    return net.rng.uniform(-0.9, 0.9, net.shape())


def positive(net: Net) -> Any:
    return net.rng.uniform(0.2, 3.0, net.shape())


def above_one(net: Net) -> Any:
    return net.rng.uniform(1.2, 3.0, net.shape())


def special(net: Net) -> Any:
    return net.rng.choice([0.0, -1.5, np.inf, -np.inf, np.nan], net.shape())


def bools(net: Net) -> Any:
    return net.rng.random(net.shape()) < 0.5


def maybe(low: float, high: float) -> Any:
    return lambda net: net.pick(None, float(net.rng.uniform(low, high)))


UNARY = {
    **dict.fromkeys(
        ["Abs", "Asinh", "Atan", "Ceil", "Cos", "Cosh", "Erf", "Exp", "Floor", "HardSwish",
         "Identity", "Mish", "Neg", "Relu", "Round", "Sigmoid", "Sign", "Sin", "Sinh", "Softplus",
         "Softsign", "Tan", "Tanh", "Shape", "Size", "Det", "NonZero"],
        usual,
    ),
    **dict.fromkeys(["Acos", "Asin", "Atanh"], inside),
    **dict.fromkeys(["Log", "Sqrt", "Reciprocal"], positive),
    "Acosh": above_one,
    "IsNaN": special,
    "Not": bools,
    "Det": lambda net: net.normal(*net.shape(1), 3, 3),
}  # fmt: skip


def two(op: str, draw: Any) -> Case:
    """Two tensors that broadcast."""

    def case(net: Net) -> None:
        full = net.shape(net.size(1, 4))
        one_, other = (
            [net.pick(n, 1) for n in full],
            [net.pick(n, n, 1) for n in full[net.size(0, len(full)) :]],
        )
        net.out(net.op(op, draw(net, one_), draw(net, other)))

    return case


def floats(net: Net, shape: list[int]) -> Any:
    return net.normal(*shape)


def nonzero(net: Net, shape: list[int]) -> Any:
    return net.rng.uniform(0.3, 2.0, shape) * net.rng.choice([-1.0, 1.0], shape)


def above_zero(net: Net, shape: list[int]) -> Any:
    return net.rng.uniform(0.3, 2.0, shape)


def few(net: Net, shape: list[int]) -> Any:
    return net.rng.integers(-1, 2, shape).astype(float)


def logical(net: Net, shape: list[int]) -> Any:
    return net.rng.random(shape) < 0.5


def whole(net: Net, shape: list[int]) -> Any:
    return net.rng.integers(0, 100, shape).astype(np.int32)


def unsigned(net: Net, shape: list[int]) -> Any:
    return net.rng.integers(0, 7, shape).astype(np.uint32)


BINARY = {
    **dict.fromkeys(["Add", "Mul", "Sub"], floats),
    "Div": nonzero,
    "Pow": above_zero,
    **dict.fromkeys(["Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"], few),
    **dict.fromkeys(["And", "Or", "Xor"], logical),
    **dict.fromkeys(["BitwiseAnd", "BitwiseOr", "BitwiseXor"], whole),
}


def several(op: str) -> Case:
    def case(net: Net) -> None:
        full = net.shape(3)
        parts = [net.normal(*[net.pick(n, 1) for n in full]) for _ in range(net.size(1, 3))]
        net.out(net.op(op, *parts))

    return case


def prelu(net: Net) -> None:
    shape = net.shape(4)
    slope = net.pick([1], [shape[-1]], [shape[1], 1, 1], shape)
    net.out(net.op("PRelu", net.normal(*shape), net.normal(*slope)))


def clip(net: Net) -> None:
    low = net.pick("", np.float32(-0.5))
    high = net.pick("", np.float32(0.4))
    net.out(net.op("Clip", usual(net), low, high))


def where(net: Net) -> None:
    shape = net.shape(3)
    net.out(net.op("Where", logical(net, shape), net.normal(*shape), net.normal(shape[-1])))


def mod(net: Net) -> None:
    shape = net.shape(2)
    if net.pick(True, False):
        net.out(net.op("Mod", net.normal(*shape), nonzero(net, shape), fmod=1))
    else:
        numbers = [net.rng.integers(1, 9, shape) * net.pick(1, -1) for _ in range(2)]
        net.out(net.op("Mod", *numbers, fmod=net.pick(0, 1)))


def shift(net: Net) -> None:
    shape = net.shape(2)
    where_ = net.pick("LEFT", "RIGHT")
    net.out(net.op("BitShift", unsigned(net, shape), unsigned(net, shape), direction=where_))


def infinite(net: Net) -> None:
    sides = {"detect_negative": net.pick(0, 1), "detect_positive": net.pick(0, 1)}
    net.out(net.op("IsInf", special(net), **sides))


def cast(net: Net) -> None:
    numbers = 3.0 * usual(net)
    net.out(net.op("Cast", numbers, to=net.pick(1, 6, 7, 9, 11)))


def cast_like(net: Net) -> None:
    net.out(net.op("CastLike", 3.0 * usual(net), net.pick(np.int32(1), np.float64(1), np.True_)))


def dropout(net: Net) -> None:
    """Out of training: the identity, and a mask of nothing but true."""
    net.out(*net.op("Dropout", usual(net), outputs=2))


REDUCTIONS = (
    "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean",
    "ReduceMin", "ReduceProd", "ReduceSum", "ReduceSumSquare",
)  # fmt: skip


def reduction(op: str) -> Case:
    def case(net: Net) -> None:
        rank = net.size(1, 4)
        x = net.rng.uniform(0.2, 2.0, net.shape(rank))
        if op != "ReduceLogSum":
            x = x * net.rng.choice([-1.0, 1.0], x.shape)
        axes = net.pick(None, [0], [-1], sorted({0, rank - 1}), list(range(rank)))
        kept = {"keepdims": net.pick(0, 1)}
        as_input = net.opset >= (13 if op == "ReduceSum" else 18)
        if axes is None:
            more = {"noop_with_empty_axes": net.pick(0, 1)} if as_input else {}
            net.out(net.op(op, x, **kept, **more))
        elif as_input:
            net.out(net.op(op, x, np.array(axes), **kept))
        else:
            net.out(net.op(op, x, axes=axes, **kept))

    return case


def arg(op: str) -> Case:
    def case(net: Net) -> None:
        """Small whole numbers: there are ties."""
        x = few(net, net.shape(3))
        more = {"select_last_index": net.pick(0, 1)} if net.opset >= 12 else {}
        net.out(net.op(op, x, axis=net.pick(-3, -1, 0, 1, 2), keepdims=net.pick(0, 1), **more))

    return case


def cumulative(net: Net) -> None:
    flags = {"exclusive": net.pick(0, 1), "reverse": net.pick(0, 1)}
    axis = np.array(net.pick(-1, 0, 1), np.int64)
    net.out(net.op("CumSum", net.normal(*net.shape(2)), axis, **flags))


CASES: dict[str, Case] = {
    **{op: one(op, draw) for op, draw in UNARY.items()},
    **{op: two(op, draw) for op, draw in BINARY.items()},
    **{op: several(op) for op in ("Max", "Min", "Mean", "Sum")},
    **{op: reduction(op) for op in REDUCTIONS},
    **{op: arg(op) for op in ("ArgMax", "ArgMin")},
    "BitwiseNot": one("BitwiseNot", lambda net: whole(net, net.shape())),
    "Celu": one("Celu", usual, alpha=maybe(0.2, 2)),
    "Elu": one("Elu", usual, alpha=maybe(0.2, 2)),
    "Selu": one("Selu", usual, alpha=maybe(0.2, 2), gamma=maybe(0.5, 2)),
    "Gelu": one("Gelu", usual, approximate=lambda net: net.pick(None, "none", "tanh")),
    "HardSigmoid": one("HardSigmoid", usual, alpha=maybe(0.1, 1), beta=maybe(0, 1)),
    "LeakyRelu": one("LeakyRelu", usual, alpha=maybe(-1, 1)),
    "Shrink": one("Shrink", usual, bias=maybe(-1, 1), lambd=maybe(0.2, 1)),
    "ThresholdedRelu": one("ThresholdedRelu", usual, alpha=maybe(-1, 1)),
    "BitShift": shift,
    "Cast": cast,
    "CastLike": cast_like,
    "Clip": clip,
    "CumSum": cumulative,
    "Dropout": dropout,
    "IsInf": infinite,
    "Mod": mod,
    "PRelu": prelu,
    "Where": where,
}
