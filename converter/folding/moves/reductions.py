"""Means, sums and extremes over axes other than the channels'.

mean(a*x + b) = a*mean(x) + b
sum(a*x + b)  = a*sum(x) + n*b     over n elements
max(a*x + b)  = a*max(x) + b       for a >= 0, as for min
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod

import onnx_ir as ir

from converter.folding.affine import Affine
from converter.folding.commuting import positive, reduced_axes
from converter.folding.moves.same_axis import data_only
from converter.folding.refusal import Refusal
from converter.folding.step import ForwardRule, Rule, Step
from converter.folding.view import View
from converter.graph.naming import label

# (node, the map, how many elements are reduced to one if that is fixed, whether it goes backward)
Change = Callable[[ir.Node, Affine, int | None, View, bool], Affine | Refusal]


def _mean(
    node: ir.Node, affine: Affine, count: int | None, view: View, back: bool
) -> Affine | Refusal:
    """The same map on both sides."""
    del node, count, view, back
    return affine


def _sum(
    node: ir.Node, affine: Affine, count: int | None, view: View, back: bool
) -> Affine | Refusal:
    """The shift is that of a sum of n elements."""
    del view
    if not affine.shifts:
        return affine
    if not count:
        return Refusal("unknown-shape", f"how many elements {label(node)} adds up is not fixed.")
    return Affine(affine.scale, affine.shift / count if back else affine.shift * count, affine.axis)


def _extreme(
    node: ir.Node, affine: Affine, count: int | None, view: View, back: bool
) -> Affine | Refusal:
    """The same map, for scales that are not negative."""
    del count, back
    return positive(node, affine, view) or affine


_CHANGES: dict[str, Change] = {
    "ReduceMean": _mean,
    "ReduceSum": _sum,
    "ReduceMax": _extreme,
    "ReduceMin": _extreme,
}


def _reduced(node: ir.Node, view: View) -> tuple[list[int], set[int], int | None] | Refusal:
    """The axes that stay, in order, those that are reduced, and how many elements these have."""
    source = node.inputs[0]
    shape = None if source is None else view.shape(source)
    axes = reduced_axes(node, view)
    if shape is None or not axes:
        return Refusal("unknown-shape", f"the axes of {label(node)} are not known.")
    gone = {axis % len(shape) for axis in axes}
    sizes = [shape[axis] for axis in gone]
    known = [size for size in sizes if isinstance(size, int)]
    count = prod(known) if len(known) == len(sizes) else None
    return [axis for axis in range(len(shape)) if axis not in gone], gone, count


def _keeps(node: ir.Node) -> bool:
    return bool(node.attributes.get_int("keepdims", 1))


def _over_channels(node: ir.Node) -> Refusal:
    verb = "averages" if node.op_type == "ReduceMean" else "goes"
    return Refusal("wrong-axis", f"{label(node)} {verb} over the channels.")


def _step(node: ir.Node, affine: Affine | Refusal) -> Step | Refusal:
    if isinstance(affine, Refusal):
        return affine
    return Step(f"passes {node.op_type}", onward=((0, affine),))


def backward(node: ir.Node, affine: Affine, view: View) -> Step | Refusal:
    """The map on the input, which still has the reduced axes."""
    found = _reduced(node, view)
    if isinstance(found, Refusal):
        return found
    left, gone, count = found
    axis = affine.axis if _keeps(node) else left[affine.axis]
    if axis in gone:
        return _over_channels(node)
    return _step(node, _CHANGES[node.op_type](node, affine.along(axis), count, view, True))


def forward(node: ir.Node, index: int, affine: Affine, view: View) -> Step | Refusal:
    """The map on the result; the channel axis moves forward if reduced axes are dropped."""
    found = data_only(node, index) or _reduced(node, view)
    if isinstance(found, Refusal):
        return found
    left, gone, count = found
    if affine.axis in gone:
        return _over_channels(node)
    axis = affine.axis if _keeps(node) else left.index(affine.axis)
    return _step(node, _CHANGES[node.op_type](node, affine.along(axis), count, view, False))


BACKWARD: dict[str, Rule] = dict.fromkeys(_CHANGES, backward)
FORWARD: dict[str, ForwardRule] = dict.fromkeys(_CHANGES, forward)
