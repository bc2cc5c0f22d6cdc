"""Ops that join, split and pick along an axis: Concat, Split, Slice, Gather.

On the channel axis a value that is picked from has more channels than what is picked; those that
are not picked keep the identity, a = 1 and b = 0, so their other readers notice nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from converter.folding.affine import Affine
from converter.folding.moves.same_axis import data_only
from converter.folding.naming import label
from converter.folding.refusal import Refusal
from converter.folding.step import Absorb, ForwardRule, Rule, Step
from converter.folding.view import View

Indices = npt.NDArray[np.int64]


def _picked(affine: Affine, indices: Indices) -> Affine:
    return Affine(affine.scale[indices], affine.shift[indices], affine.axis)


def _padded(affine: Affine, indices: Indices, channels: int) -> Affine | None:
    """The map on the value that `indices` were picked from; None if one channel of it was picked
    twice, with different maps."""
    scale, shift = np.ones(channels), np.zeros(channels)
    scale[indices], shift[indices] = affine.scale, affine.shift
    if np.any(scale[indices] != affine.scale) or np.any(shift[indices] != affine.shift):
        return None
    return Affine(scale, shift, affine.axis)


def _size(value: ir.Value | None, axis: int, view: View) -> int | None:
    shape = None if value is None else view.shape(value)
    size = shape[axis] if shape is not None and axis < len(shape) else None
    return size if isinstance(size, int) else None


def _unknown(node: ir.Node) -> Refusal:
    return Refusal("unknown-shape", f"which channels {label(node)} takes is not known.")


# --- Concat -------------------------------------------------------------------------------


def _concat(node: ir.Node, affine: Affine, view: View) -> Step | Refusal:
    """On the channel axis each input takes its part of the map, on another axis all of it."""
    rank = view.rank(node.outputs[0])
    if rank is None:
        return Refusal("unknown-shape", f"the rank of {label(node)} is not known.")
    axis = node.attributes["axis"].as_int() % rank
    if axis != affine.axis:
        onward = tuple((index, affine) for index in range(len(node.inputs)))
        return Step("passes Concat, on each of its inputs", onward=onward)
    sizes = _joined(node, axis, view)
    if sizes is None or sum(sizes) != affine.channels:
        return Refusal("unknown-shape", f"the sizes that {label(node)} joins are not known.")
    parts = enumerate(_parts(affine, sizes))
    return Step("passes Concat, a part on each of its inputs", onward=tuple(parts))


def _concat_forward(node: ir.Node, index: int, affine: Affine, view: View) -> Step | Refusal:
    """On the channel axis the others pass unchanged: a = (1, a, 1), b = (0, b, 0)."""
    rank = view.rank(node.outputs[0])
    if rank is None:
        return Refusal("unknown-shape", f"the rank of {label(node)} is not known.")
    axis = node.attributes["axis"].as_int() % rank
    if axis != affine.axis:
        return Refusal(
            "wrong-axis", f"{label(node)} joins along axis {axis}; its other inputs lack the map."
        )
    sizes = _joined(node, axis, view)
    if sizes is None:
        return Refusal("unknown-shape", f"the sizes that {label(node)} joins are not known.")
    start, total = sum(sizes[:index]), sum(sizes)
    whole = _padded(affine, np.arange(start, start + affine.channels), total)
    assert whole is not None
    return Step(
        f"passes Concat as channels {start} to {start + affine.channels - 1} of {total}",
        onward=((0, whole),),
    )


def _joined(node: ir.Node, axis: int, view: View) -> list[int] | None:
    sizes = [_size(value, axis, view) for value in node.inputs]
    known = [size for size in sizes if size is not None]
    return known if len(known) == len(sizes) else None


def _parts(affine: Affine, sizes: Sequence[int]) -> list[Affine]:
    ends = np.cumsum(sizes)
    return [
        _picked(affine, np.arange(end - size, end)) for size, end in zip(sizes, ends, strict=True)
    ]


# --- Split --------------------------------------------------------------------------------


def _split(node: ir.Node, output: int, affine: Affine, view: View) -> Step | Refusal:
    """The other outputs are other channels: a = (1, a, 1), b = (0, b, 0) on the input. Along
    another axis every output would have to carry the map."""
    rank = view.rank(node.outputs[output])
    if rank is None:
        return Refusal("unknown-shape", f"the rank of {label(node)} is not known.")
    axis = _axis(node, rank)
    if axis != affine.axis:
        for other in node.outputs:
            seen = view.readers(other) or view.is_graph_output(other)
            if other is not node.outputs[output] and seen:
                return Refusal(
                    "shared-value",
                    f"{label(node)} splits along axis {axis}, and its other parts are read, too.",
                )
        return Step("passes Split", onward=((0, affine),))
    sizes = _split_sizes(node, axis, view)
    if sizes is None or sizes[output] != affine.channels:
        return _unknown(node)
    start = sum(sizes[:output])
    whole = _padded(affine, np.arange(start, start + affine.channels), sum(sizes))
    assert whole is not None
    text = f"passes Split as channels {start} to {start + affine.channels - 1} of {sum(sizes)}"
    return Step(text, onward=((0, whole),))


def _split_forward(node: ir.Node, index: int, affine: Affine, view: View) -> Step | Refusal:
    """Each output takes its part of the map, or, along another axis, all of it."""
    rank = view.rank(node.inputs[0]) if node.inputs[0] is not None else None
    if index != 0 or rank is None:
        return data_only(node, index) or _unknown(node)
    axis = _axis(node, rank)
    if axis != affine.axis:
        onward = tuple((output, affine) for output in range(len(node.outputs)))
        return Step("passes Split, on each of its outputs", onward=onward)
    sizes = _split_sizes(node, axis, view)
    if sizes is None or sum(sizes) != affine.channels:
        return _unknown(node)
    parts = enumerate(_parts(affine, sizes))
    return Step("passes Split, a part on each of its outputs", onward=tuple(parts))


def _axis(node: ir.Node, rank: int) -> int:
    attribute = node.attributes.get("axis")
    return (0 if attribute is None else attribute.as_int()) % rank


def _split_sizes(node: ir.Node, axis: int, view: View) -> list[int] | None:
    """From the constant that gives them, or the annotated shapes of the outputs."""
    attribute = node.attributes.get("split")
    if attribute is not None:
        return [int(size) for size in attribute.as_ints()]
    given = node.inputs[1] if len(node.inputs) > 1 else None
    if given is not None:
        found = _constant_ints(given, node, view)
        return None if found is None else list(found)
    sizes = [_size(value, axis, view) for value in node.outputs]
    known = [size for size in sizes if size is not None]
    return known if len(known) == len(sizes) else None


def _constant_ints(value: ir.Value | None, node: ir.Node, view: View) -> tuple[int, ...] | None:
    if value is None or view.why_not_constant(value, node, "parameter"):
        return None
    assert value.const_value is not None
    return tuple(int(number) for number in value.const_value.numpy().ravel())


# --- Slice --------------------------------------------------------------------------------


def _slice(node: ir.Node, affine: Affine, view: View) -> Step | Refusal:
    """y = x[start:end:step]: on the channel axis the others keep the identity."""
    size = _size(node.inputs[0], affine.axis, view)
    if not _slices(node, affine.axis, view):
        return Step("passes Slice", onward=((0, affine),))
    indices = _sliced(node, affine.axis, size, view)
    if indices is None or size is None or len(indices) != affine.channels:
        return _unknown(node)
    whole = _padded(affine, indices, size)
    assert whole is not None
    return Step(f"passes Slice, {len(indices)} of {size} channels", onward=((0, whole),))


def _slice_forward(node: ir.Node, index: int, affine: Affine, view: View) -> Step | Refusal:
    """(a*x + b)[start:end:step], and so a and b."""
    if index != 0:
        return data_only(node, index) or _unknown(node)
    if not _slices(node, affine.axis, view):
        return Step("passes Slice", onward=((0, affine),))
    indices = _sliced(node, affine.axis, affine.channels, view)
    if indices is None or not len(indices):
        return _unknown(node)
    text = f"passes Slice, {len(indices)} of {affine.channels} channels"
    return Step(text, onward=((0, _picked(affine, indices)),))


def _slices(node: ir.Node, axis: int, view: View) -> bool:
    """Whether a Slice may take only some of `axis`; it does if that cannot be told."""
    bounds, source = _bounds(node, view), node.inputs[0]
    rank = None if source is None else view.rank(source)
    return bounds is None or rank is None or any(at % rank == axis for at in bounds[2])


def _sliced(node: ir.Node, axis: int, size: int | None, view: View) -> Indices | None:
    """Which indices of `axis` a Slice takes; None if not known."""
    bounds, source = _bounds(node, view), node.inputs[0]
    rank = None if source is None else view.rank(source)
    if bounds is None or rank is None or size is None:
        return None
    found = [limits for limits in zip(*bounds, strict=True) if limits[2] % rank == axis]
    if len(found) != 1:
        return None
    start, end, _, step = found[0]
    if step == 0 or (step < 0 and start < -size):
        return None
    return np.arange(size)[slice(start, end, step)]


def _bounds(node: ir.Node, view: View) -> tuple[tuple[int, ...], ...] | None:
    """(starts, ends, axes, steps): attributes before opset 10, then constant inputs."""
    if "starts" in node.attributes:
        starts = tuple(node.attributes["starts"].as_ints())
        ends = tuple(node.attributes["ends"].as_ints())
        given = node.attributes.get("axes")
        axes = tuple(range(len(starts))) if given is None else tuple(given.as_ints())
        return starts, ends, axes, (1,) * len(starts)
    inputs = [*node.inputs[1:], *[None] * (5 - len(node.inputs))]
    found = [_constant_ints(value, node, view) for value in inputs]
    if any(value is not None and ints is None for value, ints in zip(inputs, found, strict=True)):
        return None
    starts_ends = found[0], found[1]
    if starts_ends[0] is None or starts_ends[1] is None:
        return None
    count = len(starts_ends[0])
    axes = tuple(range(count)) if found[2] is None else found[2]
    return starts_ends[0], starts_ends[1], axes, (1,) * count if found[3] is None else found[3]


# --- Gather -------------------------------------------------------------------------------


def _gather(node: ir.Node, affine: Affine, view: View) -> Step | Refusal:
    """y = x[indices] along an axis. A channel that is not picked keeps the identity, one that is
    picked twice needs one map. A constant table takes the map up: table = a*table + b."""
    table, indices = node.inputs[0], node.inputs[1]
    rank = None if table is None else view.rank(table)
    width = None if indices is None else view.rank(indices)
    if table is None or rank is None or width is None:
        return Refusal("unknown-shape", f"the rank of {label(node)} is not known.")
    at = _axis(node, rank)
    inside = at <= affine.axis < at + width
    if inside and width != 1:
        return _unknown(node)
    axis = affine.axis if affine.axis < at else at if inside else affine.axis - width + 1
    moved = affine.along(axis)
    if inside:
        size, picks = _size(table, axis, view), _picks(node, view)
        if size is None or picks is None or len(picks) != affine.channels:
            return _unknown(node)
        padded = _padded(moved, picks % size, size)
        if padded is None:
            return Refusal(
                "not-per-channel", f"{label(node)} repeats a channel, with another map each time."
            )
        moved = padded
    if view.why_not_constant(table, node, "table") is None:
        if _size(table, axis, view) != moved.channels:
            return _unknown(node)
        return Step("the columns of the table *= a, += b", (Absorb(node, moved),))
    return Step(f"passes Gather, axis {affine.axis} is axis {axis}", onward=((0, moved),))


def _gather_forward(node: ir.Node, index: int, affine: Affine, view: View) -> Step | Refusal:
    """(a*x + b)[indices], and so a and b if the channels are picked."""
    table, indices = node.inputs[0], node.inputs[1]
    rank = None if table is None else view.rank(table)
    width = None if indices is None else view.rank(indices)
    if index != 0 or rank is None or width is None:
        return data_only(node, index) or _unknown(node)
    at = _axis(node, rank)
    if at != affine.axis:
        axis = affine.axis if affine.axis < at else affine.axis + width - 1
        text = f"passes Gather, axis {affine.axis} is axis {axis}"
        return Step(text, onward=((0, affine.along(axis)),))
    picks = _picks(node, view)
    if picks is None or width != 1 or not len(picks):
        return _unknown(node)
    text = f"passes Gather, {len(picks)} of {affine.channels} channels"
    return Step(text, onward=((0, _picked(affine, picks % affine.channels)),))


def _picks(node: ir.Node, view: View) -> Indices | None:
    found = _constant_ints(node.inputs[1], node, view)
    return None if found is None else np.asarray(found, dtype=np.int64)


SELECTORS = frozenset({"Split", "Slice", "Gather"})
BACKWARD: dict[str, Rule] = {"Concat": _concat, "Slice": _slice, "Gather": _gather}
PARTS: dict[str, ForwardRule] = {"Split": _split}
FORWARD: dict[str, ForwardRule] = {
    "Concat": _concat_forward,
    "Split": _split_forward,
    "Slice": _slice_forward,
    "Gather": _gather_forward,
}
