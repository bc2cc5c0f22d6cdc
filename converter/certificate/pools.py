"""Pools, reductions and Resize: a scale passes, a shift passes where what is averaged sums to 1."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import replace

import numpy as np
import onnx_ir as ir

from converter.certificate.arrays import Array, Shape, bits, compressed, count, varies
from converter.certificate.atoms import Atom
from converter.certificate.context import Context, attributes, frozen
from converter.certificate.convolution import absorbed
from converter.certificate.forms import OWN, Form, Known, Value, checked, of_atom
from converter.certificate.linear import whole
from converter.certificate.padding import padded
from converter.certificate.proportion import Weights, proportion
from converter.certificate.rearranging import given, ints
from converter.certificate.sums import inside, one_term, same_places
from converter.certificate.verdict import Doubt
from converter.certificate.views import rearranged, transposed
from converter.certificate.windows import windows_of


def largest(ctx: Context, x: Form, key: Hashable, axes: Sequence[int], shape: Shape) -> Form | None:
    """max over windows or axes: |s|*max(+-z) + t; None: s or t varies along the axes."""
    x = one_term(ctx, x)
    if not x.terms or any(varies(a, axes) for a in (*x.terms.values(), x.t, x.m)):
        return None
    z, s = x.single
    zero = np.zeros_like(s)
    held = (s < 0, zero, zero, s != 0)
    atom, _ = ctx.space.intern(
        (key, z.id, shape),
        shape,
        held,
        lambda a, b, exactly: same_places(ctx.space, a, b, exactly, "the sign of what is compared"),
    )
    return checked(replace(x, shape=shape, terms={atom: np.abs(s)}))


def max_pool(ctx: Context, node: ir.Node, values: Sequence[Value]) -> Form | None:
    x = values[0]
    assert isinstance(x, Form)
    if sum(bool(value.name) for value in node.outputs) > 1:
        return None
    shape = ctx.results(node, values)[0][0]
    assert shape is not None
    if min(shape) <= 0:
        raise Doubt("a pool leaves nothing")
    attrs = attributes(node, ctx.opset)
    if node.op_type == "GlobalMaxPool":
        axes = tuple(range(2, x.rank))
        return largest(ctx, x, ("max over", axes), axes, shape)
    windows = windows_of(attrs, x.shape[2:], tuple(attrs["kernel_shape"]), free=ctx.space.free)
    key = ("max pool", windows.key(), attrs.get("ceil_mode", 0), attrs.get("auto_pad", ""))
    return largest(ctx, x, key, range(2, x.rank), shape)


def average_pool(ctx: Context, node: ir.Node, values: Sequence[Value]) -> Form:
    x = values[0]
    assert isinstance(x, Form)
    shape = ctx.results(node, values)[0][0]
    assert shape is not None
    if min(shape) <= 0:
        raise Doubt("a pool leaves nothing")
    attrs = attributes(node, ctx.opset)
    windows = windows_of(attrs, x.shape[2:], tuple(attrs["kernel_shape"]), free=ctx.space.free)
    counted = bool(attrs.get("count_include_pad", 0)) and windows.padded
    x = one_term(ctx, x)
    if attrs.get("ceil_mode", 0):
        # The last window may lie partly outside: what is divided by is the runtime's affair.
        z, s, t, m = _split(ctx, x, inner=True)
        told = attrs.get("count_include_pad", 0)
        key: Hashable = ("average, ceil", z.id, windows.key(), told, shape)
    else:
        if counted and not windows.auto and (x.t.any() or x.m.any()):
            x = padded(ctx, x, (0, 0, *windows.begins), (0, 0, *windows.ends))
            windows, counted = windows.unpadded(), False
        z, s, t, m = _split(ctx, x, inner=counted)
        if counted or not windows.padded:
            z, windows = absorbed(z, windows)
            counted = windows.padded
        key = ("average", z.id, windows.key(), counted, shape)
    atom, _ = ctx.space.intern(key, shape, None)
    if not (attrs.get("ceil_mode", 0) or windows.auto) and (counted or not windows.padded):
        atom.more.setdefault("average", (z, windows))
    return checked(replace(of_atom(atom, shape), terms={atom: s}, t=t, m=m, u=x.u))


def _split(ctx: Context, x: Form, *, inner: bool) -> tuple[Atom, Array, Array, Array]:
    """(z, s, t, m): s and t a number a channel; `inner`: the shift goes into the atom."""
    spatial = range(2, x.rank)
    zero = np.zeros((1,) * x.rank)
    arrays = (*x.terms.values(), x.t, x.m)
    if x.terms and not inner and not any(varies(a, spatial) for a in arrays):
        return (*x.single, x.t, x.m)
    z, s = inside(ctx, x)
    if varies(s, spatial):
        return whole(ctx, x), np.ones((1,) * x.rank), zero, zero
    return z, s, zero, zero


def mean(ctx: Context, x: Form, axes: Sequence[int]) -> Form:
    """Over axes that stay, with the size 1."""
    x = one_term(ctx, x)
    axes = tuple(sorted(axis % x.rank for axis in axes))
    shape = tuple(1 if i in axes else n for i, n in enumerate(x.shape))
    if count(x.shape) == 0:
        raise Doubt("nothing is averaged")

    def averaged(array: Array) -> Array:
        return array.mean(axis=axes, keepdims=True) if axes else array

    if not x.terms:
        off = averaged(x.m) + OWN * averaged(np.abs(x.t))
        return checked(replace(x, shape=shape, t=averaged(x.t), m=off))
    z, s = x.single
    off = averaged(x.m)
    if varies(x.t, axes):
        off = off + OWN * averaged(np.abs(x.t))
    if varies(s, axes):
        atom, found = ctx.space.intern(
            ("weighted mean", z.id, axes),
            shape,
            Weights(s, x.u),
            lambda held, new, exactly: proportion(ctx.space, held, new, exactly, axes),
        )
        s = np.ones((1,) * x.rank) if found is None else found
    else:
        atom, _ = ctx.space.intern(("mean", z.id, axes), shape, None)
    return checked(replace(x, shape=shape, terms={atom: s}, t=averaged(x.t), m=off))


def reduce(ctx: Context, node: ir.Node, values: Sequence[Value]) -> Form | None:
    """ReduceMean, ReduceSum, ReduceMax, ReduceMin and the global average."""
    x = values[0]
    assert isinstance(x, Form)
    op = node.op_type
    if op == "GlobalAveragePool":
        return mean(ctx, x, range(2, x.rank))
    attrs = attributes(node, ctx.opset)
    axes = (
        ints(values[1])
        if len(values) > 1 and values[1] is not None
        else list(attrs.get("axes", ()))
    )
    if not axes:
        if attrs.get("noop_with_empty_axes", 0):
            return x
        axes = list(range(x.rank))
    axes = sorted({axis % x.rank for axis in axes})
    # Which axis of the value before a Transpose it is that is reduced.
    perm = transposed(x)
    if perm is None:
        form = _reduced(ctx, op, x, axes)
    else:
        turned = rearranged(ctx, x, lambda a: a.transpose(np.argsort(perm)))
        form = _reduced(ctx, op, turned, sorted(perm[axis] for axis in axes))
        form = form and rearranged(ctx, form, lambda a: a.transpose(perm))
    if form is None:
        return None
    if attrs.get("keepdims", 1):
        return form
    return rearranged(ctx, form, lambda a: a.squeeze(tuple(axes)))


def _reduced(ctx: Context, op: str, x: Form, axes: Sequence[int]) -> Form | None:
    """Over axes that stay, with the size 1; None as in `largest`."""
    if op in {"ReduceMax", "ReduceMin"}:
        sign = np.full((), 1.0 if op == "ReduceMax" else -1.0)
        shape = tuple(1 if i in axes else n for i, n in enumerate(x.shape))
        found = largest(ctx, x.scaled(sign), ("max over", tuple(axes)), axes, shape)
        return None if found is None else found.scaled(sign)
    form = mean(ctx, x, axes)
    if op == "ReduceSum":
        size = count(tuple(x.shape[axis] for axis in axes))
        form = form.scaled(np.full((), float(size)))
    return form


def p_norm(ctx: Context, node: ir.Node, values: Sequence[Value]) -> Form | None:
    """LpPool, ReduceL2 and kin: a scale passes as its magnitude, a shift stays inside."""
    x = values[0]
    assert isinstance(x, Form)
    shape, _ = ctx.results(node, values)[0]
    attrs = attributes(node, ctx.opset)
    kept: list[int] | None = None
    if node.op_type.startswith("Reduce"):
        axes = given(values, 1, attrs, "axes") or []
        if not axes and attrs.get("noop_with_empty_axes", 0):
            return None
        axes = sorted({axis % x.rank for axis in axes}) or list(range(x.rank))
        if not attrs["keepdims"]:
            kept = [axis for axis in range(x.rank) if axis not in axes]
        key: Hashable = (node.op_type, tuple(axes), bool(attrs["keepdims"]))
    else:
        axes, key = list(range(2, x.rank)), (node.op_type, frozen(attrs))
    if shape is None or min(shape) <= 0:
        return None
    z, s = inside(ctx, x)
    if varies(s, axes):
        z, s = whole(ctx, x), np.ones((1,) * x.rank)
    atom, _ = ctx.space.intern((key, z.id, shape), shape, None)
    factor = np.abs(s)
    if kept is not None:
        factor = factor.reshape([factor.shape[axis] for axis in kept])
    return replace(of_atom(atom, shape).scaled(factor), u=x.u)


def resize(ctx: Context, node: ir.Node, values: Sequence[Value]) -> Form | None:
    """What is interpolated sums to 1."""
    x = values[0]
    assert isinstance(x, Form)
    attrs = attributes(node, ctx.opset)
    shape = ctx.results(node, values)[0][0]
    if shape is None or attrs.get("coordinate_transformation_mode") == "tf_crop_and_resize":
        return None
    if not all(value is None or isinstance(value, Known) for value in values[1:]):
        return None
    axes = [i for i in range(x.rank) if x.shape[i] != shape[i]]
    place = 1 if node.op_type == "Upsample" or ctx.opset < 11 else 2
    scales = values[place] if len(values) > place else None
    # An axis that keeps its size may still be resized, by a factor that is nearly 1.
    if isinstance(scales, Known) and scales.real and scales.array.size:
        chosen = attrs.get("axes") or range(x.rank)
        factors = zip(chosen, scales.array.reshape(-1), strict=True)
        axes += [axis % x.rank for axis, factor in factors if factor != 1.0]
    axes += [axis for axis, factor in enumerate(attrs.get("scales", ())) if factor != 1.0]
    x = one_term(ctx, x)
    if not x.terms:
        return None
    if any(varies(a, sorted({*axes, *range(2, x.rank)})) for a in (*x.terms.values(), x.t, x.m)):
        return None
    z, s = x.single
    numbers = tuple(
        None if v is None else bits(v.array)
        for v in values[1:]
        if v is None or isinstance(v, Known)
    )
    atom, _ = ctx.space.intern(("resize", z.id, frozen(attrs), numbers, shape), shape, None)
    return checked(replace(x, shape=shape, terms={atom: s}, t=compressed(x.t), m=x.m))
