"""Relu, Clip, and Max and Min with a constant: one kind of atom, clip(z, l, h).

    clip(s*z + t, lo, hi) = s*clip(z, (lo - t)/s, (hi - t)/s) + t       for s > 0
                          = s*clip(z, (hi - t)/s, (lo - t)/s) + t       for s < 0

and the atom is clip(z, l, h) - o, where o is l if it is finite, else h, each number by itself: so a
Relu has no shift, and a Relu behind a negative scale is a Min, as it is where a fold wrote one
(`--through-relu`).
A clamp of a clamp is one clamp. Bounds are never taken for infinite because they are large.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from converter.certificate.arrays import Array, compressed
from converter.certificate.atoms import Atom
from converter.certificate.context import Context
from converter.certificate.forms import OWN, Form, checked
from converter.certificate.sums import Places, one_term, same_places
from converter.certificate.verdict import Doubt

# A bound: its number, and what it may be off by.
Bound = tuple[Array, Array]
NONE_BELOW: Bound = (np.full((), -np.inf), np.zeros(()))
NONE_ABOVE: Bound = (np.full((), np.inf), np.zeros(()))
ZERO: Bound = (np.zeros(()), np.zeros(()))


def clamp(ctx: Context, x: Form, low: Bound, high: Bound) -> Form:
    """clip(x, low, high); the bounds broadcast to x."""
    if np.any(low[0] == np.inf) or np.any(high[0] == -np.inf):
        raise Doubt("a clamp has an infinite bound on the wrong side")
    if np.any(low[0] > high[0]):
        raise Doubt("a clamp has its lower bound above its upper one")
    x = one_term(ctx, x)
    if not x.terms:
        t = np.clip(x.t, low[0], high[0])
        m = np.where(t == x.t, x.m, np.where(t == low[0], low[1], high[1]))
        return checked(replace(x, t=t, m=np.maximum(m, 0.0)))
    z, s = x.single
    s, t, m, lo, lo_off, hi, hi_off = np.broadcast_arrays(s, x.t, x.m, *low, *high)
    dead, up = s == 0, s > 0
    divisor = np.where(dead, 1.0, s)
    first, second = (lo - t) / divisor, (hi - t) / divisor
    lower, upper = np.where(up, first, second), np.where(up, second, first)
    lower, upper = np.where(dead, -np.inf, lower), np.where(dead, np.inf, upper)
    size = np.abs(divisor)
    l_off = (m + np.where(up, lo_off, hi_off)) / size + _relative(x.u, lower)
    h_off = (m + np.where(up, hi_off, lo_off)) / size + _relative(x.u, upper)
    # What the value is where z is at the bound that the atom counts from.
    end, end_off = np.where(up, lo, hi), np.where(up, lo_off, hi_off)
    other, other_off = np.where(up, hi, lo), np.where(up, hi_off, lo_off)
    shift = np.where(np.isfinite(lower), end, np.where(np.isfinite(upper), other, t))
    off = np.where(np.isfinite(lower), end_off, np.where(np.isfinite(upper), other_off, m))
    shift = np.where(dead, np.clip(t, lo, hi), shift)
    off = np.where(dead, m + lo_off + hi_off, off)
    if z.kind == "clip":
        dead_shift, dead_off = shift, off
        bounds = lower, l_off, upper, h_off
        z, *found = _nested(z, s, t, m, bounds, shift, off)
        lower, l_off, upper, h_off, shift, off = found
        shift, off = np.where(dead, dead_shift, shift), np.where(dead, dead_off, off)
    if not (np.isfinite(lower).any() or np.isfinite(upper).any()):
        return x
    return _made(ctx, x, z, (s, shift, off), (lower, l_off, upper, h_off))


def _relative(u: float, bound: Array) -> Array:
    return np.where(
        np.isfinite(bound), (u + OWN) * np.abs(np.where(np.isfinite(bound), bound, 0)), 0
    )


def _counted(lower: Array, upper: Array) -> Array:
    """What the atom counts from."""
    return np.where(np.isfinite(lower), lower, np.where(np.isfinite(upper), upper, 0.0))


def _nested(
    z: Atom, s: Array, t: Array, m: Array, bounds: tuple[Array, ...], shift: Array, off: Array
) -> tuple[Any, ...]:
    """The clamp of a clamp, over what the first one reads."""
    lower, l_off, upper, h_off = bounds
    inner_l, inner_l_off, inner_h, inner_h_off = z.more["bounds"]
    o = _counted(inner_l, inner_h)
    lower, upper = lower + o, upper + o
    low, high = np.maximum(inner_l, lower), np.minimum(inner_h, upper)
    if np.any(low > high):
        raise Doubt("a clamp leaves nothing of the clamp before it")
    low_off = np.where(inner_l >= lower, inner_l_off, l_off)
    high_off = np.where(inner_h <= upper, inner_h_off, h_off)
    # The value there: as it was, unless the bound that it counts from is the new one.
    new = np.where(np.isfinite(low), lower > inner_l, upper < inner_h)
    moved = s * (_counted(low, high) - o)
    shift = np.where(new, shift, t + moved)
    off = np.where(new, off, m + OWN * np.abs(moved))
    return z.more["base"], low, low_off, high, high_off, shift, off


def _made(
    ctx: Context, x: Form, z: Atom, value: tuple[Array, Array, Array], bounds: tuple[Array, ...]
) -> Form:
    s, shift, off = value
    lower, l_off, upper, h_off = bounds
    rank = x.rank
    shape = (2, *np.broadcast_shapes(lower.shape, upper.shape, s.shape))
    both = np.empty(shape)
    both[0], both[1] = lower, upper
    offs = np.empty(shape)
    offs[0], offs[1] = l_off, h_off
    read = np.broadcast_to(s != 0, shape)
    held = (np.isfinite(both), both, offs, read)
    atom, _ = ctx.space.intern(
        ("clip", z.id, x.shape),
        x.shape,
        held,
        lambda a, b, exactly: _same_bounds(ctx, a, b, exactly),
    )
    atom.more.setdefault("base", z)
    # Another graph's bounds are the atom's own from here on.
    own_l, own_h = atom.held[1]
    atom.more.setdefault("bounds", (own_l, atom.held[2][0], own_h, atom.held[2][1]))
    scale = compressed(np.broadcast_to(s, shape[1:]))
    assert scale.ndim == rank
    return checked(
        replace(x, terms={atom: scale}, t=compressed(np.array(shift)), m=compressed(np.array(off)))
    )


def _same_bounds(ctx: Context, held: Places, new: Places, exactly: bool) -> None:
    for place, what in enumerate(("the lower bound", "the upper bound")):
        one, other = (
            (kind[place], number[place], off[place], read[place])
            for kind, number, off, read in (held, new)
        )
        same_places(ctx.space, one, other, exactly, what)
