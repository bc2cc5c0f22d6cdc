"""Add and Sub of a constant: y = x + c, y = x - c, y = c - x.

    behind it:  a*y + b        x takes the scale, c = a*c + b, or a*c - b where it is subtracted
    before it:  x = a*x' + b   c = (c + b)/a, or (c - b)/a in a Sub; the scale moves on behind it

Where both operands are computed, `moves/arithmetic.py` says what passes.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx_ir as ir

from converter.folding.affine import Affine, along_axis
from converter.folding.constants import Constants
from converter.folding.moves import arithmetic
from converter.folding.moves.broadcasting import on_operand, on_result
from converter.folding.ops.operands import constant_operand, one_a_channel, repeated, repeats
from converter.folding.refusal import Refusal
from converter.folding.step import Absorb, ForwardRule, Rule, Step, Update
from converter.folding.view import View
from converter.graph.naming import label
from converter.graph.rounding import Float64


def backward(node: ir.Node, affine: Affine, view: View) -> Step | Refusal:
    """a*(x + c) + b = a*x + (a*c + b);  a*(x - c) + b = a*x - (a*c - b)."""
    constant = constant_operand(node, view)
    if constant is None:
        return arithmetic.backward(node, affine, view)
    computed, held = node.inputs[1 - constant], node.inputs[constant]
    rank = view.rank(node.outputs[0])
    shape = None if computed is None else view.shape(computed)
    onward = on_operand(affine.scale_only(), shape, rank)
    if onward is None or onward.channels != affine.channels:
        return arithmetic.broadcast(node)
    grows = held is not None and repeats(view.shape(held) or (), affine, rank or 0)
    formula = "c = a*c + b" if node.op_type == "Add" else "c = a*c - b, or a*c + b on the left"
    return Step(
        formula,
        (Absorb(node, affine, AFTER),),
        ((1 - constant, onward),),
        repeated(node) if grows else None,
    )


def forward(node: ir.Node, index: int, affine: Affine, view: View) -> Step | Refusal:
    """(a*x + b) + c = a*(x + (c + b)/a);  (a*x + b) - c = a*(x - (c - b)/a);
    c - (a*x + b) = a*((c - b)/a - x)."""
    if constant_operand(node, view) != 1 - index:
        return arithmetic.forward(node, index, affine, view)
    value, held = node.inputs[index], node.inputs[1 - index]
    result = view.shape(node.outputs[0])
    placed = on_result(affine, None if value is None else view.shape(value), result)
    if placed is None or placed.channels != affine.channels:
        return arithmetic.broadcast(node)
    if np.any(placed.scale == 0.0):
        return Refusal(
            "not-linear", f"{label(node)} follows, and a scale of 0 in front of it has no inverse."
        )
    if held is None or repeats(view.shape(held) or (), placed, len(result or ())):
        return repeated(node)
    formula = "c = (c + b)/a" if node.op_type == "Add" else "c = (c - b)/a"
    onward = ((0, placed.scale_only()),)
    return Step(formula, (Absorb(node, placed, BEFORE),), onward)


def _after(constants: Constants, affine: Affine) -> None:
    """a*(c - x) + b = (a*c + b) - a*x."""
    index, scale, shift = _laid_out(constants, affine)
    subtracted = constants.node.op_type == "Sub" and index == 1
    constants[index] = scale * constants[index] + (-shift if subtracted else shift)


def _before(constants: Constants, affine: Affine) -> None:
    index, scale, shift = _laid_out(constants, affine)
    sign = 1.0 if constants.node.op_type == "Add" else -1.0
    constants[index] = (constants[index] + sign * shift) / scale


def _laid_out(constants: Constants, affine: Affine) -> tuple[int, Float64, Float64]:
    """Which operand is the constant, and the map in a shape that broadcasts to it."""
    rank = constants.output_rank()
    scale, shift = (along_axis(v, affine.axis, rank) for v in (affine.scale, affine.shift))
    return constants.constant_index(), scale, shift


AFTER = Update("after", _after, shifted=(0, 1), grows=one_a_channel)
BEFORE = replace(AFTER, side="before", apply=_before)

BACKWARD: dict[str, Rule] = {"Add": backward, "Sub": backward}
FORWARD: dict[str, ForwardRule] = {"Add": forward, "Sub": forward}
