"""Batch-norms with constants change the form; other norms are an atom, scale and bias outside."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import onnx_ir as ir

from converter.certificate.arrays import Array
from converter.certificate.context import Context, attributes, frozen
from converter.certificate.elementwise import add, multiply
from converter.certificate.forms import OWN, Form, Known, Value, constant
from converter.certificate.sums import inside
from converter.certificate.sums import same_places as same
from converter.certificate.verdict import Doubt


def batch_norm(ctx: Context, node: ir.Node, values: Sequence[Value]) -> list[Value] | None:
    """gamma*(x - mean)/sqrt(var + epsilon) + beta; None: it trains, or a parameter is computed."""
    x, *parameters = values[:5]
    attrs = attributes(node, ctx.opset)
    if attrs.get("training_mode", 0) and isinstance(x, Form):
        return _training(ctx, node, values, attrs["epsilon"])
    if sum(bool(value.name) for value in node.outputs) > 1:
        return None
    if not attrs.get("spatial", 1) or not isinstance(x, Form) or x.rank < 2:
        return None
    gamma, beta, mean, var = parameters
    for value in parameters:
        if not isinstance(value, Known) or value.shape != (x.shape[1],):
            return None
    assert isinstance(gamma, Known)
    assert isinstance(beta, Known)
    assert isinstance(mean, Known)
    assert isinstance(var, Known)
    spread = var.array + attrs["epsilon"]
    if np.any(spread <= 0):
        raise Doubt("a batch-norm has a variance that is not positive")
    a = gamma.array / np.sqrt(spread)
    shift = beta.array - a * mean.array
    off = np.abs(a) * ctx.off(mean) + ctx.off(beta)
    u = max(ctx.rounding(value) for value in (gamma, var))
    wide = (-1, *[1] * (x.rank - 2))
    off = np.where((beta.array == 0) & (mean.array == 0), 0.0, off)
    return [x.scaled(a.reshape(wide), u).shifted(shift.reshape(wide), off.reshape(wide))]


def _training(
    ctx: Context, node: ir.Node, values: Sequence[Value], epsilon: float
) -> list[Value] | None:
    """With the statistics of the batch: scale and bias outside, new statistics without them."""
    x, gamma, beta = values[:3]
    assert isinstance(x, Form)
    for value in (gamma, beta):
        if not isinstance(value, Known) or value.shape != (x.shape[1],):
            return None
    core = ctx.opaque("batch-norm of the batch", epsilon, [x], [(x.shape, 1)])
    form: Value = core[0]
    for value, op in ((gamma, multiply), (beta, add)):
        assert isinstance(value, Known)
        array = value.array.reshape(-1, *[1] * (x.rank - 2))
        form = op(ctx, [form, replace(value, numbers=array)])
    more = frozen(attributes(node, ctx.opset))
    results = ctx.results(node, values)[1:]
    return [form, *ctx.opaque("statistics", more, [x, *values[3:]], results)]


def scaled_norm(ctx: Context, node: ir.Node, values: Sequence[Value]) -> Form | None:
    """LayerNormalization, RMSNormalization, InstanceNormalization, GroupNormalization."""
    x = values[0]
    if not isinstance(x, Form) or not x.real:
        return None
    if sum(bool(value.name) for value in node.outputs) > 1:
        return None
    if not all(v is None or isinstance(v, Known) for v in values[1:]):
        return None
    attrs = attributes(node, ctx.opset)
    scale, bias = values[1], values[2] if len(values) > 2 else None
    more = tuple((n, attrs.get(n)) for n in ("axis", "epsilon", "num_groups", "stash_type"))
    last = node.op_type in {"LayerNormalization", "RMSNormalization"}
    if last:
        more = (("axis", attrs["axis"] % x.rank), *more[1:])
    (core,) = ctx.opaque(f"{node.op_type} without scale", more, [x], [(x.shape, 1)])
    form: Value = core
    for value, op in ((scale, multiply), (bias, add)):
        if value is None:
            continue
        assert isinstance(value, Known)
        array = value.array
        if not last:
            if array.size != x.shape[1]:
                array = np.repeat(array, x.shape[1] // array.size)  # a number a group
            array = array.reshape(-1, *[1] * (x.rank - 2))
        form = op(ctx, [form, replace(value, numbers=array)])
    assert isinstance(form, Form)
    return form


def homogeneous(ctx: Context, x: Form, slope: Known | float) -> Form:
    """LeakyRelu and PRelu: f(s*z) = |s|*f(+-z)."""
    atom, factor = inside(ctx, x)
    number: Array
    if isinstance(slope, float):
        form = constant((1,) * x.rank, np.full((), slope), np.zeros(()))
    else:
        form = ctx.form(slope)
    number = form.t.reshape((1,) * (x.rank - form.rank) + form.t.shape)
    off = form.m.reshape((1,) * (x.rank - form.rank) + form.m.shape) + OWN * np.abs(number)
    parts = np.broadcast_arrays(factor < 0, number, off, factor != 0)
    made, _ = ctx.space.intern(
        ("slope below zero", atom.id, x.shape),
        x.shape,
        tuple(parts),
        lambda a, b, exactly: same(ctx.space, a, b, exactly, "the slope"),
    )
    zero = np.zeros((1,) * x.rank)
    return replace(x, terms={made: np.abs(factor)}, t=zero, m=zero)
