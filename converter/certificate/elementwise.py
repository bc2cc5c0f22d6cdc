"""Add, Sub, Mul, Div and kin: with a constant they change the form and make no atom."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from converter.certificate.arrays import Array, compressed
from converter.certificate.closeness import MOST
from converter.certificate.context import Context
from converter.certificate.forms import OWN, Form, Known, Value, of_atom
from converter.certificate.merging import merged
from converter.certificate.sums import inside
from converter.certificate.verdict import Doubt
from converter.certificate.views import all_by_number, spread


def together(ctx: Context, values: Sequence[Value]) -> list[Form]:
    """As forms, broadcast to one shape."""
    forms = [ctx.form(value) for value in values]
    shape = np.broadcast_shapes(*(form.shape for form in forms))
    return [spread(ctx, form, shape) for form in forms]


def add(ctx: Context, values: Sequence[Value]) -> Form:
    return _sum(ctx, together(ctx, values))


def subtract(ctx: Context, values: Sequence[Value]) -> Form:
    first, other = together(ctx, values)
    return _sum(ctx, [first, other.scaled(np.full((), -1.0))])


def _sum(ctx: Context, forms: Sequence[Form]) -> Form:
    def work(parts: Sequence[Form]) -> Form:
        first, *others = parts
        for other in others:
            first = first.plus(other)
        return merged(ctx, first)

    if sum(bool(form.terms) for form in forms) < 2:
        return work(forms)
    return all_by_number(ctx, forms, work)


def factor_of(ctx: Context, value: Value) -> tuple[Array, float] | None:
    """The numbers of a constant and what they may be off by, relative; None: it is computed."""
    if isinstance(value, Known) and value.real:
        return value.array, ctx.rounding(value)
    if isinstance(value, Form) and value.real and not value.terms:
        zero = value.t == 0
        if np.any(zero & (value.m > 0)):
            return None
        ratio = np.divide(value.m, np.abs(value.t), out=np.zeros_like(value.m), where=~zero)
        off = float(ratio.max(initial=0.0))
        # One that is what is left of large terms is no factor that is known.
        return None if off > MOST * ctx.space.allowance[0] + OWN else (value.t, off)
    return None


def multiply(ctx: Context, values: Sequence[Value]) -> Form:
    x, y = values
    for one, other in ((x, y), (y, x)):
        c = factor_of(ctx, other)
        if c is not None and (isinstance(one, Form) or factor_of(ctx, one) is None):
            return _times(ctx, ctx.form(one), *c)
    if not isinstance(x, Form) and not isinstance(y, Form):
        raise Doubt("a product of two constants was not evaluated")
    return all_by_number(ctx, together(ctx, values), lambda forms: _product(ctx, forms))


def _product(ctx: Context, forms: Sequence[Form]) -> Form:
    parts = [inside(ctx, form) for form in forms]
    shape = forms[0].shape
    ids = tuple(sorted(atom.id for atom, _ in parts))
    atom, _ = ctx.space.intern(("product", ids, shape), shape, None)
    factor = compressed(parts[0][1] * parts[1][1])  # two signs make one
    return replace(of_atom(atom, shape).scaled(factor), u=max(form.u for form in forms))


def _times(ctx: Context, x: Form, c: Array, u: float) -> Form:
    shape = np.broadcast_shapes(x.shape, c.shape)
    return spread(ctx, x, shape).scaled(c, u)


def divide(ctx: Context, values: Sequence[Value]) -> Form | None:
    """None: by something that is computed."""
    c = factor_of(ctx, values[1])
    if c is None:
        return None
    if not np.all(c[0]):
        raise Doubt("something is divided by zero")
    return _times(ctx, ctx.form(values[0]), 1.0 / c[0], c[1])
