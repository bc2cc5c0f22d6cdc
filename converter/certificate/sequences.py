"""Sequences of values, as exporters write a split: what goes in comes out, by its place."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from converter.certificate.arrays import Shape
from converter.certificate.context import Context, attributes
from converter.certificate.forms import Form, Known, Value
from converter.certificate.rearranging import ints
from converter.certificate.sums import one_term
from converter.certificate.verdict import Doubt
from converter.certificate.views import concat, rearranged

MAKING = frozenset({"SequenceConstruct", "SplitToSequence"})


def made(ctx: Context, node: ir.Node, values: Sequence[Value]) -> list[Value]:
    """The values of a sequence that a node makes.

    Raises:
        Doubt: what it makes depends on sizes or on the input.
    """
    if node.op_type == "SequenceConstruct":
        return list(values)
    x = values[0]
    if not isinstance(x, Form) or x.shape == (-1,):
        raise Doubt("something is split into a sequence that is not computed here")
    attrs = attributes(node, ctx.opset)
    axis = attrs["axis"] % x.rank
    single = len(values) < 2 or values[1] is None
    sizes = _sizes(
        x.shape,
        axis,
        None if single else values[1],
        fixed=isinstance(ctx.axes[axis], int) or not ctx.space.free,
    )
    results: list[Value] = []
    low = 0
    for size in sizes:
        part = (slice(None),) * axis + (slice(low, low + size),)
        piece = rearranged(ctx, x, lambda a, part=part: a[part])  # type: ignore[misc]
        if single and not attrs["keepdims"]:
            piece = rearranged(ctx, piece, lambda a: a.squeeze(axis))
        results.append(piece)
        low += size
    return results


def _sizes(shape: Shape, axis: int, given: Value, *, fixed: bool) -> list[int]:
    """`fixed`: whether the axis always has this size.

    Raises:
        Doubt: into how many parts it is split is not known, or they do not fit.
    """
    if given is None:
        return [1] * shape[axis]
    sizes = ints(given)
    assert isinstance(given, Known)
    if given.sized or (given.array.ndim == 0 and not fixed):
        raise Doubt("into how many parts something is split depends on the sizes")
    if given.array.ndim == 0:
        each = sizes[0]
        if each <= 0:
            raise Doubt(f"something is split into parts of {each}")
        whole, rest = divmod(shape[axis], each)
        sizes = [each] * whole + [rest] * bool(rest)
    if sum(sizes) != shape[axis] or min(sizes, default=1) <= 0:
        raise Doubt(f"a split of {shape[axis]} into {sizes} cannot be done")
    return sizes


def joined(ctx: Context, node: ir.Node, held: Sequence[Value]) -> Form:
    """ConcatFromSequence."""
    attrs = attributes(node, ctx.opset)
    axis, forms = attrs["axis"], [one_term(ctx, ctx.form(value)) for value in held]
    if not forms or any(form.shape == (-1,) for form in forms):
        raise Doubt("a sequence of which not all shapes are known is joined")
    if attrs["new_axis"]:
        forms = [rearranged(ctx, form, lambda a: np.expand_dims(a, axis)) for form in forms]
    return forms[0] if len(forms) == 1 else concat(ctx, forms, axis)


def taken(held: Sequence[Value], place: Value, *, free: bool) -> Value:
    """The value at a place. `free`: whether sizes are open, so that the last place may be too.

    Raises:
        Doubt: the place is computed, or lies outside.
    """
    (at,) = ints(place)
    if isinstance(place, Known) and (place.sized or (free and at < 0)):
        raise Doubt("which value of a sequence is read depends on the sizes")
    if not -len(held) <= at < len(held):
        raise Doubt(f"a sequence of {len(held)} values is read at {at}")
    return held[at]
