"""Sums of values: a*(x + y) + b = (a*x + b) + a*y.

Backward the scale goes to every operand and the shift to any one that can take it. Forward a shift
passes; a scale passes where the other operands can be divided by it (`leveling.py`). The sum with
a constant is in `ops/add.py`.
"""

from __future__ import annotations

import onnx_ir as ir

from converter.folding.affine import Affine
from converter.folding.moves.broadcasting import on_operand, on_result
from converter.folding.refusal import Refusal
from converter.folding.step import ForwardRule, Rule, Step, one_of
from converter.folding.view import View
from converter.graph.naming import label


def backward(node: ir.Node, affine: Affine, view: View) -> Step | Refusal:
    """a*(x + y) + b = (a*x + b) + a*y = a*x + (a*y + b);  a*(x - y) + b = a*x - (a*y - b)."""
    scales = _on_all(node, affine.scale_only(), view)
    if isinstance(scales, Refusal):
        return scales
    rank, steps = view.rank(node.outputs[0]), []
    for index, value in enumerate(node.inputs):
        sign = -1.0 if node.op_type == "Sub" and index == 1 else 1.0
        whole = Affine(affine.scale, sign * affine.shift, affine.axis)
        shifted = on_operand(whole, view.shape(value) if value else None, rank)
        if shifted is None:
            continue
        onward = tuple(
            (other, shifted if other == index else scale) for other, scale in enumerate(scales)
        )
        what = "the scale on all" + (f", the shift on its input {index}" if affine.shifts else "")
        steps.append(Step(f"passes {node.op_type}, {what}", onward=onward))
        if not affine.shifts:
            break
    return one_of(*steps) if steps else broadcast(node)


def _mean(node: ir.Node, affine: Affine, view: View) -> Step | Refusal:
    """a*mean(x_i) + b = mean(a*x_i + b) over n values, or with n*b on one of them."""
    whole = _on_all(node, affine, view)
    everywhere = (
        []
        if isinstance(whole, Refusal)
        else [Step("passes Mean, on each of its inputs", onward=tuple(enumerate(whole)))]
    )
    shift = affine.shift * len(node.inputs)
    on_one = backward(node, Affine(affine.scale, shift, affine.axis), view)
    if isinstance(on_one, Refusal):
        return one_of(*everywhere) if everywhere else on_one
    return one_of(*everywhere, on_one) if affine.shifts and everywhere else on_one


def _on_all(node: ir.Node, affine: Affine, view: View) -> list[Affine] | Refusal:
    rank = view.rank(node.outputs[0])
    found = [
        on_operand(affine, None if value is None else view.shape(value), rank)
        for value in node.inputs
    ]
    placed = [affine for affine in found if affine is not None]
    return placed if len(placed) == len(found) else broadcast(node)


def broadcast(node: ir.Node) -> Refusal:
    return Refusal(
        "unknown-shape",
        f"{label(node)} broadcasts an input along the channels, or a shape is not known.",
    )


def forward(node: ir.Node, index: int, affine: Affine, view: View) -> Step | Refusal:
    """(x + b) + y = (x + y) + b;  y - (x + b) = (y - x) - b;  of n values in a mean, b/n."""
    onward = on_sum(node, index, affine, view)
    if onward is None:
        return broadcast(node)
    if not onward.scales:
        return Step(f"passes {node.op_type}, the shift", onward=((0, onward),))
    return Refusal(
        "not-linear",
        f"{label(node)} adds another value, which the scale would have to reach, too.",
    )


def on_sum(node: ir.Node, index: int, affine: Affine, view: View) -> Affine | None:
    """The map of an operand as a map of the result; None if the shapes are not known."""
    value = node.inputs[index]
    operand = None if value is None else view.shape(value)
    placed = on_result(affine, operand, view.shape(node.outputs[0]))
    if placed is None:
        return None
    factor = 1 / len(node.inputs) if node.op_type == "Mean" else 1.0
    if node.op_type == "Sub" and index == 1:
        factor = -1.0
    return Affine(placed.scale, factor * placed.shift, placed.axis)


BACKWARD: dict[str, Rule] = {"Sum": backward, "Mean": _mean}
FORWARD: dict[str, ForwardRule] = {"Sum": forward, "Mean": forward}
