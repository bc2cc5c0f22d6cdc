"""Ops that move elements and change none: Transpose, Reshape, Flatten, Squeeze, Unsqueeze.

Where a single one would let a map vary along two axes (the first Reshape of a channel shuffle
makes (N, g, C/g, H, W) of (N, C, H, W)), a chain of them is passed at once if the map is one per
channel again behind it.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from converter.folding.affine import Affine, Float64, along_axis
from converter.folding.axes import carry, flattened, relay, reshaped
from converter.folding.moves.same_axis import data_only
from converter.folding.naming import label
from converter.folding.refusal import Refusal
from converter.folding.step import ForwardRule, Rule, Step
from converter.folding.view import Dim, View

Shape = tuple[Dim, ...]


def _transpose(node: ir.Node, affine: Affine, view: View) -> Step | Refusal:
    """y = x permuted, y axis k is x axis perm[k]."""
    order = _order(node, view)
    if order is None:
        return Refusal("unknown-shape", f"the rank of {label(node)} is not known.")
    return _transposed(affine, order[affine.axis])


def _transpose_forward(node: ir.Node, index: int, affine: Affine, view: View) -> Step | Refusal:
    """x axis perm[k] is y axis k."""
    del index
    order = _order(node, view)
    if order is None:
        return Refusal("unknown-shape", f"the rank of {label(node)} is not known.")
    return _transposed(affine, order.index(affine.axis))


def _transposed(affine: Affine, axis: int) -> Step:
    text = f"passes Transpose, axis {affine.axis} is axis {axis}"
    return Step(text, onward=((0, affine.along(axis)),))


def _order(node: ir.Node, view: View) -> list[int] | None:
    perm = node.attributes.get("perm")
    if perm is not None:
        return list(perm.as_ints())
    rank = view.rank(node.outputs[0])
    return None if rank is None else list(range(rank))[::-1]


def _shapes(node: ir.Node, view: View) -> tuple[Shape | None, Shape | None]:
    """The shapes of what a node reads and of what it makes, as far as they are known.

    Squeeze and Unsqueeze only add or drop axes of size 1; the annotated shapes tell which.
    """
    source = node.inputs[0]
    old = None if source is None else view.shape(source)
    if node.op_type == "Reshape":
        return old, reshaped(node, view)
    if node.op_type == "Flatten":
        axis = node.attributes.get("axis")
        return old, None if old is None else flattened(old, 1 if axis is None else axis.as_int())
    return old, view.shape(node.outputs[0])


def _regroup(node: ir.Node, affine: Affine, view: View) -> Step | Refusal:
    """a*Reshape(x) + b = Reshape(a'*x + b') with a', b' laid out on the axes of x."""
    old, new = _shapes(node, view)
    return _or_chain(node, _regrouped(node, affine, new, old), affine, view, back=True)


def _regroup_forward(node: ir.Node, index: int, affine: Affine, view: View) -> Step | Refusal:
    """Reshape(a*x + b) = a'*Reshape(x) + b' with a', b' laid out on the axes of y."""
    refusal = data_only(node, index)
    if refusal:
        return refusal
    old, new = _shapes(node, view)
    return _or_chain(node, _regrouped(node, affine, old, new), affine, view, back=False)


def _regrouped(
    node: ir.Node, affine: Affine, here: Shape | None, there: Shape | None
) -> Step | Refusal:
    """Same elements, same order: the map is repeated or regrouped (`axes.carry`)."""
    if here is None or there is None:
        return Refusal("unknown-shape", f"the shapes around {label(node)} are not known.")
    carried = carry(affine, here, there)
    if isinstance(carried, str):
        return Refusal("not-per-channel", f"through {label(node)}, {carried}")
    text = f"passes {node.op_type}, axis {affine.axis} is axis {carried.axis}"
    if carried.channels != affine.channels:
        text += f", {affine.channels} values as {carried.channels}"
    return Step(text, onward=((0, carried),))


def _or_chain(
    node: ir.Node, step: Step | Refusal, affine: Affine, view: View, *, back: bool
) -> Step | Refusal:
    """If one op alone is no way, the whole chain of such ops may be one."""
    if not isinstance(step, Refusal) or step.code != "not-per-channel":
        return step
    return _chain(node, affine, view, back) or step


def _chain(node: ir.Node, affine: Affine, view: View, back: bool) -> Step | None:
    """Carry the map as a tensor of as many axes as the value, until one axis of it varies."""
    rank = view.rank(node.outputs[0] if back else node.inputs[0] or node.outputs[0])
    if rank is None:
        return None
    maps = [along_axis(values, affine.axis, rank) for values in (affine.scale, affine.shift)]
    names: list[str] = []
    current: ir.Node | None = node
    while current is not None:
        found = [_moved(current, values, view, back) for values in maps]
        maps = [values for values in found if values is not None]
        if len(maps) < 2:
            return None
        names.append(current.op_type)
        affine_now = _one_axis(maps[0], maps[1])
        if affine_now is not None:
            text = f"passes {', '.join(names)} as one, {affine.channels} values as "
            text += f"{affine_now.channels} on axis {affine_now.axis}"
            return Step(text, onward=((0, affine_now),), beyond=current)
        current = _neighbour(current, view, back)
    return None


def _moved(node: ir.Node, values: Float64, view: View, back: bool) -> Float64 | None:
    """`values` on the other side of one op."""
    if node.op_type == "Transpose":
        order = _order(node, view)
        if order is None or len(order) != values.ndim:
            return None
        return np.transpose(values, np.argsort(order) if back else order)
    old, new = _shapes(node, view)
    if old is None or new is None:
        return None
    found = relay(values, new, old) if back else relay(values, old, new)
    return None if isinstance(found, str) else found


def _one_axis(scale: Float64, shift: Float64) -> Affine | None:
    """The map as one per channel, if it varies along one axis alone."""
    sizes = np.broadcast_shapes(scale.shape, shift.shape)
    varying = [axis for axis, size in enumerate(sizes) if size > 1]
    if len(varying) != 1:
        return None
    size = (sizes[varying[0]],)
    return Affine(
        np.broadcast_to(scale.ravel(), size), np.broadcast_to(shift.ravel(), size), varying[0]
    )


def _neighbour(node: ir.Node, view: View, back: bool) -> ir.Node | None:
    """The next op of a chain, if nobody else sees the value in between."""
    value = node.inputs[0] if back else node.outputs[0]
    if value is None or view.is_graph_output(value):
        return None
    reads = view.reads(value)
    if len(reads) != 1 or reads[0][1] != 0:
        return None
    found = view.producer(value) if back else reads[0][0]
    known = found is not None and found.domain == "" and found.op_type in BACKWARD
    return found if known and found is not None and found.graph is node.graph else None


_REGROUPING = ("Reshape", "Flatten", "Squeeze", "Unsqueeze")
BACKWARD: dict[str, Rule] = {"Transpose": _transpose, **dict.fromkeys(_REGROUPING, _regroup)}
FORWARD: dict[str, ForwardRule] = {
    "Transpose": _transpose_forward,
    **dict.fromkeys(_REGROUPING, _regroup_forward),
}
