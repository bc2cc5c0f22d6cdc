"""Products of two computed matrices, Y = A B: attention. (With a constant one: `ops/matmul.py`.)

    (a A) B = a (A B)      along the rows of A or a batch axis
    A (B a) = (A B) a      along the columns of B
    A (B + b) = A B + b    where the rows of A sum to 1: a Softmax made them

A map along the axis that the product sums over does not pass.
"""

from __future__ import annotations

import onnx_ir as ir

from converter.folding.affine import Affine
from converter.folding.moves.broadcasting import on_operand, on_result
from converter.folding.refusal import Refusal
from converter.folding.step import Step, one_of
from converter.folding.view import View
from converter.graph.naming import label
from converter.graph.values import made_of_constants


def backward(node: ir.Node, affine: Affine, view: View) -> Step | Refusal:
    """The columns of Y are those of B, its rows those of A, and both share the batch axes."""
    rank, steps = view.rank(node.outputs[0]), []
    for index in (1, 0):
        value = node.inputs[index]
        shape = None if value is None else view.shape(value)
        if shape is None or rank is None or len(shape) < 2 or affine.axis == rank - 2 + (1 - index):
            continue
        if affine.shifts and not (index == 1 and averages(node, view)):
            continue
        placed = on_operand(affine, shape, rank)
        if placed is not None:
            steps.append(Step(_formula(affine, index), onward=((index, placed),)))
    return one_of(*steps) if steps else _refusal(node, affine, view)


def forward(node: ir.Node, index: int, affine: Affine, view: View) -> Step | Refusal:
    """As backward, from one operand to Y."""
    value = node.inputs[index]
    shape = None if value is None else view.shape(value)
    if shape is None or len(shape) < 2:
        return Refusal("unknown-shape", f"the shapes around {label(node)} are not known.")
    if affine.axis == len(shape) - 2 + (1 - index):
        return Refusal("wrong-axis", f"{label(node)} sums over that axis, with computed weights.")
    placed = on_result(affine, shape, view.shape(node.outputs[0]))
    if placed is None or (affine.shifts and not (index == 1 and averages(node, view))):
        return _refusal(node, affine, view)
    return Step(_formula(affine, index), onward=((0, placed),))


def _formula(affine: Affine, index: int) -> str:
    what = "the map on its right, as its left is a Softmax" if affine.shifts else "the scale"
    return f"passes MatMul, {what}" + ("" if affine.shifts else f" on its input {index}")


def averages(node: ir.Node, view: View) -> bool:
    """Whether each row of A sums to 1, because a Softmax over the last axis made it."""
    left = node.inputs[0]
    maker = None if left is None else view.producer(left)
    rank = None if left is None else view.rank(left)
    if maker is None or rank is None or maker.op_type != "Softmax" or maker.domain != "":
        return False
    axis = maker.attributes.get_int("axis", None)
    if axis is None:
        # The default is -1 since opset 13; before, it is 1, and Softmax covers all axes from it on.
        opset = maker.graph.opset_imports.get("", 0) if isinstance(maker.graph, ir.Graph) else 0
        return opset >= 13
    return axis in {-1, rank - 1}


def _refusal(node: ir.Node, affine: Affine, view: View) -> Refusal:
    for value in node.inputs:
        refusal = view.why_not_constant(value, node, "weight")
        if refusal is not None and value is not None and made_of_constants(value):
            return refusal
    what = "no shift" if affine.shifts else "no scale along that axis"
    return Refusal(
        "computed-weights", f"both factors of {label(node)} are computed; it lets {what} pass."
    )
