"""Relu, Clip, Max and Min: which bounds they have."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from converter.certificate.clamps import NONE_ABOVE, NONE_BELOW, ZERO, Bound, clamp
from converter.certificate.context import Context, attributes
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


def extreme(ctx: Context, node: ir.Node, values: list[Value]) -> list[Value] | None:
    """Max and Min of computed values and constants."""
    if len(values) == 1:
        return [values[0]]
    if len(values) != 2:
        return None
    for x, other in (values, values[::-1]):
        bound = None if isinstance(other, Form) and other.terms else _bound(ctx, other)
        if isinstance(x, Form) and bound is not None:
            if np.broadcast_shapes(x.shape, bound[0].shape) != x.shape:
                return None
            if node.op_type == "Max":
                return _clamps(ctx, x, bound, NONE_ABOVE)
            return _clamps(ctx, x, NONE_BELOW, bound)
    return None
