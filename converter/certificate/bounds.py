"""Relu, Clip, HardSigmoid, Max and Min: which bounds they have."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from converter.certificate.clamps import NONE_ABOVE, NONE_BELOW, ZERO, Bound, clamp
from converter.certificate.context import UNITS, Context, attributes
from converter.certificate.forms import Form, Known, Value
from converter.certificate.views import number_by_number


def _bound(ctx: Context, value: Value) -> Bound | None:
    """A constant as a bound, which may be infinite; None: it is computed."""
    if isinstance(value, Known) and value.real:
        finite = np.isfinite(value.array)
        off = ctx.off(value, np.where(finite, value.array, 0.0))
        return value.array, np.where(finite & (value.array != 0), off, 0.0)
    if isinstance(value, Form) and value.terms:
        return None
    c = ctx.form(value)
    return c.t, c.m


def _clamps(ctx: Context, x: Form, low: Bound, high: Bound) -> list[Value]:
    if low[0].size == 1 and high[0].size == 1:
        pair = [(a.reshape(()), b.reshape(())) for a, b in (low, high)]
        return [number_by_number(ctx, x, lambda form: clamp(ctx, form, pair[0], pair[1]))]
    return [clamp(ctx, x, low, high)]


def relu(ctx: Context, _: ir.Node, values: list[Value]) -> list[Value] | None:
    x = values[0]
    assert isinstance(x, Form)
    return _clamps(ctx, x, ZERO, NONE_ABOVE)


def clip(ctx: Context, node: ir.Node, values: list[Value]) -> list[Value] | None:
    x = values[0]
    attrs = attributes(node, ctx.opset)
    found: list[Bound | None] = []
    for place, name, none in ((1, "min", NONE_BELOW), (2, "max", NONE_ABOVE)):
        value = values[place] if place < len(values) else None
        if value is not None:
            bound = _bound(ctx, value)
        elif name in node.attributes:
            bound = np.full((), attrs[name]), np.zeros(())
        else:
            bound = none
        found.append(bound)
    if found[0] is None or found[1] is None or not isinstance(x, Form):
        return None
    return _clamps(ctx, x, found[0], found[1])


def hard_sigmoid(ctx: Context, x: Form, slope: float, middle: float) -> Form:
    """clip(slope*x + middle, 0, 1); the two numbers are float32, which may be moved as weights."""
    a, b = (Known(np.full((), number), *UNITS[ir.DataType.FLOAT]) for number in (slope, middle))
    line = x.scaled(a.array, ctx.rounding(a)).shifted(b.array, ctx.off(b))
    return clamp(ctx, line, ZERO, (np.ones(()), np.zeros(())))


def extreme(ctx: Context, node: ir.Node, values: list[Value]) -> list[Value] | None:
    """Max and Min of one computed value and constants."""
    if len(values) == 1:
        return [values[0]]
    forms = [value for value in values if isinstance(value, Form)]
    computed = [form for form in forms if form.terms]
    if len(computed) > 1:
        return None
    (x,) = computed or forms[:1]
    found = [_bound(ctx, value) for value in values if value is not x]
    larger = node.op_type == "Max"
    number, off = _outermost([bound for bound in found if bound is not None], larger=larger)
    if np.broadcast_shapes(x.shape, number.shape) != x.shape:
        return None
    bound = number, off
    return _clamps(ctx, x, bound, NONE_ABOVE) if larger else _clamps(ctx, x, NONE_BELOW, bound)


def _outermost(found: Sequence[Bound], *, larger: bool) -> Bound:
    """The bound that counts of several: each may be off, so the one that counts may be by as much
    as any of them."""
    number, off = found[0]
    for other, more in found[1:]:
        number = (np.maximum if larger else np.minimum)(number, other)
        off = np.maximum(*np.broadcast_arrays(off, more))
    return number, np.broadcast_to(off, number.shape)
