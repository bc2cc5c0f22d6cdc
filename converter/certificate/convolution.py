"""Conv and ConvTranspose with a constant weight."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import prod

import numpy as np
import onnx_ir as ir

from converter.certificate.arrays import Array, Mask, varies
from converter.certificate.atoms import Atom
from converter.certificate.context import Context, attributes
from converter.certificate.convolved import convolved
from converter.certificate.forms import Form, Known, Value
from converter.certificate.kernels import rows_of
from converter.certificate.linear import Bias, kernel_of, linear, source_of
from converter.certificate.padding import padded
from converter.certificate.summed import live_taps
from converter.certificate.sums import inside, one_term
from converter.certificate.verdict import Doubt
from converter.certificate.windows import Windows, trimmed, windows_of


def bias_of(ctx: Context, value: Value, outputs: int) -> Bias | None:
    """A number an output; None: there is none.

    Raises:
        Doubt: it is computed.
    """
    if value is None:
        return None
    form = ctx.form(value)
    if form.terms or form.shape != (outputs,):
        raise Doubt("a bias is computed from the input, or has another size")
    return np.broadcast_to(form.t, form.shape), np.broadcast_to(form.m, form.shape)


def conv(ctx: Context, node: ir.Node, values: Sequence[Value]) -> Form:
    x, weight = values[0], values[1]
    assert isinstance(x, Form)
    assert isinstance(weight, Known)
    attrs = attributes(node, ctx.opset)
    group = attrs.get("group", 1)
    outputs, inputs, *taps = weight.shape
    if x.shape[1] != inputs * group or outputs % group or len(taps) != x.rank - 2:
        raise Doubt("a Conv has a weight that does not fit to its input")
    bias = bias_of(ctx, values[2] if len(values) > 2 else None, outputs)
    windows = windows_of(attrs, x.shape[2:], tuple(taps), free=ctx.space.free)
    results = ctx.results(node, values)
    shape = results[0][0]
    assert shape is not None
    kept: tuple[slice, ...] = ()
    if windows.padded and max(taps) > 1:
        windows, kept = trimmed(_live(ctx, weight, group), windows)
    x = one_term(ctx, x)
    apart: Bias | None = None
    if _uneven(x) and not windows.auto:
        # What is added to the value is convolved as the value is, with zeros around.
        apart = convolved(
            ctx.rounding(weight), (x.t, x.m), x.shape, weight.array, group, windows, kept
        )
        x = replace(x, t=np.zeros((1,) * x.rank), m=np.zeros((1,) * x.rank))
    if windows.auto and (x.t.any() or x.m.any()):
        z, s = inside(ctx, x)
        x = replace(x, terms={z: s}, t=np.zeros_like(x.t), m=np.zeros_like(x.m))
    elif windows.padded and (x.t.any() or x.m.any()):
        spatial = windows.begins, windows.ends
        x = padded(ctx, x, (0, 0, *spatial[0]), (0, 0, *spatial[1]))
        windows = windows.unpadded()
    z, s, t, m = source_of(ctx, x, 1)
    z, windows = absorbed(z, windows)
    size = outputs, inputs, prod(windows.taps)
    kernel = kernel_of(ctx, weight, "conv", size, group, (s, t, m), x.u, kept)
    key = ("conv", z.id, group, windows.key(), shape)
    form = linear(ctx, key, kernel, bias, shape, 1)
    for atom in form.terms:
        atom.more.setdefault("conv", (z, group, windows))
    return form if apart is None else form.shifted(*apart)


def _uneven(x: Form) -> bool:
    """Whether a value with a scale a channel has a shift that varies along other axes."""
    others = [i for i in range(x.rank) if i != 1]
    even = x.terms and not any(varies(s, others) for s in x.terms.values())
    return bool(even) and (varies(x.t, others) or varies(x.m, others))


def _live(ctx: Context, weight: Known, group: int) -> Mask:
    """Of each tap of a weight, whether a number of it is not zero."""
    none = np.zeros(0)
    size = rows_of(weight.shape)
    whole = kernel_of(ctx, weight, "conv", size, group, (none, none, none), 0.0)
    return live_taps(whole, weight.shape[2:])


def absorbed(z: Atom, windows: Windows) -> tuple[Atom, Windows]:
    """A padding with zeros before a convolution is the convolution's."""
    if z.kind == "pad" and not windows.auto:
        alive, number, _, _ = z.held
        begins, ends = z.more["begins"], z.more["ends"]
        if not number.any() and np.all(alive) and not (any(begins[:2]) or any(ends[:2])):
            more = (tuple(a + b for a, b in zip(windows.begins, begins[2:], strict=True)),
                    tuple(a + b for a, b in zip(windows.ends, ends[2:], strict=True)))  # fmt: skip
            return z.more["base"], replace(windows, begins=more[0], ends=more[1])
    return z, windows


def conv_transpose(ctx: Context, node: ir.Node, values: Sequence[Value]) -> Form:
    x, weight = values[0], values[1]
    assert isinstance(x, Form)
    assert isinstance(weight, Known)
    attrs = attributes(node, ctx.opset)
    group = attrs.get("group", 1)
    inputs, each, *taps = weight.shape
    if x.shape[1] != inputs or inputs % group:
        raise Doubt("a ConvTranspose has a weight that does not fit to its input")
    bias = bias_of(ctx, values[2] if len(values) > 2 else None, each * group)
    shape = ctx.results(node, values)[0][0]
    assert shape is not None
    x = one_term(ctx, x)
    numbers: tuple[Array, Array, Array]
    windows = windows_of(attrs, x.shape[2:], tuple(taps), free=ctx.space.free)
    one = all(n == 1 for n in (*taps, *windows.strides)) and not windows.padded
    plain = one and not any(attrs.get("output_padding", ())) and "output_shape" not in attrs
    if (x.t.any() or x.m.any()) and not plain:
        # At the borders fewer taps meet the input, so a shift does not add the same everywhere.
        z, factor = inside(ctx, x)
        x = replace(x, terms={z: factor}, t=np.zeros_like(x.t), m=np.zeros_like(x.m))
    z, *rest = source_of(ctx, x, 1)
    numbers = (rest[0], rest[1], rest[2])

    size = group * each, inputs // group, prod(taps)
    kernel = kernel_of(ctx, weight, "conv transposed", size, group, numbers, x.u)
    named = tuple(
        (name, attrs.get(name))
        for name in ("auto_pad", "dilations", "output_padding", "output_shape", "pads", "strides")
    )
    key = ("conv transposed", z.id, group, tuple(taps), named, shape)
    return linear(ctx, key, kernel, bias, shape, 1)
