"""MatMul of two computed values: factors that do not vary along what is added up pass.

Behind a Softmax over what is added up a shift of the other value passes, too: rows sum to 1.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from converter.certificate.arrays import Array, varies
from converter.certificate.atoms import Atom
from converter.certificate.context import Context
from converter.certificate.forms import Form, of_atom
from converter.certificate.linear import whole
from converter.certificate.sums import inside, one_term
from converter.certificate.verdict import Doubt


def product(ctx: Context, x: Form, y: Form) -> Form:
    if x.rank < 2 or y.rank < 2 or x.shape[-1] != y.shape[-2]:
        raise Doubt("a MatMul of vectors")
    shape = (*np.broadcast_shapes(x.shape[:-2], y.shape[:-2]), x.shape[-2], y.shape[-1])
    shift: Form | None = None
    y = one_term(ctx, y)
    x = one_term(ctx, x)
    if _weights(x) and not varies(y.t, [y.rank - 2]) and not varies(y.m, [y.rank - 2]):
        shift = y
        zero = np.zeros((1,) * y.rank)
        y = replace(y, t=zero, m=zero)
    a, left = _outside(ctx, x, x.rank - 1)
    b, right = _outside(ctx, y, y.rank - 2)
    atom, _ = ctx.space.intern(("matmul of two", a.id, b.id, shape), shape, None)
    form = of_atom(atom, shape).scaled(left * right)
    form = replace(form, u=max(x.u, y.u))
    if shift is not None:
        form = form.shifted(shift.t, shift.m)
    return form


def _weights(x: Form) -> bool:
    """Whether its last axis sums to 1."""
    if len(x.terms) != 1 or x.t.any() or x.m.any():
        return False
    atom, s = x.single
    return atom.kind == "softmax over the last axis" and bool(np.all(s == 1.0))


def _outside(ctx: Context, x: Form, axis: int) -> tuple[Atom, Array]:
    atom, factor = inside(ctx, x)
    if varies(factor, [axis]):
        return whole(ctx, x), np.ones((1,) * x.rank)
    return atom, factor
