"""A chain of ops that move elements is passed at once, where a single one cannot be passed.

Between them a map may vary along several axes: the first Reshape of a channel shuffle turns
(N, C, H, W) into (N, g, C/g, H, W), and an attention has separate axes for heads and features. So
the map is carried as a tensor with as many axes as the value, of size 1 where nothing varies, until
it varies along one axis again. Along an axis whose size is not fixed it may repeat: heads that are
merged into the batch, (batch*heads, ..), have the period `heads`.

The product of a Softmax and such values, Y = A B, belongs to such a chain (`matrices.py`):

    A (B*a + b) = Y*a + b     along the columns of B and the axes before the last two

The scale alone passes to B for any A.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from converter.folding.affine import Affine, along_axis
from converter.folding.axes import relay
from converter.folding.moves import layout
from converter.folding.moves.matrices import averages
from converter.folding.refusal import Refusal
from converter.folding.step import ForwardRule, Rule, Step
from converter.folding.view import View
from converter.graph.rounding import Float64
from converter.graph.values import Dim

Maps = tuple[Float64, Float64]  # scale, shift, each of the rank of the value


def _regroup(node: ir.Node, affine: Affine, view: View) -> Step | Refusal:
    """a*Reshape(x) + b = Reshape(a'*x + b'), past one op or the whole chain in front of it."""
    step = layout.regroup(node, affine, view)
    return _or_chain(node, step, affine, view, back=True)


def _regroup_forward(node: ir.Node, index: int, affine: Affine, view: View) -> Step | Refusal:
    """Reshape(a*x + b) = a'*Reshape(x) + b', past one op or the whole chain that begins with it."""
    step = layout.regroup_forward(node, index, affine, view)
    return _or_chain(node, step, affine, view, back=False)


def _or_chain(
    node: ir.Node, step: Step | Refusal, affine: Affine, view: View, *, back: bool
) -> Step | Refusal:
    if not isinstance(step, Refusal) or step.code != "not-per-channel":
        return step
    return _chain(node, affine, view, back) or step


def _chain(node: ir.Node, affine: Affine, view: View, back: bool) -> Step | None:
    """Pass the ops from `node` on, until the map varies along one axis only."""
    value = node.outputs[0] if back else node.inputs[0]
    rank = None if value is None else view.rank(value)
    if rank is None:
        return None
    maps: Maps | None = (
        along_axis(affine.scale, affine.axis, rank),
        along_axis(affine.shift, affine.axis, rank),
    )
    names: list[str] = []
    place: tuple[ir.Node, int] | None = (node, 0)
    while place is not None:
        current, index = place
        maps = _moved(current, index, maps, view, back) if maps is not None else None
        if maps is None:
            return None
        names.append(current.op_type)
        there = current.inputs[index] if back else current.outputs[0]
        found = _one_axis(maps, None if there is None else view.shape(there))
        if found is not None:
            text = f"passes {', '.join(names)} as one, {affine.channels} values as "
            text += f"{found.channels} on axis {found.axis}"
            return Step(text, onward=((index if back else 0, found),), beyond=current)
        place = _neighbour(there, view, back)
    return None


def _moved(node: ir.Node, index: int, maps: Maps, view: View, back: bool) -> Maps | None:
    """The maps on the other side of one op."""
    if node.op_type == "MatMul":
        return _past_product(node, index, maps, view)
    found = [_laid_out(node, values, view, back) for values in maps]
    known = [values for values in found if values is not None]
    return (known[0], known[1]) if len(known) == len(maps) else None


def _laid_out(node: ir.Node, values: Float64, view: View, back: bool) -> Float64 | None:
    if node.op_type == "Transpose":
        order = layout.order_of(node, view)
        if order is None or len(order) != values.ndim:
            return None
        return np.transpose(values, np.argsort(order) if back else order)
    old, new = layout.shapes_of(node, view)
    if old is None or new is None:
        return None
    found = relay(values, new, old) if back else relay(values, old, new)
    return None if isinstance(found, str) else found


def _past_product(node: ir.Node, index: int, maps: Maps, view: View) -> Maps | None:
    """The same maps on a factor of A B and on the product, if the factor is not repeated along
    an axis on which they vary, and they do not vary along the axis that is summed over."""
    factor, result = node.inputs[index], view.shape(node.outputs[0])
    shape = None if factor is None else view.shape(factor)
    if shape is None or result is None or len(shape) != len(result) or len(shape) < 2:
        return None
    summed = len(shape) - 2 + (1 - index)
    varying = {axis for values in maps for axis, size in enumerate(values.shape) if size > 1}
    same = all(shape[axis] is not None and shape[axis] == result[axis] for axis in varying)
    if summed in varying or not same:
        return None
    if np.any(maps[1] != 0.0) and not (index == 1 and averages(node, view)):
        return None
    return maps


def _one_axis(maps: Maps, shape: Sequence[Dim] | None) -> Affine | None:
    """The map as an Affine, if it varies along a single axis of fixed size."""
    varying = {axis for values in maps for axis, size in enumerate(values.shape) if size > 1}
    if len(varying) != 1 or shape is None:
        return None
    (axis,) = varying
    size = shape[axis]
    if not isinstance(size, int) or any(values.shape[axis] not in {1, size} for values in maps):
        return None
    scale, shift = (np.broadcast_to(values.ravel(), (size,)) for values in maps)
    return Affine(scale, shift, axis)


def _neighbour(value: ir.Value | None, view: View, back: bool) -> tuple[ir.Node, int] | None:
    """The next op of a chain and its input on the chain, if no other node reads the value."""
    if value is None or view.is_graph_output(value):
        return None
    reads = view.reads(value)
    if len(reads) != 1:
        return None
    found, index = (view.producer(value), None) if back else reads[0]
    if found is None or found.domain != "" or found.graph is not reads[0][0].graph:
        return None
    if found.op_type == "MatMul":
        # The averaged factor is on the right; a constant factor takes a map up by itself.
        index = 1 if back else index
        constant = [view.why_not_constant(v, found, "weight") is None for v in found.inputs]
        return None if any(constant) or index is None else (found, index)
    return (found, 0) if found.op_type in layout.BACKWARD and index in {0, None} else None


BACKWARD: dict[str, Rule] = dict.fromkeys(layout.REGROUPING, _regroup)
FORWARD: dict[str, ForwardRule] = dict.fromkeys(layout.REGROUPING, _regroup_forward)
