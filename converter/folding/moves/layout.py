"""Ops that move elements without changing them: Transpose, Reshape, Flatten, Squeeze, Unsqueeze.

Where a single one would let a map vary along two axes, a chain of them may be passed: `chains.py`.
"""

from __future__ import annotations

import onnx_ir as ir

from converter.folding.affine import Affine
from converter.folding.axes import carry, flattened, reshaped
from converter.folding.moves.same_axis import data_only
from converter.folding.refusal import Refusal
from converter.folding.step import ForwardRule, Rule, Step
from converter.folding.view import View
from converter.graph.naming import label
from converter.graph.values import Dim

Shape = tuple[Dim, ...]


def _transpose(node: ir.Node, affine: Affine, view: View) -> Step | Refusal:
    """y = x permuted, y axis k is x axis perm[k]."""
    order = order_of(node, view)
    if order is None:
        return Refusal("unknown-shape", f"the rank of {label(node)} is not known.")
    return _transposed(affine, order[affine.axis])


def _transpose_forward(node: ir.Node, index: int, affine: Affine, view: View) -> Step | Refusal:
    """x axis perm[k] is y axis k."""
    del index
    order = order_of(node, view)
    if order is None:
        return Refusal("unknown-shape", f"the rank of {label(node)} is not known.")
    return _transposed(affine, order.index(affine.axis))


def _transposed(affine: Affine, axis: int) -> Step:
    text = f"passes Transpose, axis {affine.axis} is axis {axis}"
    return Step(text, onward=((0, affine.along(axis)),))


def order_of(node: ir.Node, view: View) -> list[int] | None:
    perm = node.attributes.get_ints("perm", None)
    if perm is not None:
        return list(perm)
    rank = view.rank(node.outputs[0])
    return None if rank is None else list(range(rank))[::-1]


def shapes_of(node: ir.Node, view: View) -> tuple[Shape | None, Shape | None]:
    """The shapes of a node's input and output, as far as they are known.

    Squeeze and Unsqueeze only add or drop axes of size 1; the annotated shapes show which.
    """
    source = node.inputs[0]
    old = None if source is None else view.shape(source)
    if node.op_type == "Reshape":
        return old, reshaped(node, view)
    if node.op_type == "Flatten":
        axis = node.attributes.get_int("axis", 1)
        return old, None if old is None else flattened(old, axis)
    return old, view.shape(node.outputs[0])


def regroup(node: ir.Node, affine: Affine, view: View) -> Step | Refusal:
    """a*Reshape(x) + b = Reshape(a'*x + b') with a', b' laid out on the axes of x."""
    old, new = shapes_of(node, view)
    return _regrouped(node, affine, new, old)


def regroup_forward(node: ir.Node, index: int, affine: Affine, view: View) -> Step | Refusal:
    """Reshape(a*x + b) = a'*Reshape(x) + b' with a', b' laid out on the axes of y."""
    refusal = data_only(node, index)
    if refusal:
        return refusal
    old, new = shapes_of(node, view)
    return _regrouped(node, affine, old, new)


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


REGROUPING = ("Reshape", "Flatten", "Squeeze", "Unsqueeze")
BACKWARD: dict[str, Rule] = {"Transpose": _transpose, **dict.fromkeys(REGROUPING, regroup)}
FORWARD: dict[str, ForwardRule] = {
    "Transpose": _transpose_forward,
    **dict.fromkeys(REGROUPING, regroup_forward),
}
