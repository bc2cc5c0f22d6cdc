"""Sums of values: a*(x + y) + b = (a*x + b) + a*y.

Backward the scale goes to every operand and the shift to one, whichever can take it; a constant
operand takes it at once. Forward a shift passes, a scale does only into a constant operand, or
where the others can be divided by it (`leveling.py`).
"""

from __future__ import annotations

from math import prod

import numpy as np
import onnx_ir as ir

from converter.folding.affine import Affine
from converter.folding.moves.broadcasting import on_operand, on_result
from converter.folding.moves.leveling import inverse_on_others, inverse_scale
from converter.folding.refusal import Refusal
from converter.folding.step import Absorb, ForwardRule, Rule, Step, one_of
from converter.folding.view import View
from converter.graph.naming import label
from converter.graph.values import Dim


def _add(node: ir.Node, affine: Affine, view: View) -> Step | Refusal:
    """a*(x + c) + b = a*x + (a*c + b) for a constant c: the Add keeps the shift."""
    return _sum_with_constant(node, affine, view, "c = a*c + b")


def _sub(node: ir.Node, affine: Affine, view: View) -> Step | Refusal:
    """a*(x - c) + b = a*x - (a*c - b);  a*(c - x) + b = (a*c + b) - a*x."""
    return _sum_with_constant(node, affine, view, "c = a*c - b, or a*c + b on the left")


def _sum_with_constant(node: ir.Node, affine: Affine, view: View, formula: str) -> Step | Refusal:
    constant = constant_operand(node, view)
    if constant is None:
        return _sum_of_values(node, affine, view)
    computed, held = node.inputs[1 - constant], node.inputs[constant]
    shape = None if computed is None else view.shape(computed)
    rank = view.rank(node.outputs[0])
    onward = on_operand(affine.scale_only(), shape, rank)
    if onward is None or onward.channels != affine.channels:
        return _broadcast(node)
    reservation = None
    if held is not None and grows(view.shape(held) or (), affine, rank or 0):
        reservation = Refusal(
            "dearer", f"the constant of {label(node)} would be repeated for every channel."
        )
    return Step(formula, (Absorb(node, affine),), ((1 - constant, onward),), reservation)


def _sum_of_values(node: ir.Node, affine: Affine, view: View) -> Step | Refusal:
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
    return one_of(*steps) if steps else _broadcast(node)


def _mean(node: ir.Node, affine: Affine, view: View) -> Step | Refusal:
    """a*mean(x_i) + b = mean(a*x_i + b) over n values, or with n*b on one of them."""
    whole = _on_all(node, affine, view)
    everywhere = (
        []
        if isinstance(whole, Refusal)
        else [Step("passes Mean, on each of its inputs", onward=tuple(enumerate(whole)))]
    )
    shift = affine.shift * len(node.inputs)
    on_one = _sum_of_values(node, Affine(affine.scale, shift, affine.axis), view)
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
    return placed if len(placed) == len(found) else _broadcast(node)


def _broadcast(node: ir.Node) -> Refusal:
    return Refusal(
        "unknown-shape",
        f"{label(node)} broadcasts an input along the channels, or a shape is not known.",
    )


def grows(held: tuple[Dim, ...], affine: Affine, rank: int) -> bool:
    """Whether a constant of this shape, times (C,), has more numbers than itself and (C,)."""
    position = affine.axis - (rank - len(held))
    repeated = position < 0 or held[position] == 1
    size = prod(dim for dim in held if isinstance(dim, int))
    return repeated and size > 1 and affine.channels > 1


def constant_operand(node: ir.Node, view: View) -> int | None:
    """Which of the two operands is a constant; None if neither or both are."""
    constant = [view.why_not_constant(value, node, "operand") is None for value in node.inputs]
    return constant.index(True) if constant.count(True) == 1 else None


def _sum_forward(node: ir.Node, index: int, affine: Affine, view: View) -> Step | Refusal:
    """(x + b) + y = (x + y) + b;  y - (x + b) = (y - x) - b;  of n values in a mean, b/n.

    With a constant c, (a*x + b) + c = a*(x + (c + b)/a) and c - (a*x + b) = a*((c - b)/a - x):
    the shift ends there.
    """
    value = node.inputs[index]
    placed = on_result(
        affine, None if value is None else view.shape(value), view.shape(node.outputs[0])
    )
    if placed is None:
        return _broadcast(node)
    if node.op_type in {"Add", "Sub"} and constant_operand(node, view) == 1 - index:
        return _into_constant(node, index, placed, affine, view)
    factor = 1 / len(node.inputs) if node.op_type == "Mean" else 1.0
    if node.op_type == "Sub" and index == 1:
        factor = -1.0
    onward = Affine(placed.scale, factor * placed.shift, placed.axis)
    if not placed.scales:
        return Step(f"passes {node.op_type}, the shift", onward=((0, onward),))
    if view.levels:
        return inverse_on_others(node, index, inverse_scale(placed, node), onward, view)
    return Refusal(
        "not-linear",
        f"{label(node)} adds another value, which the scale would have to reach, too.",
    )


def _into_constant(
    node: ir.Node, index: int, placed: Affine, affine: Affine, view: View
) -> Step | Refusal:
    if placed.channels != affine.channels:
        return _broadcast(node)
    if np.any(placed.scale == 0.0):
        return Refusal(
            "not-linear", f"{label(node)} follows, and a scale of 0 in front of it has no inverse."
        )
    held, rank = node.inputs[1 - index], view.rank(node.outputs[0])
    if held is None or grows(view.shape(held) or (), placed, rank or 0):
        return Refusal(
            "dearer", f"the constant of {label(node)} would be repeated for every channel."
        )
    formula = "c = (c + b)/a" if node.op_type == "Add" else "c = (c - b)/a"
    onward = ((0, placed.scale_only()),)
    return Step(formula, (Absorb(node, placed, "before"),), onward)


BACKWARD: dict[str, Rule] = {"Add": _add, "Sub": _sub, "Sum": _sum_of_values, "Mean": _mean}
FORWARD: dict[str, ForwardRule] = dict.fromkeys(BACKWARD, _sum_forward)
