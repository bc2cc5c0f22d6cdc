"""Pad, and the padding of a convolution whose input has a shift.

    Pad_c(s*z + t) = s * Pad_v(z) + t    with v = (c - t)/s, a number a channel

so a batch-norm before a zero padding, and a padding with -b/a before the batch-norm's scale, are
the same. Where s is 0 the atom is 1 inside and 0 in the border: Pad_c(t) = (t - c)*atom + c.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import onnx_ir as ir

from converter.certificate.arrays import compressed, must_fit, varies
from converter.certificate.context import Context, attributes
from converter.certificate.forms import OWN, Form, Known, Value, checked, of_atom
from converter.certificate.linear import whole
from converter.certificate.rearranging import ints
from converter.certificate.sums import inside, one_term, same_places
from converter.certificate.verdict import Doubt
from converter.certificate.views import rearranged

_MODES = {"reflect": "reflect", "edge": "edge", "wrap": "wrap"}


def padded(
    ctx: Context, x: Form, begins: Sequence[int], ends: Sequence[int], c: float = 0.0,
    c_off: float = 0.0,
) -> Form:  # fmt: skip
    """With a constant around; `begins`, `ends` are of each axis and not negative."""
    begins, ends = tuple(begins), tuple(ends)
    axes = [axis for axis in range(x.rank) if begins[axis] or ends[axis]]
    x = one_term(ctx, x)
    if not axes:
        return x
    if any(varies(array, axes) for array in (*x.terms.values(), x.t, x.m)):
        x = _even(ctx, x, axes)
    if x.terms:
        z, s = x.single
    else:
        z, _ = ctx.space.intern(("zero", x.shape), x.shape, None)
        s = np.zeros((1,) * x.rank)
    s, t, m = np.broadcast_arrays(s, x.t, x.m)
    alive = (s != 0) | (t == c)
    divisor = np.where(s == 0, 1.0, s)
    v = np.where(s == 0, 0.0, (c - t) / divisor)
    off = np.where(s == 0, 0.0, (m + c_off) / np.abs(divisor) + (x.u + OWN) * np.abs(v))
    factor = np.where(alive, s, t - c)
    shift = np.where(alive, t, c)
    shift_off = np.where(alive, m, c_off)
    held = (alive, v, off, factor != 0)
    shape = tuple(n + b + e for n, b, e in zip(x.shape, begins, ends, strict=True))
    atom, _ = ctx.space.intern(
        ("pad", z.id, begins, ends),
        shape,
        held,
        lambda a, b, exactly: same_places(ctx.space, a, b, exactly, "the padding"),
    )
    for name, value in (("base", z), ("begins", begins), ("ends", ends)):
        atom.more.setdefault(name, value)
    return checked(
        replace(
            x, shape=shape, terms={atom: compressed(factor)}, t=compressed(shift),
            m=compressed(np.where(alive, shift_off, shift_off + m)),
        )
    )  # fmt: skip


def _even(ctx: Context, x: Form, axes: Sequence[int]) -> Form:
    """The same value; its shift lies in its atom, and its scale too if that varies along `axes`."""
    z, s = inside(ctx, x)
    if varies(s, axes):
        return of_atom(whole(ctx, x), x.shape)
    zero = np.zeros((1,) * x.rank)
    return replace(x, terms={z: s}, t=zero, m=zero)


def pad(ctx: Context, node: ir.Node, values: Sequence[Value]) -> Form:
    x = values[0]
    assert isinstance(x, Form)
    attrs = attributes(node, ctx.opset)
    amounts = ints(values[1]) if len(values) > 1 else list(attrs["pads"])
    value = values[2] if len(values) > 2 else None
    chosen = ints(values[3]) if len(values) > 3 and values[3] is not None else range(x.rank)
    c, c_off = float(attrs.get("value", 0.0)), 0.0
    if value is not None:
        if not isinstance(value, Known) or value.array.size != 1:
            raise Doubt("a Pad has a computed value")
        c = float(value.array.reshape(()))
        c_off = float(ctx.off(value).reshape(())) if c else 0.0
    begins, ends = [0] * x.rank, [0] * x.rank
    for place, axis in enumerate(chosen):
        begins[axis], ends[axis] = amounts[place], amounts[place + len(amounts) // 2]
    # A negative amount cuts off; what it cuts is gone before anything is added.
    cut = tuple(
        slice(max(-b, 0), n - max(-e, 0)) for b, e, n in zip(begins, ends, x.shape, strict=True)
    )
    if any(part != slice(0, n) for part, n in zip(cut, x.shape, strict=True)):
        if attrs.get("mode", "constant") != "constant":
            raise Doubt("a Pad cuts off and mirrors")
        x = rearranged(ctx, x, lambda a: a[cut])
    begins, ends = [max(b, 0) for b in begins], [max(e, 0) for e in ends]
    must_fit(tuple(n + b + e for n, b, e in zip(x.shape, begins, ends, strict=True)))
    mode = attrs.get("mode", "constant")
    if mode == "constant":
        return padded(ctx, x, begins, ends, c, c_off)
    if mode not in _MODES:
        raise Doubt(f"the padding {mode!r} is not known")
    widths = list(zip(begins, ends, strict=True))
    return rearranged(ctx, x, lambda a: np.pad(a, widths, mode=_MODES[mode]))  # type: ignore[call-overload]
