"""A rule for each op that reads a computed value; what has none is a function like any other."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from converter.certificate import bounds, elementwise, norms, pools, tables
from converter.certificate.arrays import Shape, bits
from converter.certificate.context import (
    REAL,
    UNITS,
    Context,
    attributes,
    frozen,
    infinite,
)
from converter.certificate.convolution import conv, conv_transpose
from converter.certificate.einsum import einsum
from converter.certificate.forms import Form, Known, Value
from converter.certificate.inferring import kind_of
from converter.certificate.matmul import batched, gemm, matmul, matrix_times, with_vectors
from converter.certificate.padding import pad
from converter.certificate.products import product
from converter.certificate.rearranging import applied, ints, slices
from converter.certificate.recurrent import recurrent
from converter.certificate.sums import one_term
from converter.certificate.verdict import Doubt
from converter.certificate.views import concat, number_by_number, rearranged

# Results, or None where a rule leaves the op to what is done with any function.
Rule = Callable[[Context, ir.Node, list[Value]], list[Value] | None]

_VIEWS = frozenset(
    {"Identity", "Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Expand", "Tile"}
    | {"Gather", "Slice", "Split", "DepthToSpace", "SpaceToDepth"}
)
_UNARY = frozenset(
    {"Abs", "Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "Celu", "Ceil", "Cos", "Cosh"}
    | {"Elu", "Erf", "Exp", "Floor", "Gelu", "Log", "Mish"}
    | {"Reciprocal", "Round", "Selu", "Sigmoid", "Sign", "Sin", "Sinh", "Softplus", "Softsign"}
    | {"Sqrt", "Swish", "Tan", "Tanh", "ThresholdedRelu"}
)


def computed(ctx: Context, node: ir.Node, values: list[Value]) -> Sequence[Value]:
    """The results of a node, at least one of whose inputs is computed."""
    op = node.op_type
    x = values[0] if values else None
    if op in _VIEWS and isinstance(x, Form) and x.shape != (-1,):
        work = applied(node, values, ctx.opset, free=ctx.space.free)
        if work is not None:
            part = _part(ctx, node, values, x)
            return [rearranged(ctx, x, each, part) for each in work]
    if op == "Cast" and isinstance(x, Form) and not x.real and _is_of(x, node):
        return [x]
    rule = _RULES.get(op)
    real = all(
        value is None or not isinstance(value, Form) or value.real
        for value in (values if op in _ALL_REAL else values[:1])
    )
    if rule is not None and real:
        found = rule(ctx, node, values)
        if found is not None:
            return found
    return opaque(ctx, node, values)


def _part(ctx: Context, node: ir.Node, values: list[Value], x: Form) -> Hashable:
    """Names a part of an axis that two sizes do not determine: every third of it, or the half."""
    if not ctx.space.free:
        return None
    op, more = node.op_type, values[1:]
    steps = more[3] if op == "Slice" and len(more) > 3 else None
    if isinstance(steps, Known) and np.any(np.abs(steps.array) > 1):
        along = ints(more[2]) if more[2] is not None else range(steps.size)
        stepping = [a for a, n in zip(along, ints(steps), strict=True) if abs(n) > 1]
        read: Hashable = tuple(bits(v.array) if isinstance(v, Known) else None for v in more)
    elif op == "Split" and not more and "split" not in node.attributes:
        stepping = [attributes(node, ctx.opset)["axis"]]
        read = (len(node.outputs), *stepping)
    else:
        return None
    if ctx.axes and all(isinstance(ctx.axes[axis], int) for axis in stepping):
        return None  # it has no other size
    return op, x.shape, read


def opaque(ctx: Context, node: ir.Node, values: Sequence[Value]) -> list[Value]:
    attrs = attributes(node, ctx.opset)
    kind = node.op_type
    x = values[0]
    if kind == "Slice" and isinstance(x, Form) and x.shape != (-1,):
        parts, _ = slices(values, attrs, x.shape)
        shape = np.empty(x.shape, bool)[parts].shape
        dtype = int(ir.DataType.FLOAT) if x.real else kind_of(x)
        return ctx.opaque(kind, frozen(attrs), values, [(shape, dtype)])
    if kind == "STFT" and isinstance(x, Form) and x.rank > 1:
        dtype = int(ir.DataType.FLOAT) if x.real else kind_of(x)
        return ctx.opaque(kind, frozen(attrs), values, [(_spectra(x, values, attrs), dtype)])
    results = ctx.results(node, values)
    if (
        kind == "Softmax"
        and isinstance(x, Form)
        and x.real
        and attrs["axis"] % x.rank == x.rank - 1
    ):
        kind = "softmax over the last axis"
        attrs = {}
    elif kind in _OF_TWO_AXES and ctx.opset < 13:
        kind = f"{kind} of two axes"
    return ctx.opaque(kind, frozen(attrs), values, results)


def _spectra(x: Form, values: Sequence[Value], attrs: dict[str, Any]) -> Shape:
    """The shape of an STFT (onnx infers it as if `onesided` were 0 where it is left out)."""
    (step,) = ints(values[1])
    window = values[2] if len(values) > 2 else None
    if len(values) > 3:
        (length,) = ints(values[3])
    elif window is not None:
        length = window.shape[0]
    else:
        raise Doubt("an STFT says neither how long its frames are nor how they are weighted")
    frames = (x.shape[1] - length) // step + 1
    if frames <= 0:
        raise Doubt("a sound is shorter than a frame of its STFT")
    return x.shape[0], frames, length // 2 + 1 if attrs["onesided"] else length, 2


def _unary(ctx: Context, node: ir.Node, values: list[Value]) -> list[Value] | None:
    x = values[0]
    if not isinstance(x, Form) or len(values) > 1:
        return None
    more = frozen(attributes(node, ctx.opset))

    def work(form: Form) -> Form:
        (made,) = ctx.opaque(node.op_type, more, [form], [(form.shape, 1)])
        assert isinstance(made, Form)
        return made

    return [number_by_number(ctx, x, work)]


def _power(ctx: Context, node: ir.Node, values: list[Value]) -> list[Value] | None:
    """A square is a product; with another constant exponent each number is done by itself."""
    x, exponent = values
    if not isinstance(x, Form) or not isinstance(exponent, Known) or exponent.size != 1:
        return None
    if len(exponent.shape) > x.rank:
        return None
    number = exponent.array.reshape(())
    if number == 2:
        return [elementwise.multiply(ctx, [x, x])]

    def work(form: Form) -> Form:
        (made,) = ctx.opaque(node.op_type, float(number), [form], [(form.shape, 1)])
        assert isinstance(made, Form)
        return made

    return [number_by_number(ctx, x, work)]


def _cast(ctx: Context, node: ir.Node, values: list[Value]) -> list[Value] | None:
    x = values[0]
    attrs = attributes(node, ctx.opset)
    if node.op_type == "CastLike":
        like = values[1]
        if not isinstance(like, (Form, Known)) or not like.real or x is None:
            return None
        if isinstance(x, Known) and not x.real and _exact(x):
            # A whole number, such as a size that a root is taken of.
            unit, tiny = UNITS[ir.DataType.FLOAT]
            return [Known(x.array.astype(np.float64), unit, tiny, x.sized)]
        if not x.real:
            return None
        ctx.narrowed[_LIKE] = ctx.narrowed.get(_LIKE, 0) + 1
        return [x]
    assert isinstance(x, Form)
    to = ir.DataType(int(attrs["to"]))
    if to not in REAL:
        return None
    ctx.narrowed[to.name] = ctx.narrowed.get(to.name, 0) + 1
    return [x]


def _is_of(x: Form, node: ir.Node) -> bool:
    """Whether whole numbers or truths are of the type that a Cast gives."""
    to = node.attributes.get_int("to", 0)
    # The type of values of unknown shape, and what is told of floats, is not that of the graph.
    return x.shape != (-1,) and to not in _REALS and x.single[0].more.get("dtype") == to


def _exact(x: Known) -> bool:
    """Whether they are whole numbers that every type of floats has."""
    return x.array.dtype.kind in "iu" and bool(np.all(np.abs(x.array) <= 1 << 8))


def _dropout(_: Context, node: ir.Node, values: list[Value]) -> list[Value] | None:
    training = values[2] if len(values) > 2 else None
    ratio = values[1] if len(values) > 1 else None
    nothing = isinstance(ratio, Known) and not ratio.array.any()
    stays = training is None or (isinstance(training, Known) and not training.array.any())
    if not stays and not nothing:
        raise Doubt("it draws random numbers")
    if sum(bool(value.name) for value in node.outputs) > 1:
        return None
    return [values[0]]


def _product(ctx: Context, _: ir.Node, values: list[Value]) -> list[Value] | None:
    found = with_vectors(ctx, values, _matrices)
    return None if found is None else [found]


def _matrices(ctx: Context, x: Value, y: Value) -> Form | None:
    if isinstance(x, Form) and isinstance(y, Known) and y.real:
        return batched(ctx, x, y) if len(y.shape) > 2 else matmul(ctx, x, y)
    if isinstance(x, Known) and isinstance(y, Form) and x.real:
        return matrix_times(ctx, x, y) if len(x.shape) == 2 else None
    if isinstance(x, Form) and isinstance(y, Form):
        return product(ctx, x, y)
    return None


def _gemm(ctx: Context, node: ir.Node, values: list[Value]) -> list[Value] | None:
    found = gemm(ctx, node, values)
    return None if found is None else [found]


def _einsum(ctx: Context, node: ir.Node, values: list[Value]) -> list[Value] | None:
    found = einsum(ctx, node, values, _matrices)
    return None if found is None else [found]


def _hard_swish(ctx: Context, _: ir.Node, values: list[Value]) -> list[Value] | None:
    """x * HardSigmoid(x), with the numbers that the standard's function has."""
    x = values[0]
    assert isinstance(x, Form)
    slope, middle = float(np.float32(1 / 6)), 0.5

    def work(form: Form) -> Form:
        gate = bounds.hard_sigmoid(ctx, form, slope, middle)
        return elementwise.multiply(ctx, [form, gate])

    return [number_by_number(ctx, x, work)]


def _hard_sigmoid(ctx: Context, node: ir.Node, values: list[Value]) -> list[Value] | None:
    x, attrs = values[0], attributes(node, ctx.opset)
    assert isinstance(x, Form)
    numbers = float(attrs["alpha"]), float(attrs["beta"])
    return [number_by_number(ctx, x, lambda form: bounds.hard_sigmoid(ctx, form, *numbers))]


def _conv(ctx: Context, node: ir.Node, values: list[Value]) -> list[Value] | None:
    bias = values[2] if len(values) > 2 else None
    if not isinstance(values[0], Form) or not isinstance(values[1], Known):
        return None
    if isinstance(bias, Form) and bias.terms:
        return None
    work = conv if node.op_type == "Conv" else conv_transpose
    return [work(ctx, node, values)]


def _gather(ctx: Context, node: ir.Node, values: list[Value]) -> list[Value] | None:
    table, places = values
    if not isinstance(table, Known) or not table.real or not isinstance(places, Form):
        return None
    if attributes(node, ctx.opset)["axis"] % len(table.shape):
        return None
    found = tables.gather(ctx, table, places)
    return None if found is None else [found]


def _concat(ctx: Context, node: ir.Node, values: list[Value]) -> list[Value] | None:
    forms = [one_term(ctx, ctx.form(value)) for value in values]
    if any(form.shape == (-1,) for form in forms):
        return None
    if len(forms) == 1:
        return [forms[0]]
    return [concat(ctx, forms, attributes(node, ctx.opset)["axis"])]


def _add(ctx: Context, node: ir.Node, values: list[Value]) -> list[Value] | None:
    """A mask of minus infinities is no shift: what is added to it is compared with it."""
    masks = [value for value in values if infinite(value)]
    if not masks or any(np.any(v.array == np.inf) for v in masks if isinstance(v, Known)):
        return [elementwise.add(ctx, values)]
    others = [value for value in values if not infinite(value)]
    if len(masks) > 1 or len(others) != 1:
        return None
    return ctx.opaque("Add", "a mask", [*others, *masks], ctx.results(node, values))


def _mean(ctx: Context, _: ir.Node, values: list[Value]) -> list[Value] | None:
    form = elementwise.add(ctx, values)
    return [form.scaled(np.full((), 1.0 / len(values)))]


def _divide(ctx: Context, _: ir.Node, values: list[Value]) -> list[Value] | None:
    form = elementwise.divide(ctx, values)
    return None if form is None else [form]


def _pad(ctx: Context, node: ir.Node, values: list[Value]) -> list[Value] | None:
    try:
        return [pad(ctx, node, values)]
    except Doubt:
        return None


def _leaky(ctx: Context, node: ir.Node, values: list[Value]) -> list[Value] | None:
    x = values[0]
    assert isinstance(x, Form)
    alpha = float(attributes(node, ctx.opset)["alpha"])
    return [number_by_number(ctx, x, lambda form: norms.homogeneous(ctx, form, alpha))]


def _prelu(ctx: Context, _: ir.Node, values: list[Value]) -> list[Value] | None:
    x, slope = values
    if not isinstance(x, Form) or not isinstance(slope, Known):
        return None
    if np.broadcast_shapes(x.shape, slope.shape) != x.shape:
        return None
    return [norms.homogeneous(ctx, x, slope)]


def _one(rule: Callable[[Context, ir.Node, list[Value]], Form | None]) -> Rule:
    def work(ctx: Context, node: ir.Node, values: list[Value]) -> list[Value] | None:
        if not isinstance(values[0], Form):
            return None
        found = rule(ctx, node, values)
        return None if found is None else [found]

    return work


_RULES: dict[str, Rule] = {
    **dict.fromkeys(_UNARY, _unary),
    "Add": _add,
    "Sum": lambda ctx, _, values: [elementwise.add(ctx, values)],
    "Sub": lambda ctx, _, values: [elementwise.subtract(ctx, values)],
    "Mul": lambda ctx, _, values: [elementwise.multiply(ctx, values)],
    "Div": _divide,
    "Mean": _mean,
    "Pow": _power,
    "Neg": _one(lambda ctx, _, values: ctx.form(values[0]).scaled(np.full((), -1.0))),
    "Relu": bounds.relu,
    "Clip": bounds.clip,
    "Max": bounds.extreme,
    "Min": bounds.extreme,
    "LeakyRelu": _leaky,
    "PRelu": _prelu,
    "Cast": _cast,
    "CastLike": _cast,
    "Dropout": _dropout,
    "Conv": _conv,
    "ConvTranspose": _conv,
    "MatMul": _product,
    "Gemm": _gemm,
    "Einsum": _einsum,
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": _hard_swish,
    "Gather": _gather,
    "Concat": _concat,
    "Pad": _pad,
    "MaxPool": _one(pools.max_pool),
    "GlobalMaxPool": _one(pools.max_pool),
    "AveragePool": _one(pools.average_pool),
    **dict.fromkeys(
        ("GlobalAveragePool", "ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin"),
        _one(pools.reduce),
    ),
    **dict.fromkeys(("LpPool", "GlobalLpPool", "ReduceL1", "ReduceL2"), _one(pools.p_norm)),
    "Resize": _one(pools.resize),
    "Upsample": _one(pools.resize),
    "BatchNormalization": norms.batch_norm,
    **dict.fromkeys(
        ("LayerNormalization", "RMSNormalization", "InstanceNormalization", "GroupNormalization"),
        _one(norms.scaled_norm),
    ),
    **dict.fromkeys(("RNN", "LSTM", "GRU"), recurrent),
}
_LIKE = "the type of another value"
_REALS = frozenset(int(dtype) for dtype in REAL)
# Before opset 13 these made two axes of all, parted at the one that they name.
_OF_TWO_AXES = frozenset({"Softmax", "LogSoftmax", "Hardmax"})
# Rules that compute with all of their inputs.
_ALL_REAL = frozenset(
    {"Add", "Sum", "Sub", "Mul", "Div", "Mean", "Max", "Min", "MatMul", "Gemm", "Einsum"}
    | {"Concat"}
)
