"""Products of values: a*(x*y) = (a*x)*y, and quotients and negatives.

A scale goes into one factor, whichever can take it; a shift does not pass. (Factors of one
number, or of one a channel, are scales themselves and go first: `sites/chain.py`.)
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from converter.folding.affine import Affine
from converter.folding.moves.arithmetic import constant_operand, grows
from converter.folding.moves.broadcasting import on_operand, on_result
from converter.folding.refusal import Refusal
from converter.folding.step import Absorb, ForwardRule, Rule, Step, one_of
from converter.folding.view import View
from converter.graph.naming import label


def _product(node: ir.Node, affine: Affine, view: View) -> Step | Refusal:
    """a*(x*y) = (a*x)*y = x*(a*y), and a*(x/y) = (a*x)/y; a constant factor is the last choice."""
    if affine.shifts:
        return _no_shift(node)
    rank, steps = view.rank(node.outputs[0]), []
    constant = constant_operand(node, view)
    for index, value in enumerate(node.inputs[:1] if node.op_type == "Div" else node.inputs):
        placed = on_operand(affine, None if value is None else view.shape(value), rank)
        if placed is not None and index != constant:
            formula = f"passes {node.op_type}, the scale on its input {index}"
            steps.append(Step(formula, onward=((index, placed),)))
    taken = None if constant is None else _taken(node, constant, affine, view)
    if taken is not None:
        steps.append(taken)
    return one_of(*steps) if steps else _broadcast(node)


def _taken(node: ir.Node, constant: int, affine: Affine, view: View) -> Step | None:
    """The constant factor takes the scale: c *= a, or c /= a where it divides."""
    held, rank = node.inputs[constant], view.rank(node.outputs[0])
    if held is None or rank is None:
        return None
    inverse = node.op_type == "Div" and constant == 1
    if inverse and np.any(affine.scale == 0.0):
        return None
    shape, reservation = view.shape(held) or (), None
    if all(size == 1 for size in shape) and affine.channels > 1:
        reservation = Refusal(
            "dearer",
            f"the factor of {label(node)} is one number, as runtimes look for it in activations "
            "(Gelu, hard swish), and would become one a channel.",
        )
    elif grows(shape, affine, rank):
        reservation = Refusal(
            "dearer", f"the constant of {label(node)} would be repeated for every channel."
        )
    return Step("c /= a" if inverse else "c *= a", (Absorb(node, affine),), (), reservation)


def _neg(node: ir.Node, affine: Affine, view: View) -> Step | Refusal:
    """a*(-x) + b = -(a*x - b)."""
    del view
    return Step(f"passes {node.op_type}, b = -b", onward=((0, _negated(affine)),))


def _neg_forward(node: ir.Node, index: int, affine: Affine, view: View) -> Step | Refusal:
    """-(a*x + b) = a*(-x) - b."""
    del index, view
    return Step(f"passes {node.op_type}, b = -b", onward=((0, _negated(affine)),))


def _negated(affine: Affine) -> Affine:
    return Affine(affine.scale, -affine.shift, affine.axis)


def _product_forward(node: ir.Node, index: int, affine: Affine, view: View) -> Step | Refusal:
    """(a*x)*y = a*(x*y), (a*x)/y = a*(x/y), y/(a*x) = (y/x)/a."""
    if affine.shifts:
        return _no_shift(node)
    value = node.inputs[index]
    placed = on_result(
        affine, None if value is None else view.shape(value), view.shape(node.outputs[0])
    )
    if placed is None:
        return _broadcast(node)
    if node.op_type == "Div" and index == 1:
        with np.errstate(divide="ignore", over="ignore"):
            placed = Affine(1.0 / placed.scale, placed.shift, placed.axis)
        if not np.isfinite(placed.scale).all():
            return Refusal("not-linear", f"{label(node)} divides by it, and a scale of it is 0.")
    return Step(f"passes {node.op_type}, the scale", onward=((0, placed),))


def _no_shift(node: ir.Node) -> Refusal:
    return Refusal("not-linear", f"{label(node)} lets no shift pass.")


def _broadcast(node: ir.Node) -> Refusal:
    return Refusal(
        "unknown-shape",
        f"{label(node)} broadcasts its factors along the channels, or a shape is not known.",
    )


BACKWARD: dict[str, Rule] = {"Mul": _product, "Div": _product, "Neg": _neg}
FORWARD: dict[str, ForwardRule] = {
    "Mul": _product_forward,
    "Div": _product_forward,
    "Neg": _neg_forward,
}
