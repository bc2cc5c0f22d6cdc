"""Mul and Div by a constant, and of one: y = c*x, y = x/c, y = c/x.

    behind it:  a*y   c = a*c, or c/a where it divides
    before it:  nothing goes in; a scale passes (`moves/products.py`)

A computed factor takes the scale rather than the constant one, if it can. (Factors of one number,
or of one per channel, are scales themselves and are folded first: `sites/chain.py`.)
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from converter.folding.affine import Affine, along_axis
from converter.folding.constants import Constants
from converter.folding.moves import products
from converter.folding.ops.operands import constant_operand, one_a_channel, repeated, repeats
from converter.folding.refusal import Refusal
from converter.folding.step import Absorb, ForwardRule, Rule, Step, Update, one_of
from converter.folding.view import View
from converter.graph.naming import label


def backward(node: ir.Node, affine: Affine, view: View) -> Step | Refusal:
    """a*(c*x) = (a*c)*x;  a*(c/x) = (a*c)/x;  a*(x/c) = x/(c/a)."""
    if affine.shifts:
        return products.no_shift(node)
    constant = constant_operand(node, view)
    steps = products.into_factors(node, affine, view, but=constant)
    taken = None if constant is None else _taken(node, constant, affine, view)
    if taken is not None:
        steps.append(taken)
    return one_of(*steps) if steps else products.broadcast(node)


def _taken(node: ir.Node, constant: int, affine: Affine, view: View) -> Step | None:
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
    elif repeats(shape, affine, rank):
        reservation = repeated(node)
    formula = "c /= a" if inverse else "c *= a"
    return Step(formula, (Absorb(node, affine, AFTER),), (), reservation)


def _after(constants: Constants, affine: Affine) -> None:
    index = constants.constant_index()
    scale = along_axis(affine.scale, affine.axis, constants.output_rank())
    divides = constants.node.op_type == "Div" and index == 1
    constants[index] = constants[index] / scale if divides else constants[index] * scale


AFTER = Update("after", _after, scaled=(0, 1), grows=one_a_channel)

BACKWARD: dict[str, Rule] = {"Mul": backward, "Div": backward}
FORWARD: dict[str, ForwardRule] = {}
