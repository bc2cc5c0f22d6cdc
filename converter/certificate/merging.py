"""Linear ops over one value that are added up are one: their kernels are, aligned by padding.

3x3 and 1x1 convolutions, the value itself (a kernel of one 1 a channel) and its average over
windows (a kernel of 1/taps) make one convolution, and matrices one matrix. What is padded with a
number is wider than what is not, or less: its kernel reads a part of it (`padded_bases.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import gcd, prod

import numpy as np

from converter.certificate.arrays import Array, Shape, varies
from converter.certificate.atoms import Atom
from converter.certificate.context import Context
from converter.certificate.forms import Form
from converter.certificate.kernels import Kernel
from converter.certificate.linear import linear
from converter.certificate.padded_bases import inside_of, widest, within
from converter.certificate.summed import Each, Part, Summed, live_taps
from converter.certificate.sums import with_sum
from converter.certificate.windows import Windows, trimmed


@dataclass(frozen=True, eq=False)
class _Piece:
    """One of what is added up, and where its windows lie."""

    kernel: Kernel
    windows: Windows


def merged(ctx: Context, x: Form) -> Form:
    """`x` with one term for what is linear over one atom."""
    for atom in list(x.terms):
        if len(x.terms) < 2:
            break
        if atom not in x.terms:
            continue
        if "conv" in atom.more:
            x = _convolutions(ctx, x, atom)
        elif "matrix" in atom.more:
            x = _matrices(ctx, x, atom)
    return x


def _channelwise(x: Form, atom: Atom, axis: int) -> Array | None:
    s = x.terms[atom]
    if varies(s, [i for i in range(x.rank) if i != axis]):
        return None
    return np.broadcast_to(s.reshape(-1), (x.shape[axis],))


def _convolutions(ctx: Context, x: Form, first: Atom) -> Form:
    base, group, like = first.more["conv"]
    if like.auto:
        return x
    whole, x = x, with_sum(ctx, x, inside_of(base))
    z = widest(base, [read for atom in x.terms for read in _read(atom, group)])
    pieces: dict[Atom, _Piece] = {}
    factors: list[Array] = []
    for atom in x.terms:
        s = _channelwise(x, atom, 1)
        piece = None if s is None else _as_kernel(ctx, atom, z, group, like, x)
        if piece is not None and s is not None:
            pieces[atom] = piece
            factors.append(s)
    if first not in pieces or len(pieces) < 2:
        return whole
    joined = _joined([piece.windows for piece in pieces.values()])
    if joined is None:
        return whole
    windows, places = joined
    parts = [
        Part(piece.kernel, s, x.u, place)
        for piece, s, place in zip(pieces.values(), factors, places, strict=True)
    ]
    made = _sum(ctx, parts, windows.taps)
    kept, taps = trimmed(live_taps(made, windows.taps), windows)
    made = replace(made, kept=taps, shape=(*made.shape[:2], prod(kept.taps)))
    rest = replace(x, terms={a: s for a, s in x.terms.items() if a not in pieces})
    form = linear(ctx, ("conv", z.id, group, kept.key(), x.shape), made, None, x.shape, 1)
    for atom in form.terms:
        atom.more.setdefault("conv", (z, group, kept))
    return rest.plus(form)


def _sum(ctx: Context, parts: Sequence[Part], taps: Shape) -> Summed:
    first = parts[0].kernel
    outputs, inputs, _ = first.shape
    zero = np.zeros(inputs * first.group)
    return Summed(
        shape=(outputs, inputs, prod(taps)), group=first.group,
        rounding=max(max(part.u, part.kernel.rounding) for part in parts),
        s=np.ones(inputs * first.group), t=zero, t_off=zero, ratio_off=zero, memory=ctx.memory,
        parts=tuple(parts), wide=taps,
    )  # fmt: skip


def _read(atom: Atom, group: int) -> list[Atom]:
    """What an atom is a convolution of, in that many groups: itself, too."""
    if "conv" in atom.more and atom.more["conv"][1] == group:
        return [atom.more["conv"][0], atom]
    return [atom.more["average"][0], atom] if "average" in atom.more else [atom]


def _as_kernel(
    ctx: Context, atom: Atom, z: Atom, group: int, like: Windows, x: Form
) -> _Piece | None:
    """An atom as a convolution of z of that many groups."""
    axes = len(like.taps)
    channels, one = x.shape[1], (1,) * axes
    for base in _read(atom, group):
        inset = within(z, base)
        if inset is None:
            continue
        kernel: Kernel
        if base is atom:
            if like.strides != one or atom.shape != x.shape:
                return None
            kernel = _each(ctx, channels, group, 1)
            windows = Windows(one, one, one, (0,) * axes, (0,) * axes)
        elif "conv" in atom.more:
            kernel, windows = atom.held, atom.more["conv"][2]
        else:
            windows = atom.more["average"][1]
            kernel = _each(ctx, channels, group, prod(windows.taps))
        if windows.auto or windows.strides != like.strides:
            return None
        if base is not z and windows.padded:
            return None  # it reads zeros where `z` has other numbers
        return _Piece(kernel, windows.inside(*inset))
    return None


def _each(ctx: Context, channels: int, group: int, taps: int) -> Each:
    """The average of the taps of each channel."""
    zero = np.zeros(channels)
    return Each(
        shape=(channels, channels // group, taps), group=group, rounding=0.0, s=np.ones(channels),
        t=zero, t_off=zero, ratio_off=zero, memory=ctx.memory, value=1.0 / taps,
    )  # fmt: skip


def _joined(parts: Sequence[Windows]) -> tuple[Windows, list[tuple[slice, ...]]] | None:
    """The windows of the sum, and where in its taps those of each part lie; None: nowhere."""
    axes = len(parts[0].taps)
    begins: list[int] = []
    ends: list[int] = []
    taps: list[int] = []
    dilations: list[int] = []
    places: list[tuple[slice, ...]] = [() for _ in parts]
    for axis in range(axes):
        steps = {p.dilations[axis] for p in parts if p.taps[axis] > 1}
        step = gcd(*steps) if steps else 1
        begin = max(p.begins[axis] for p in parts)
        wide = 0
        for place, part in enumerate(parts):
            before = begin - part.begins[axis]
            if before % step:
                return None
            last = before // step + _reach(part, axis, step)
            places[place] += (slice(before // step, last, part.dilations[axis] // step or 1),)
            wide = max(wide, last)
        left = {p.ends[axis] + (wide - places[i][axis].stop) * step for i, p in enumerate(parts)}
        if len(left) != 1:
            return None
        begins.append(begin)
        ends.append(left.pop())
        taps.append(wide)
        dilations.append(1 if wide == 1 else step)
    return Windows(
        tuple(taps), parts[0].strides, tuple(dilations), tuple(begins), tuple(ends)
    ), places


def _reach(windows: Windows, axis: int, step: int) -> int:
    """Taps that a kernel spans at the dilation `step`."""
    return (windows.taps[axis] - 1) * windows.dilations[axis] // step + 1


def _matrices(ctx: Context, x: Form, first: Atom) -> Form:
    z = first.more["matrix"]
    axis = x.rank - 1
    whole, x = x, with_sum(ctx, x, z)
    parts: dict[Atom, Part] = {}
    for atom in x.terms:
        s = _channelwise(x, atom, axis)
        if s is None:
            continue
        if atom.more.get("matrix") is z:
            parts[atom] = Part(atom.held, s, x.u)
        elif atom is z and z.shape == x.shape:
            parts[atom] = Part(_each(ctx, x.shape[axis], 1, 1), s, x.u)
    if first not in parts or len(parts) < 2:
        return whole
    made = _sum(ctx, list(parts.values()), ())
    form = linear(ctx, ("matmul", z.id, x.shape), made, None, x.shape, axis)
    for atom in form.terms:
        atom.more.setdefault("matrix", z)
    rest = replace(x, terms={a: s for a, s in x.terms.items() if a not in parts})
    return rest.plus(form)
