"""MatMul and Gemm with a constant matrix."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import prod

import numpy as np
import onnx_ir as ir

from converter.certificate.arrays import Array, varies
from converter.certificate.context import Context, attributes
from converter.certificate.forms import OWN, Form, Known, Value
from converter.certificate.linear import kernel_of, linear, source_of, whole
from converter.certificate.stored import Stored
from converter.certificate.sums import one_term
from converter.certificate.verdict import Doubt
from converter.certificate.views import rearranged, spread


def matmul(ctx: Context, x: Form, weight: Known, *, transposed: bool = False) -> Form:
    """x @ W, or x @ W' if it is transposed; W has two axes."""
    inputs, outputs = weight.shape[::-1] if transposed else weight.shape
    if x.rank < 2 or x.shape[-1] != inputs:
        raise Doubt("a MatMul has a matrix that does not fit to its input")
    x = one_term(ctx, x)
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
    turned = rearranged(ctx, x, lambda a: a.swapaxes(-1, -2))
    done = matmul(ctx, turned, weight, transposed=True)
    return rearranged(ctx, done, lambda a: a.swapaxes(-1, -2))


def gemm(ctx: Context, node: ir.Node, values: Sequence[Value]) -> Form:
    """alpha*A'B' + beta*C, B constant."""
    x, weight = values[0], values[1]
    assert isinstance(x, Form)
    assert isinstance(weight, Known)
    attrs = attributes(node, ctx.opset)
    if attrs["transA"]:
        x = rearranged(ctx, x, lambda a: a.T)
    if attrs["alpha"] != 1.0:
        x = x.scaled(np.full((), attrs["alpha"]))
    form = matmul(ctx, x, weight, transposed=bool(attrs["transB"]))
    if len(values) > 2 and values[2] is not None and attrs["beta"]:
        bias = ctx.form(values[2]).scaled(np.full((), attrs["beta"]))
        form = form.plus(spread(ctx, bias, form.shape))
    return form
