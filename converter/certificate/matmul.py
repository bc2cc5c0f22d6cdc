"""MatMul and Gemm with a constant matrix, and Gemm as what it is made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import prod

import numpy as np
import onnx_ir as ir

from converter.certificate.arrays import Array, Index, varies
from converter.certificate.context import Context, attributes
from converter.certificate.elementwise import add
from converter.certificate.forms import OWN, Form, Known, Value, reshaped, transposed
from converter.certificate.linear import kernel_of, linear, source_of, whole
from converter.certificate.products import product
from converter.certificate.stored import Stored
from converter.certificate.sums import one_term
from converter.certificate.verdict import Doubt
from converter.certificate.views import before, rearranged, reorders, spread


def matmul(ctx: Context, x: Form, weight: Known, *, transposed: bool = False) -> Form:
    """x @ W, or x @ W' if it is transposed; W has two axes."""
    inputs, outputs = weight.shape[::-1] if transposed else weight.shape
    if x.rank < 2 or x.shape[-1] != inputs:
        raise Doubt("a MatMul has a matrix that does not fit to its input")
    x = one_term(ctx, x)
    rows = rows_of_view(x)
    if rows is not None:
        return _before_view(ctx, x, rows, weight, transposed)
    shape = (*x.shape[:-1], outputs)
    others = range(x.rank - 1)
    outer: Array | None = None
    if x.terms:
        z, s = x.single
        if varies(s, others) and not varies(s, [x.rank - 1]):
            # A factor a row passes: it is the same for all that are added up.
            outer, x = s, replace(x, terms={z: np.ones_like(s)})
    t, m = x.t, x.m
    apart = outer is not None or varies(t, others) or varies(m, others)
    if apart:
        zero = np.zeros((1,) * x.rank)
        x = replace(x, t=zero, m=zero)
    z, *numbers = source_of(ctx, x, x.rank - 1)
    turned = weight.numbers.turned if isinstance(weight.numbers, Stored) else None
    if turned is not None:
        weight, transposed = replace(weight, numbers=turned), not transposed
    kernel = kernel_of(
        ctx, weight, "matrix transposed" if transposed else "matrix", (outputs, inputs, 1), 1,
        (numbers[0], numbers[1], numbers[2]), x.u,
    )  # fmt: skip
    form = linear(ctx, ("matmul", z.id, shape), kernel, None, shape, x.rank - 1)
    for atom in form.terms:
        atom.more.setdefault("matrix", z)
    if outer is not None:
        form = form.scaled(outer, x.u)
    if apart:
        array = weight.array.T if transposed else weight.array
        wide_t, wide_m = (np.broadcast_to(a, (*a.shape[:-1], inputs)) for a in (t, m))
        size = np.abs(array)
        off = wide_m @ size + (ctx.rounding(weight) + OWN) * (np.abs(wide_t) @ size)
        form = form.shifted(wide_t @ array, off)
    return form


def rows_of_view(x: Form) -> Index | None:
    """Where each row of x stands in what it is a view of, if the view moves rows as a whole.

    A row is what lies along the last axis; None: it is no such view.
    """
    if len(x.terms) != 1:
        return None
    atom, width = x.single[0], x.shape[-1]
    if atom.kind != "view" or not width:
        return None
    base = atom.more["base"]
    if len(base.shape) < 2 or base.shape[-1] != width:
        return None
    index = atom.more["index"].reshape(-1, width)
    steps = np.arange(width)
    if not np.array_equal(index[0] - index[0, 0], steps) or not reorders(atom):
        return None
    first = index[:, :1]
    if np.any(first % width) or not np.array_equal(index, first + steps):
        return None
    return np.asarray(first[:, 0] // width, np.int64)


def _before_view(ctx: Context, x: Form, rows: Index, weight: Known, transposed: bool) -> Form:
    """Rows are multiplied one by one, so it does not matter in which order they stand."""
    atom, s = x.single
    base, index = atom.more["base"], atom.more["index"].reshape(-1)
    numbers = [before(array, x.shape, index, base.shape) for array in (s, x.t, x.m)]
    inner = replace(x, shape=base.shape, terms={base: numbers[0]}, t=numbers[1], m=numbers[2])
    done = matmul(ctx, inner, weight, transposed=transposed)
    width = done.shape[-1]
    places = rows[:, None] * width + np.arange(width)
    shape = (*x.shape[:-1], width)
    return rearranged(ctx, done, lambda a: a.reshape(-1)[places].reshape(shape))


def batched(ctx: Context, x: Form, weight: Known) -> Form:
    """x @ W with a matrix for each number of leading axes."""
    *batch, inputs, outputs = weight.shape
    shape = (*np.broadcast_shapes(x.shape[:-2], tuple(batch)), x.shape[-2], outputs)
    if x.shape[-1] != inputs or len(weight.shape) > len(shape):
        raise Doubt("a MatMul has matrices that do not fit to its input")
    x = one_term(ctx, x)
    if len(x.terms) == 1 and not x.t.any() and not x.m.any() and x.single[1].size == 1:
        z, factor = x.single
    else:
        z, factor = whole(ctx, x), np.ones((1,) * x.rank)
    zero = np.zeros(inputs)
    size = prod(batch) * outputs, inputs, 1
    numbers = np.full(inputs, factor.reshape(())), zero, zero
    kernel = kernel_of(ctx, weight, "matrices", size, 1, numbers, x.u)
    wide = (*(1,) * (len(shape) - len(weight.shape)), *batch, 1, outputs)
    key = ("matrices", z.id, tuple(batch), shape)
    return linear(ctx, key, kernel, None, shape, len(shape) - 1, wide)


def matrix_times(ctx: Context, weight: Known, x: Form) -> Form:
    """W @ x: the transpose of x' @ W'."""
    return _turned(ctx, matmul(ctx, _turned(ctx, x), weight, transposed=True))


def gemm(ctx: Context, node: ir.Node, values: Sequence[Value]) -> Form | None:
    """alpha*A'B' + beta*C; None: both matrices are constants."""
    x, y = values[:2]
    attrs = attributes(node, ctx.opset)
    alpha = np.full((), attrs["alpha"])
    turned = bool(attrs["transA"]), bool(attrs["transB"])
    if isinstance(x, Form) and isinstance(y, Known):
        x = _turned(ctx, x) if turned[0] else x
        form = matmul(ctx, x if alpha == 1 else x.scaled(alpha), y, transposed=turned[1])
    elif isinstance(x, Known) and isinstance(y, Form):
        y = _turned(ctx, y) if turned[1] else y
        x = transposed(x, (1, 0)) if turned[0] else x
        form = matrix_times(ctx, x, y if alpha == 1 else y.scaled(alpha))
    elif isinstance(x, Form) and isinstance(y, Form):
        x, y = (_turned(ctx, v) if t else v for v, t in zip((x, y), turned, strict=True))
        form = product(ctx, x if alpha == 1 else x.scaled(alpha), y)
    else:
        return None
    if len(values) > 2 and values[2] is not None and attrs["beta"]:
        bias = ctx.form(values[2]).scaled(np.full((), attrs["beta"]))
        form = add(ctx, [form, spread(ctx, bias, form.shape)])
    return form


def _turned(ctx: Context, x: Form) -> Form:
    return rearranged(ctx, x, lambda a: a.swapaxes(-1, -2))


def with_vectors(ctx: Context, values: Sequence[Value], work: Matrices) -> Form | None:
    """MatMul of values of one axis: a row before the product, a column behind it."""
    x, y = (_rank(value) for value in values)
    one, other = values
    if x == 1:
        one = _reshaped(ctx, one, (1, -1))
    if y == 1:
        other = _reshaped(ctx, other, (-1, 1))
    form = work(ctx, one, other)
    if form is None or (x != 1 and y != 1):
        return form
    axes = (form.rank - 2,) * (x == 1) + (form.rank - 1,) * (y == 1)
    return rearranged(ctx, form, lambda a: a.squeeze(axes))


Matrices = Callable[[Context, Value, Value], Form | None]


def _rank(value: Value) -> int:
    assert value is not None
    return len(value.shape)


def _reshaped(ctx: Context, value: Value, shape: tuple[int, int]) -> Value:
    """A value of one axis, with another one of size 1."""
    if isinstance(value, Form):
        return rearranged(ctx, value, lambda a: a.reshape(shape))
    assert isinstance(value, Known)
    return reshaped(value, tuple(value.size if n == -1 else n for n in shape))
