"""How an affine passes an op forward, from one of its inputs to its outputs: one rule an op.

The mirror of `moves.py`: the op reads x' = a*x + b; afterwards it reads x, and the affine acts
on its output. An op that keeps the channels on their axis needs only its condition, in
`commuting.py`.

To add an op: rule, table, and a case in `tests/converter/folding/test_forward.py`.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from converter.folding.affine import Affine
from converter.folding.axes import flattened, reshaped
from converter.folding.commuting import SAME_AXIS, reduced_axes, refusal_on_axis
from converter.folding.moves import regrouped
from converter.folding.naming import label
from converter.folding.refusal import Refusal
from converter.folding.step import ForwardRule, Step
from converter.folding.view import View


def _same_axis(node: ir.Node, index: int, affine: Affine, view: View) -> Step | Refusal:
    """The channels stay where they are; whether the op commutes is `commuting.py`'s to say."""
    if index != 0:
        return Refusal("not-linear", f"it is no data but a parameter of {label(node)}.")
    refusal = refusal_on_axis(node, affine, view)
    return refusal or Step(f"passes {node.op_type}", onward=((0, affine),))


def _transpose(node: ir.Node, index: int, affine: Affine, view: View) -> Step | Refusal:
    """x axis perm[k] is y axis k."""
    del index
    perm = node.attributes.get("perm")
    rank = view.rank(node.outputs[0])
    if perm is None and rank is None:
        return Refusal("unknown-shape", f"the rank of {label(node)} is not known.")
    order = list(perm.as_ints()) if perm is not None else list(range(rank or 0))[::-1]
    axis = order.index(affine.axis)
    return Step(
        f"passes Transpose, axis {affine.axis} is axis {axis}", onward=((0, affine.along(axis)),)
    )


def _reshape(node: ir.Node, index: int, affine: Affine, view: View) -> Step | Refusal:
    """Reshape(a*x + b) = a'*Reshape(x) + b' with a', b' laid out on the axes of y."""
    if index != 0:
        return Refusal("not-linear", f"it is no data but a parameter of {label(node)}.")
    source = node.inputs[0]
    return regrouped(node, affine, view.shape(source) if source else None, reshaped(node, view))


def _flatten(node: ir.Node, index: int, affine: Affine, view: View) -> Step | Refusal:
    """As Reshape to (product of the axes before `axis`, product of the rest)."""
    del index
    source = node.inputs[0]
    old = view.shape(source) if source else None
    axis = node.attributes.get("axis")
    new = None if old is None else flattened(old, 1 if axis is None else axis.as_int())
    return regrouped(node, affine, old, new)


def _by_shape(node: ir.Node, index: int, affine: Affine, view: View) -> Step | Refusal:
    """Squeeze and Unsqueeze only add or drop axes of size 1; the annotated shapes tell which."""
    del index
    source = node.inputs[0]
    return regrouped(
        node, affine, view.shape(source) if source else None, view.shape(node.outputs[0])
    )


def _reduce_mean(node: ir.Node, index: int, affine: Affine, view: View) -> Step | Refusal:
    """The mean over other axes commutes with the map; the channel axis moves up if they go."""
    source = node.inputs[0]
    rank = None if source is None else view.rank(source)
    axes = reduced_axes(node, view)
    if index != 0 or rank is None or axes is None:
        return Refusal("unknown-shape", f"the axes of {label(node)} are not known.")
    reduced = {axis % rank for axis in axes}
    if affine.axis in reduced or not reduced:
        return Refusal("wrong-axis", f"{label(node)} averages over the channels.")
    keep = node.attributes.get("keepdims")
    kept = keep is None or bool(keep.as_int())
    axis = affine.axis - (0 if kept else sum(other < affine.axis for other in reduced))
    return Step(f"passes {node.op_type}", onward=((0, affine.along(axis)),))


def _concat(node: ir.Node, index: int, affine: Affine, view: View) -> Step | Refusal:
    """On the channel axis the others pass unchanged: a = (1, a, 1), b = (0, b, 0)."""
    rank = view.rank(node.outputs[0])
    shapes = [None if value is None else view.shape(value) for value in node.inputs]
    if rank is None:
        return Refusal("unknown-shape", f"the rank of {label(node)} is not known.")
    axis = node.attributes["axis"].as_int() % rank
    if axis != affine.axis:
        return Refusal(
            "wrong-axis", f"{label(node)} joins along axis {axis}; its other inputs lack the map."
        )
    sizes = [None if shape is None else shape[axis] for shape in shapes]
    if not all(isinstance(size, int) for size in sizes):
        return Refusal("unknown-shape", f"the sizes that {label(node)} joins are not known.")
    known = [size for size in sizes if isinstance(size, int)]
    start, total = sum(known[:index]), sum(known)
    scale, shift = np.ones(total), np.zeros(total)
    scale[start : start + affine.channels] = affine.scale
    shift[start : start + affine.channels] = affine.shift
    return Step(
        f"passes Concat as channels {start} to {start + affine.channels - 1} of {total}",
        onward=((0, Affine(scale, shift, axis)),),
    )


FORWARD: dict[str, ForwardRule] = {
    **dict.fromkeys(SAME_AXIS, _same_axis),
    "Transpose": _transpose,
    "Reshape": _reshape,
    "Flatten": _flatten,
    "Squeeze": _by_shape,
    "Unsqueeze": _by_shape,
    "ReduceMean": _reduce_mean,
    "Concat": _concat,
}
