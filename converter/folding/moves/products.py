"""Products of values: a*(x*y) = (a*x)*y, and quotients and negatives.

A scale goes into any one factor that can take it; a shift does not pass. Backward, a constant
factor may take it up: `ops/mul.py`.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from converter.folding.affine import Affine
from converter.folding.moves.broadcasting import on_operand, on_result
from converter.folding.refusal import Refusal
from converter.folding.step import ForwardRule, Rule, Step
from converter.folding.view import View
from converter.graph.naming import label


def into_factors(node: ir.Node, affine: Affine, view: View, but: int | None = None) -> list[Step]:
    """a*(x*y) = (a*x)*y = x*(a*y), and a*(x/y) = (a*x)/y; not into the factor `but`."""
    rank, steps = view.rank(node.outputs[0]), []
    for index, value in enumerate(node.inputs[:1] if node.op_type == "Div" else node.inputs):
        placed = on_operand(affine, None if value is None else view.shape(value), rank)
        if placed is not None and index != but:
            formula = f"passes {node.op_type}, the scale on its input {index}"
            steps.append(Step(formula, onward=((index, placed),)))
    return steps


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


def _forward(node: ir.Node, index: int, affine: Affine, view: View) -> Step | Refusal:
    """(a*x)*y = a*(x*y), (a*x)/y = a*(x/y), y/(a*x) = (y/x)/a."""
    if affine.shifts:
        return no_shift(node)
    value = node.inputs[index]
    placed = on_result(
        affine, None if value is None else view.shape(value), view.shape(node.outputs[0])
    )
    if placed is None:
        return broadcast(node)
    if node.op_type == "Div" and index == 1:
        with np.errstate(divide="ignore", over="ignore"):
            placed = Affine(1.0 / placed.scale, placed.shift, placed.axis)
        if not np.isfinite(placed.scale).all():
            return Refusal("not-linear", f"{label(node)} divides by it, and a scale of it is 0.")
    return Step(f"passes {node.op_type}, the scale", onward=((0, placed),))


def no_shift(node: ir.Node) -> Refusal:
    return Refusal("not-linear", f"{label(node)} lets no shift pass.")


def broadcast(node: ir.Node) -> Refusal:
    return Refusal(
        "unknown-shape",
        f"{label(node)} broadcasts its factors along the channels, or a shape is not known.",
    )


BACKWARD: dict[str, Rule] = {"Neg": _neg}
FORWARD: dict[str, ForwardRule] = {
    "Mul": _forward,
    "Div": _forward,
    "Neg": _neg_forward,
}
