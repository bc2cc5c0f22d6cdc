"""Ops that join and split along an axis: Concat and Split.

On the channel axis, a value has more channels than what is picked from it; those that are not
picked keep the identity, a = 1 and b = 0, so nothing changes for their other readers.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from converter.folding.affine import Affine
from converter.folding.moves.same_axis import data_only
from converter.folding.refusal import Refusal
from converter.folding.step import ForwardRule, Rule, Step
from converter.folding.view import View
from converter.graph.naming import label

Indices = npt.NDArray[np.int64]


def picked(affine: Affine, indices: Indices) -> Affine:
    return Affine(affine.scale[indices], affine.shift[indices], affine.axis)


def padded(affine: Affine, indices: Indices, channels: int) -> Affine | None:
    """The map on the value that `indices` were picked from; None if one channel of it was picked
    twice, with different maps."""
    scale, shift = np.ones(channels), np.zeros(channels)
    scale[indices], shift[indices] = affine.scale, affine.shift
    if np.any(scale[indices] != affine.scale) or np.any(shift[indices] != affine.shift):
        return None
    return Affine(scale, shift, affine.axis)


def size_of(value: ir.Value | None, axis: int, view: View) -> int | None:
    shape = None if value is None else view.shape(value)
    size = shape[axis] if shape is not None and axis < len(shape) else None
    return size if isinstance(size, int) else None


def unknown(node: ir.Node) -> Refusal:
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
    whole = padded(affine, np.arange(start, start + affine.channels), total)
    assert whole is not None
    return Step(
        f"passes Concat as channels {start} to {start + affine.channels - 1} of {total}",
        onward=((0, whole),),
    )


def _joined(node: ir.Node, axis: int, view: View) -> list[int] | None:
    sizes = [size_of(value, axis, view) for value in node.inputs]
    known = [size for size in sizes if size is not None]
    return known if len(known) == len(sizes) else None


def _parts(affine: Affine, sizes: Sequence[int]) -> list[Affine]:
    ends = np.cumsum(sizes)
    return [
        picked(affine, np.arange(end - size, end)) for size, end in zip(sizes, ends, strict=True)
    ]


# --- Split --------------------------------------------------------------------------------


def _split(node: ir.Node, output: int, affine: Affine, view: View) -> Step | Refusal:
    """The other outputs are other channels: a = (1, a, 1), b = (0, b, 0) on the input. Along
    another axis every output would have to carry the map."""
    rank = view.rank(node.outputs[output])
    if rank is None:
        return Refusal("unknown-shape", f"the rank of {label(node)} is not known.")
    axis = axis_of(node, rank)
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
        return unknown(node)
    start = sum(sizes[:output])
    whole = padded(affine, np.arange(start, start + affine.channels), sum(sizes))
    assert whole is not None
    text = f"passes Split as channels {start} to {start + affine.channels - 1} of {sum(sizes)}"
    return Step(text, onward=((0, whole),))


def _split_forward(node: ir.Node, index: int, affine: Affine, view: View) -> Step | Refusal:
    """Each output takes its part of the map, or, along another axis, all of it."""
    rank = view.rank(node.inputs[0]) if node.inputs[0] is not None else None
    if index != 0 or rank is None:
        return data_only(node, index) or unknown(node)
    axis = axis_of(node, rank)
    if axis != affine.axis:
        onward = tuple((output, affine) for output in range(len(node.outputs)))
        return Step("passes Split, on each of its outputs", onward=onward)
    sizes = _split_sizes(node, axis, view)
    if sizes is None or sum(sizes) != affine.channels:
        return unknown(node)
    parts = enumerate(_parts(affine, sizes))
    return Step("passes Split, a part on each of its outputs", onward=tuple(parts))


def axis_of(node: ir.Node, rank: int) -> int:
    return node.attributes.get_int("axis", 0) % rank


def _split_sizes(node: ir.Node, axis: int, view: View) -> list[int] | None:
    """From the constant that gives them, or the annotated shapes of the outputs."""
    held = node.attributes.get_ints("split", None)
    if held is not None:
        return list(held)
    given = node.inputs[1] if len(node.inputs) > 1 else None
    if given is not None:
        found = constant_ints(given, node, view)
        return None if found is None else list(found)
    sizes = [size_of(value, axis, view) for value in node.outputs]
    known = [size for size in sizes if size is not None]
    return known if len(known) == len(sizes) else None


def constant_ints(value: ir.Value | None, node: ir.Node, view: View) -> tuple[int, ...] | None:
    if value is None or view.why_not_constant(value, node, "parameter"):
        return None
    assert value.const_value is not None
    return tuple(int(number) for number in value.const_value.numpy().ravel())


BACKWARD: dict[str, Rule] = {"Concat": _concat}
PARTS: dict[str, ForwardRule] = {"Split": _split}
FORWARD: dict[str, ForwardRule] = {"Concat": _concat_forward, "Split": _split_forward}
