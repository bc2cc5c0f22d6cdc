"""Sums that an op reads as one value, and shifts that must stay inside of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from converter.certificate.arrays import Array, compressed
from converter.certificate.atoms import Atom, Space
from converter.certificate.closeness import excused
from converter.certificate.context import Context
from converter.certificate.forms import OWN, Form, of_atom
from converter.certificate.verdict import Differs, near


def one_term(ctx: Context, x: Form) -> Form:
    """Several terms become one atom: their sum, up to a factor of any sign, number by number."""
    if len(x.terms) < 2:
        return x
    atom, factor = ctx.space.intern(
        ("sum", x.ids, x.shape),
        x.shape,
        x,
        lambda held, new, exactly: _factor(ctx.space, held, new, exactly),
    )
    if factor is None:
        return replace(of_atom(atom, x.shape), t=x.t, m=x.m)
    return replace(x, terms={atom: compressed(factor)})


def _factor(space: Space, held: Form, new: Form, exactly: bool) -> Any:
    """What the new sum is times the held one; within one graph, up to the checker's arithmetic."""
    if exactly and all(_identical(s, new.terms[atom]) for atom, s in held.terms.items()):
        return None
    u = 0.0 if exactly else held.u + new.u
    ordered = sorted(held.terms, key=lambda atom: atom.id)
    shapes = [form.terms[atom].shape for atom in ordered for form in (held, new)]
    shape = np.broadcast_shapes(*shapes)
    old = [np.broadcast_to(held.terms[atom], shape) for atom in ordered]
    now = [np.broadcast_to(new.terms[atom], shape) for atom in ordered]
    # Most scales are as they were: then nothing moves.
    candidates = [np.ones(shape)]
    for first in range(len(ordered)):
        c = np.zeros(shape)
        for a, b in [*zip(old, now, strict=True)][first:]:
            c = np.where((c == 0) & (a != 0), np.divide(b, a, out=np.zeros(shape), where=a != 0), c)
        candidates.append(c)
    last: Differs | None = None
    for c in candidates:
        try:
            share = 0.0
            for a, b in zip(old, now, strict=True):
                allowed = (u + 4 * OWN) * np.abs(b)
                share = max(share, near(c * a, b, allowed, "the scale of a part of a sum"))
        except Differs as why:
            last = why
            continue
        if not exactly:
            space.moved(share)
        return c
    assert last is not None
    raise last


def _identical(one: Array, other: Array) -> bool:
    return one.shape == other.shape and np.array_equal(one, other)


def with_sum(ctx: Context, x: Form, total: Atom) -> Form:
    """`x` with one term for the parts of `total`, a sum, if they stand in it in its proportion."""
    if total.kind != "sum" or total.shape != x.shape or not set(total.held.terms) <= set(x.terms):
        return x
    held: Form = total.held
    part = replace(x, terms={atom: x.terms[atom] for atom in held.terms})
    try:
        factor = _factor(ctx.space, held, part, exactly=not ctx.space.second)
    except Differs:
        return x
    if factor is None:
        factor = np.ones((1,) * x.rank)
    rest = {atom: s for atom, s in x.terms.items() if atom not in held.terms}
    return replace(x, terms={**rest, total: compressed(factor)})


def inside(ctx: Context, x: Form) -> tuple[Atom, Array]:
    """(atom, factor) with x = factor * atom: the shift goes into the atom.

    The atom is z + t/s; where s is 0 it is 1, and the factor t.
    """
    x = one_term(ctx, x)
    if x.terms and not x.t.any() and not x.m.any():
        return x.single
    if x.terms:
        z, s = x.single
    else:
        z, _ = ctx.space.intern(("zero", x.shape), x.shape, None)
        s = np.zeros((1,) * x.rank)
    s, t, m = np.broadcast_arrays(s, x.t, x.m)
    alive = (s != 0) | (t == 0)
    divided = s != 0
    r = np.divide(t, s, out=np.zeros_like(t), where=divided)
    off = np.divide(m, np.abs(s), out=np.zeros_like(t), where=divided)
    factor = np.where(alive, s, t)
    held = (alive, r, off + (x.u + OWN) * np.abs(r), factor != 0)
    atom, _ = ctx.space.intern(
        ("shifted", z.id, x.shape),
        x.shape,
        held,
        lambda a, b, exactly: same_places(ctx.space, a, b, exactly, "the shift"),
    )
    return atom, factor


Places = tuple[Any, Array, Array, Any]


def same_places(space: Space, held: Places, new: Places, exactly: bool, what: str) -> None:
    """(kind of each place, number, what it may be off by, whether the place is read at all)."""
    kind, number, off, read = new
    if exactly:
        for a, b in zip(held[:2], new[:2], strict=True):
            if a.shape != b.shape or not np.array_equal(a, b):
                raise Differs(what)
        return
    if np.any(read & (kind != held[0])):
        raise Differs(f"{what} is there in other channels")
    known = read & np.isfinite(held[1]) & np.isfinite(number)
    one, other, a, b = (np.where(known, array, 0.0) for array in (held[1], number, held[2], off))
    allowed = a + excused(space, b, one, a, other)
    space.moved(near(one, other, allowed, what))
