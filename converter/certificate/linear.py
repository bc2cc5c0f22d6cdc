"""Conv, ConvTranspose, Gemm and MatMul with a constant: a kernel over one atom, and a shift.

The input is s*z + t; the atom is the kernel W*s over z, and W*t goes to the shift. The second
graph's kernel must be the first one's, with a factor a row (`intervals.py`).

Where the second graph's input has the first one's t/s, its shift is the first one's times the
factor, and only what its own bias adds is compared against its own bias: pulled through a chain of
linear ops, magnitudes grow until nothing would be checked any more.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import replace

import numpy as np

from converter.certificate.arrays import Array, Shape, compressed, count, varies
from converter.certificate.atoms import Atom
from converter.certificate.context import Context
from converter.certificate.forms import OWN, Form, Known, checked, of_atom
from converter.certificate.intervals import identical, row_factors
from converter.certificate.kernels import Kernel, Weight, digest
from converter.certificate.sums import inside, one_term
from converter.certificate.verdict import Differs, near

# What a bias adds, and what that may be off by: a number an output each.
Bias = tuple[Array, Array]


def source_of(ctx: Context, x: Form, axis: int) -> tuple[Atom, Array, Array, Array]:
    """(z, s, t, m) with s, t and m a number a channel along `axis`; what cannot be goes inside."""
    x = one_term(ctx, x)
    size = x.shape[axis]
    others = [i for i in range(x.rank) if i != axis % x.rank]
    if not x.terms:
        z, _ = ctx.space.intern(("zero", x.shape), x.shape, None)
        s = np.zeros((1,) * x.rank)
    else:
        z, s = x.single
    t, m = x.t, x.m
    if varies(s, others) or varies(t, others) or varies(m, others):
        z, s = inside(ctx, x)
        t = m = np.zeros((1,) * x.rank)
        if varies(s, others):
            z, s = whole(ctx, x), np.ones((1,) * x.rank)
    vectors = [np.broadcast_to(a.reshape(-1), (size,)).astype(np.float64) for a in (s, t, m)]
    return z, vectors[0], vectors[1], vectors[2]


def whole(ctx: Context, x: Form) -> Atom:
    """A form as an atom of its own."""
    return ctx.atom(("form", x.ids, x.shape), x.shape, [x])


def kernel_of(
    ctx: Context,
    weight: Known,
    layout: str,
    shape: tuple[int, int, int],
    group: int,
    numbers: tuple[Array, Array, Array],
    u: float,
    kept: tuple[slice, ...] = (),
) -> Weight:
    """`numbers`: s, t and what t may be off by, a number a channel; s is off by u."""
    s, t, m = numbers
    return Weight(
        weight=weight, layout=layout, kept=kept, shape=shape, group=group,
        rounding=ctx.rounding(weight), floor=ctx.floor(weight), s=s, t=t, t_off=m,
        ratio_off=m + (u + OWN) * np.abs(t), memory=ctx.memory,
    )  # fmt: skip


def linear(
    ctx: Context,
    key: Hashable,
    kernel: Kernel,
    bias: Bias | None,
    shape: Shape,
    axis: int,
    wide: Shape | None = None,
) -> Form:
    """The value of a linear op; its channels are along `axis` of `shape`.

    `wide`: what a number a row is reshaped to, where the rows are not along one axis.
    """
    atom, found = ctx.space.intern(
        key, shape, kernel, lambda held, new, exactly: _matched(ctx, held, new, exactly, wide)
    )
    if wide is None:
        atom.more.setdefault("channels", axis)
    ctx.weights += kernel.weight.size if isinstance(kernel, Weight) else 0
    own, own_off = bias if bias is not None else (np.zeros(1), np.zeros(1))
    if found is None:
        factor = kernel.alive()  # 0: a dead channel
        u = 0.0
        pulled, off = kernel.pull()
    else:
        factor, same = found
        u = kernel.rounding
        if same:
            pulled = factor * atom.held.pull()[0]
            # A factor that the first graph does not name is only known up to a rounding.
            named = np.any([factor == hint for hint in (*atom.held.hints, 1.0, 0.0)], axis=0)
            off = (OWN + np.where(named, 0.0, u)) * np.abs(pulled)
        else:
            pulled, off = kernel.pull()
    t, m = pulled + own, off + own_off
    m = m + np.where((pulled != 0) & (own != 0), OWN * (np.abs(pulled) + np.abs(own)), 0.0)
    rank = len(shape)
    parts = (
        along(vector, rank, axis) if wide is None else np.resize(vector, wide)
        for vector in (factor, t, m)
    )
    s, t, m = (compressed(part) for part in parts)
    return checked(replace(of_atom(atom, shape), terms={atom: s}, t=t, m=m, u=u))


def along(vector: Array, rank: int, axis: int) -> Array:
    sizes = [1] * rank
    sizes[axis] = -1
    return vector.reshape(sizes)


def _matched(
    ctx: Context, held: Kernel, new: Kernel, exactly: bool, wide: Shape | None
) -> tuple[Array, bool] | None:
    """The factor of each row, and whether the inputs' shifts are the same."""
    if exactly:
        if not identical(held, new):
            raise Differs("the weight")
        return None
    hints = [*held.hints, np.ones(held.outputs)]
    memory: Hashable = None
    if held.key is not None and new.key is not None:
        limits = new.rounding, new.floor
        memory = held.key, new.key, limits, digest(held.s, new.s, *hints)
    found = None if memory is None else ctx.memory.get(memory)
    if found is None:
        try:
            found = row_factors(held, new, hints)
        except Differs as why:
            found = why.alone()
        if memory is not None:
            ctx.memory[memory] = found
    if isinstance(found, Differs):
        if wide is not None and found.place:
            # A row is a place in what is reshaped to `wide`.
            place = tuple(map(int, np.unravel_index(found.place[0] % count(wide), wide)))
            numbers = found.expected, found.found
            raise Differs(found.what, place, *numbers, wide, found.share)
        raise found.alone()
    factors, share = found
    ctx.space.moved(share)
    return factors, _same_shift(ctx, held, new)


def _same_shift(ctx: Context, held: Kernel, new: Kernel) -> bool:
    if not (held.t.any() or new.t.any() or held.t_off.any() or new.t_off.any()):
        return True
    if held.t.shape != new.t.shape:
        return False
    alive = (held.s != 0) & (new.s != 0)
    if np.any(~alive & ((held.t != 0) | (new.t != 0))):
        return False
    old_s, new_s = np.where(alive, held.s, 1.0), np.where(alive, new.s, 1.0)
    allowed = held.ratio_off / np.abs(old_s) + new.ratio_off / np.abs(new_s)
    try:
        share = near(held.t / old_s, new.t / new_s, allowed, "the shift")
    except Differs:
        return False
    ctx.space.moved(share)
    return True
