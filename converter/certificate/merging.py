"""Linear ops over one value that are added up are one: their kernels are, aligned by padding.

3x3 and 1x1 convolutions, the value itself (a kernel of one 1 a channel) and its average over
windows (a kernel of 1/taps) make one convolution, and matrices one matrix. What is padded with a
number is wider than what is not, or less: its kernel reads a part of it (`padded_bases.py`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from math import gcd

import numpy as np

from converter.certificate.arrays import Array, varies
from converter.certificate.atoms import Atom
from converter.certificate.context import Context
from converter.certificate.forms import OWN, Form
from converter.certificate.kernels import Kernel
from converter.certificate.linear import linear
from converter.certificate.padded_bases import inside_of, widest, within
from converter.certificate.sums import with_sum
from converter.certificate.windows import Windows, trimmed


@dataclass(frozen=True, eq=False)
class _Part:
    """(outputs, inputs of the group, *taps), what it may be off by, and where its windows lie."""

    kernel: Array
    off: Array
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
    parts: dict[Atom, _Part] = {}
    for atom in x.terms:
        s = _channelwise(x, atom, 1)
        part = None if s is None else _as_kernel(atom, z, group, like, x)
        if part is None or s is None:
            continue
        column = s.reshape(-1, *[1] * (part.kernel.ndim - 1))
        off = (part.off + (x.u + OWN) * np.abs(part.kernel)) * np.abs(column)
        parts[atom] = _Part(part.kernel * column, off, part.windows)
    if first not in parts or len(parts) < 2:
        return whole
    joined = _joined(list(parts.values()))
    if joined is None:
        return whole
    kept, taps = trimmed(joined.kernel, joined.windows)
    kernel, off = (a[(slice(None), slice(None), *taps)] for a in (joined.kernel, joined.off))
    rest = replace(x, terms={a: s for a, s in x.terms.items() if a not in parts})
    made = _direct(kernel, off, group, _rounding(x, parts))
    form = linear(ctx, ("conv", z.id, group, kept.key(), x.shape), made, None, x.shape, 1)
    for atom in form.terms:
        atom.more.setdefault("conv", (z, group, kept))
    return rest.plus(form)


def _rounding(x: Form, parts: Iterable[Atom]) -> float:
    held = [atom.held.rounding for atom in parts if isinstance(atom.held, Kernel)]
    return max(x.u, *held)


def _direct(kernel: Array, off: Array, group: int, rounding: float) -> Kernel:
    rows = kernel.reshape(kernel.shape[0], -1), off.reshape(off.shape[0], -1)
    inputs = kernel.shape[1] * group
    zero = np.zeros(inputs)
    return Kernel(
        None, lambda a: a, group, rounding, 0.0, np.ones(inputs), zero, zero, zero,
        "sum", direct=rows,
    )  # fmt: skip


def _read(atom: Atom, group: int) -> list[Atom]:
    """What an atom is a convolution of, in that many groups: itself, too."""
    if "conv" in atom.more and atom.more["conv"][1] == group:
        return [atom.more["conv"][0], atom]
    return [atom.more["average"][0], atom] if "average" in atom.more else [atom]


def _as_kernel(atom: Atom, z: Atom, group: int, like: Windows, x: Form) -> _Part | None:
    """An atom as a convolution of z of that many groups."""
    axes = len(like.taps)
    channels, one = x.shape[1], (1,) * axes
    for base in _read(atom, group):
        inset = within(z, base)
        if inset is None:
            continue
        if base is atom:
            if like.strides != one or atom.shape != x.shape:
                return None
            kernel = _eye(channels, group).reshape(channels, -1, *one)
            off = np.zeros_like(kernel)
            windows = Windows(one, one, one, (0,) * axes, (0,) * axes)
        elif "conv" in atom.more:
            windows = atom.more["conv"][2]
            rows, off = atom.held.rows()
            shape = (rows.shape[0], -1, *windows.taps)
            kernel, off = rows.reshape(shape), off.reshape(shape)
        else:
            windows = atom.more["average"][1]
            taps = np.full(windows.taps, 1.0 / np.prod(windows.taps))
            kernel = _eye(channels, group).reshape(channels, -1, *one) * taps
            off = np.zeros_like(kernel)
        if windows.auto or windows.strides != like.strides:
            return None
        return _Part(kernel, off, windows.inside(*inset))
    return None


def _eye(channels: int, group: int) -> Array:
    """(channels, channels of a group): each gives itself."""
    return np.tile(np.eye(channels // group), (group, 1))


def _joined(parts: Sequence[_Part]) -> _Part | None:
    """The sum; None: their windows cannot be aligned."""
    axes = len(parts[0].windows.taps)
    begins: list[int] = []
    ends: list[int] = []
    taps: list[int] = []
    dilations: list[int] = []
    steps_of_all: list[int] = []
    places = [[0] * axes for _ in parts]
    for axis in range(axes):
        steps = {p.windows.dilations[axis] for p in parts if p.windows.taps[axis] > 1}
        step = gcd(*steps) if steps else 1
        begin = max(p.windows.begins[axis] for p in parts)
        wide = 0
        for place, part in enumerate(parts):
            before = begin - part.windows.begins[axis]
            if before % step:
                return None
            places[place][axis] = before // step
            wide = max(wide, before // step + _reach(part.windows, axis, step))
        left = {
            p.windows.ends[axis] + (wide - places[i][axis] - _reach(p.windows, axis, step)) * step
            for i, p in enumerate(parts)
        }
        if len(left) != 1:
            return None
        begins.append(begin)
        ends.append(left.pop())
        taps.append(wide)
        dilations.append(1 if wide == 1 else step)
        steps_of_all.append(step)
    shape = (*parts[0].kernel.shape[:2], *taps)
    kernel, off = np.zeros(shape), np.zeros(shape)
    size = np.zeros(shape)
    for starts, part in zip(places, parts, strict=True):
        where: tuple[slice, ...] = (slice(None), slice(None))
        for axis, step in enumerate(steps_of_all):
            first = starts[axis]
            last = first + _reach(part.windows, axis, step)
            where += (slice(first, last, part.windows.dilations[axis] // step or 1),)
        kernel[where] += part.kernel
        off[where] += part.off
        size[where] += np.abs(part.kernel)
    windows = Windows(
        tuple(taps), parts[0].windows.strides, tuple(dilations), tuple(begins), tuple(ends)
    )
    return _Part(kernel, off + OWN * size, windows)


def _reach(windows: Windows, axis: int, step: int) -> int:
    """Taps that a kernel spans at the dilation `step`."""
    return (windows.taps[axis] - 1) * windows.dilations[axis] // step + 1


def _matrices(ctx: Context, x: Form, first: Atom) -> Form:
    z = first.more["matrix"]
    axis = x.rank - 1
    whole, x = x, with_sum(ctx, x, z)
    rows, offs, merged_atoms = [], [], []
    for atom in x.terms:
        s = _channelwise(x, atom, axis)
        if s is None:
            continue
        if atom.more.get("matrix") is z:
            kernel, off = atom.held.rows()
        elif atom is z and z.shape == x.shape:
            kernel = np.eye(x.shape[axis])
            off = np.zeros_like(kernel)
        else:
            continue
        rows.append(kernel * s[:, None])
        offs.append((off + (x.u + OWN) * np.abs(kernel)) * np.abs(s[:, None]))
        merged_atoms.append(atom)
    if first not in merged_atoms or len(rows) < 2:
        return whole
    off = sum(offs) + OWN * sum(np.abs(r) for r in rows)
    made = _direct(np.asarray(sum(rows)), np.asarray(off), 1, _rounding(x, merged_atoms))
    form = linear(ctx, ("matmul", z.id, x.shape), made, None, x.shape, axis)
    for atom in form.terms:
        atom.more.setdefault("matrix", z)
    rest = replace(x, terms={a: s for a, s in x.terms.items() if a not in merged_atoms})
    return rest.plus(form)
