"""Move forward past a sum or Concat of several values, of which only one carries the map: the
others take up its inverse.

(a*x + b) + y     = a*(x + y/a) + b
Concat(a*x + b, y) = a*Concat(x, (y - b)/a) + b     along another axis than the channels'

Backward, an op that computes y takes up 1/a: a linear op, or a batch-norm that stays, so that of
two batch-norms that are added one is left. This is tried last (`Mode.levels`). A scale of 0 has no
inverse, and one near 0 would make y/a overflow.
"""

from __future__ import annotations

from dataclasses import replace
from math import inf

import numpy as np
import onnx_ir as ir

from converter.folding.affine import Affine
from converter.folding.moves.arithmetic import broadcast, on_sum
from converter.folding.moves.broadcasting import on_operand
from converter.folding.refusal import Refusal
from converter.folding.step import ForwardRule, Step
from converter.folding.view import View
from converter.graph.naming import label

# The largest 1/a, so that y/a stays in the range of the type.
_LARGEST = {ir.DataType.FLOAT16: 2.0**6, ir.DataType.BFLOAT16: 2.0**30}
_OTHERWISE = 2.0**30


def _sum(node: ir.Node, index: int, affine: Affine, view: View) -> Step | Refusal:
    """(a*x + b) + y = a*(x + y/a) + b."""
    onward = on_sum(node, index, affine, view)
    if onward is None:
        return broadcast(node)
    return _divided(node, index, _inverse(onward, node), onward, view)


def _concat(node: ir.Node, index: int, affine: Affine, view: View) -> Step | Refusal:
    """Concat(a*x + b, y) = a*Concat(x, (y - b)/a) + b."""
    rank = view.rank(node.outputs[0])
    if rank is None or node.attributes["axis"].as_int() % rank == affine.axis:
        return Refusal("wrong-axis", f"{label(node)} joins the channels.")
    scale = _inverse(affine, node)
    inverse = None if scale is None else replace(scale, shift=-affine.shift * scale.scale)
    return _divided(node, index, inverse, affine, view)


def _divided(
    node: ir.Node, index: int, inverse: Affine | None, onward: Affine, view: View
) -> Step | Refusal:
    """The step past `node`, whose input `index` carries the map, that turns it into `onward`.

    `inverse` refers to the axes of the result; None if there is none.
    """
    rank = view.rank(node.outputs[0])
    if inverse is None:
        return Refusal(
            "not-linear",
            f"{label(node)} adds another value, which would have to be divided by a scale near 0.",
        )
    back = []
    for other, value in enumerate(node.inputs):
        if other == index:
            continue
        placed = on_operand(inverse, None if value is None else view.shape(value), rank)
        if placed is None:
            return broadcast(node)
        back.append((other, placed))
    text = f"passes {node.op_type}, its other inputs are divided by the scale"
    return Step(text, onward=((0, onward),), back=tuple(back))


def _inverse(affine: Affine, node: ir.Node) -> Affine | None:
    """x/a; None where that is out of range."""
    with np.errstate(divide="ignore", over="ignore"):
        inverse = 1.0 / affine.scale
    dtype = node.outputs[0].dtype
    largest = _OTHERWISE if dtype is None else _LARGEST.get(dtype, _OTHERWISE)
    if np.abs(inverse).max(initial=-inf) > largest:
        return None
    return Affine(inverse, np.zeros_like(inverse), affine.axis)


FORWARD: dict[str, ForwardRule] = {
    "Concat": _concat,
    **dict.fromkeys(("Add", "Sub", "Sum", "Mean"), _sum),
}
