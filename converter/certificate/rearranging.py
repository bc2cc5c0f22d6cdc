"""What each rearranging op does to an array of its input's shape (ONNX operator specification)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from converter.certificate.arrays import Shape, count, must_fit
from converter.certificate.context import attributes
from converter.certificate.forms import Form, Known, Value
from converter.certificate.verdict import Doubt
from converter.certificate.views import Apply


def ints(value: Value) -> list[int]:
    """The numbers of a constant that an op reads as sizes, axes or places.

    Raises:
        Doubt: it is computed from the input.
    """
    if not isinstance(value, Known) or value.real:
        raise Doubt("a size, an axis or a place is computed from the input")
    return [int(number) for number in value.array.reshape(-1)]


def given(
    values: Sequence[Value], place: int, attrs: dict[str, Any], name: str
) -> list[int] | None:
    """What newer opsets have as an input and older ones as an attribute."""
    if place < len(values) and values[place] is not None:
        return ints(values[place])
    return list(attrs[name]) if name in attrs else None


def reshape_target(shape: Shape, target: Sequence[int], allowzero: bool) -> list[int]:
    made = [shape[i] if n == 0 and not allowzero else n for i, n in enumerate(target)]
    if made.count(-1) == 1:
        rest = count(tuple(n for n in made if n != -1))
        made[made.index(-1)] = count(shape) // rest if rest else 0
    if any(n < 0 for n in made) or count(tuple(made)) != count(shape):
        raise Doubt(f"a Reshape from {shape} to {list(target)} cannot be done")
    return made


def applied(
    node: ir.Node, values: Sequence[Value], opset: int, *, free: bool
) -> list[Apply] | None:
    """What a rearrangement does to an array of its input's shape, a result each; None: leave it.

    `free`: whether sizes are open.
    """
    x = values[0]
    assert isinstance(x, Form)
    attrs, shape, rank = attributes(node, opset), x.shape, x.rank
    match node.op_type:
        case "Identity":
            return [lambda a: a]
        case "Reshape":
            target = given(values, 1, attrs, "shape")
            made = reshape_target(shape, target or [], bool(attrs.get("allowzero", 0)))
            return [lambda a: a.reshape(made)]
        case "Flatten":
            axis = attrs["axis"] + (rank if attrs["axis"] < 0 else 0)
            return [lambda a: a.reshape(count(shape[:axis]), count(shape[axis:]))]
        case "Transpose":
            perm = attrs.get("perm", tuple(reversed(range(rank))))
            return [lambda a: a.transpose(perm)]
        case "Squeeze":
            axes = given(values, 1, attrs, "axes")
            chosen = None if axes is None else tuple(axis % rank for axis in axes)
            if chosen is None and free:
                return None  # a size that is open may be 1
            return [lambda a: a.squeeze(chosen)]
        case "Unsqueeze":
            axes = given(values, 1, attrs, "axes") or []
            return [lambda a: np.expand_dims(a, tuple(axes))]
        case "Expand":
            to = must_fit(np.broadcast_shapes(shape, tuple(ints(values[1]))))
            return [lambda a: np.broadcast_to(a, to)]
        case "Tile":
            repeats = ints(values[1])
            must_fit((*shape, *repeats))
            return [lambda a: np.tile(a, repeats)]
        case "Gather" if isinstance(values[1], Known):
            axis = attrs["axis"] % rank
            places = np.asarray(values[1].array, np.int64)
            size = shape[axis]
            if places.size and (places.min() < -size or places.max() >= size):
                raise Doubt("a Gather reads past the end")
            must_fit((*shape[:axis], *places.shape, *shape[axis + 1 :]))
            return [lambda a: np.take(a, places, axis)]
        case "Slice":
            chosen_parts, bound = slices(values, attrs, shape)
            return None if bound else [lambda a: a[chosen_parts]]
        case "Split":
            return _split(node, values, attrs, shape)
        case "DepthToSpace" | "SpaceToDepth":
            return [_blocks(node.op_type, attrs, shape)]
        case _:
            return None


def slices(
    values: Sequence[Value], attrs: dict[str, Any], shape: Shape
) -> tuple[tuple[slice, ...], bool]:
    """What a Slice takes, and whether a bound lies outside: at another size it may take more."""
    starts, ends = given(values, 1, attrs, "starts"), given(values, 2, attrs, "ends")
    assert starts is not None
    assert ends is not None
    axes = given(values, 3, attrs, "axes") or list(range(len(starts)))
    steps = given(values, 4, {}, "") or [1] * len(starts)
    chosen: list[slice] = [slice(None)] * len(shape)
    outside = False
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        size = shape[axis % len(shape)]
        outside |= any(size < abs(bound) < 2**31 - 1 for bound in (start, end))
        low, high = (bound + size if bound < 0 else bound for bound in (start, end))
        if step > 0:
            chosen[axis % len(shape)] = slice(max(low, 0), max(high, 0), step)
        else:
            chosen[axis % len(shape)] = slice(
                min(low, size - 1), None if high < 0 else high, step
            )  # fmt: skip
    return tuple(chosen), outside


def _split(
    node: ir.Node, values: Sequence[Value], attrs: dict[str, Any], shape: Shape
) -> list[Apply] | None:
    axis = attrs["axis"] % len(shape)
    sizes = given(values, 1, attrs, "split")
    pieces = len(node.outputs)
    if attrs.get("num_outputs", pieces) != pieces or (sizes is not None and len(sizes) != pieces):
        raise Doubt("a Split does not have as many results as it says")
    if sizes is None:
        each = -(-shape[axis] // pieces)
        sizes = [each] * (pieces - 1) + [shape[axis] - each * (pieces - 1)]
    if sum(sizes) != shape[axis] or min(sizes) < 0:
        raise Doubt(f"a Split of {shape[axis]} into {sizes} cannot be done")
    ends = np.cumsum(sizes)

    def piece(low: int, high: int) -> Apply:
        return lambda a: a[(slice(None),) * axis + (slice(low, high),)]

    return [piece(int(end) - size, int(end)) for end, size in zip(ends, sizes, strict=True)]


def _blocks(op: str, attrs: dict[str, Any], shape: Shape) -> Apply:
    b = attrs["blocksize"]
    n, c, h, w = shape
    if op == "SpaceToDepth":
        return lambda a: (
            a.reshape(n, c, h // b, b, w // b, b)
            .transpose(0, 3, 5, 1, 2, 4)
            .reshape(n, c * b * b, h // b, w // b)
        )
    if attrs.get("mode", "DCR") == "DCR":
        return lambda a: (
            a.reshape(n, b, b, c // (b * b), h, w)
            .transpose(0, 3, 4, 1, 5, 2)
            .reshape(n, c // (b * b), h * b, w * b)
        )
    return lambda a: (
        a.reshape(n, c // (b * b), b, b, h, w)
        .transpose(0, 1, 4, 2, 5, 3)
        .reshape(n, c // (b * b), h * b, w * b)
    )
