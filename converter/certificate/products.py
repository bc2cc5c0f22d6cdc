"""MatMul of two computed values: factors pass, up to what they are along the axis that is added up.

    sum_d (p_rd*x_rd) * (q_dc*y_dc)  =  sum_d w_rdc * x_rd*y_dc     with w_rdc = p_rd*q_dc

so it does not matter on which side a factor stands, and one that does not vary along d is outside:
a head's queries and keys may exchange the scales of their channels, and either may take up the
factor of what is computed from both. Behind a Softmax over what is added up a shift of the other
value passes, too: rows sum to 1.
"""

from __future__ import annotations

from dataclasses import replace
from math import prod

import numpy as np

from converter.certificate.arrays import MOST, Array, varies
from converter.certificate.atoms import Atom
from converter.certificate.context import Context
from converter.certificate.forms import Form, of_atom
from converter.certificate.linear import whole
from converter.certificate.proportion import Weights, proportion
from converter.certificate.sums import inside, one_term
from converter.certificate.verdict import Doubt


def product(ctx: Context, x: Form, y: Form) -> Form:
    if x.rank < 2 or y.rank < 2 or x.shape[-1] != y.shape[-2]:
        raise Doubt("a MatMul of vectors")
    shape = (*np.broadcast_shapes(x.shape[:-2], y.shape[:-2]), x.shape[-2], y.shape[-1])
    shift: Form | None = None
    y = one_term(ctx, y)
    x = one_term(ctx, x)
    if _sums_to_one(x) and not varies(y.t, [y.rank - 2]) and not varies(y.m, [y.rank - 2]):
        shift = y
        zero = np.zeros((1,) * y.rank)
        y = replace(y, t=zero, m=zero)
    (a, left), (b, right) = inside(ctx, x), inside(ctx, y)
    wide = (*np.broadcast_shapes(left.shape[:-2], right.shape[:-2]), left.shape[-2])
    if prod(wide) * x.shape[-1] * right.shape[-1] > MOST:
        a, left = _outside(ctx, x, x.rank - 1)
        b, right = _outside(ctx, y, y.rank - 2)
    w = left[..., :, :, None] * right[..., None, :, :]
    one = np.ones((1,) * w.ndim)
    factor, w = (w, one) if w.shape[-2] == 1 else (one, w)
    atom, found = ctx.space.intern(
        ("matmul of two", a.id, b.id, shape),
        shape,
        Weights(w, max(x.u, y.u)),
        lambda held, new, exactly: proportion(ctx.space, held, new, exactly, (-2,)),
    )
    passes = factor if found is None else factor * found
    form = replace(of_atom(atom, shape).scaled(passes[..., 0, :]), u=max(x.u, y.u))
    if shift is not None:
        form = form.shifted(shift.t, shift.m)
    return form


def _sums_to_one(x: Form) -> bool:
    """Whether its last axis does."""
    if len(x.terms) != 1 or x.t.any() or x.m.any():
        return False
    atom, s = x.single
    return atom.kind == "softmax over the last axis" and bool(np.all(s == 1.0))


def _outside(ctx: Context, x: Form, axis: int) -> tuple[Atom, Array]:
    atom, factor = inside(ctx, x)
    if varies(factor, [axis]):
        return whole(ctx, x), np.ones((1,) * x.rank)
    return atom, factor
