"""Ops with several inputs that all carry a map, forward: what their output then carries.

Concat on another axis than the channels': the same map on every input is that of the output.
A sum of a*x + b and a*y + c is a*(x + y) + (b + c), with the same scale on every term; the same
holds for differences and means. Several ways from one batch-norm may meet like this (`forward.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import onnx_ir as ir

from converter.folding.affine import Affine
from converter.folding.moves.broadcasting import on_result
from converter.folding.refusal import Refusal
from converter.folding.step import Step
from converter.folding.view import View
from converter.graph.naming import label

JoinRule = Callable[[ir.Node, Mapping[int, Affine], View], Step | Refusal]


def _concat(node: ir.Node, maps: Mapping[int, Affine], view: View) -> Step | Refusal:
    """Concat(a*x + b, a*y + b) = a*Concat(x, y) + b."""
    rank, first = view.rank(node.outputs[0]), maps[0]
    if rank is None or node.attributes["axis"].as_int() % rank == first.axis:
        return _unequal(node)
    same = all(
        _same_scale(first, other) and np.array_equal(first.shift, other.shift)
        for other in maps.values()
    )
    text = "passes Concat, the same map on each of its inputs"
    return Step(text, onward=((0, first),)) if same else _unequal(node)


def _sum(node: ir.Node, maps: Mapping[int, Affine], view: View) -> Step | Refusal:
    """(a*x + b) + (a*y + c) = a*(x + y) + (b + c);  b - c for a difference;  their mean."""
    placed = []
    for index, affine in maps.items():
        value = node.inputs[index]
        operand = None if value is None else view.shape(value)
        placed.append((index, on_result(affine, operand, view.shape(node.outputs[0]))))
    found = {index: affine for index, affine in placed if affine is not None}
    if len(found) < len(maps) or not all(_same_scale(found[0], one) for one in found.values()):
        return _unequal(node)
    signs = {1: -1.0} if node.op_type == "Sub" else {}
    shift = np.sum([signs.get(index, 1.0) * one.shift for index, one in found.items()], axis=0)
    if node.op_type == "Mean":
        shift = shift / len(found)
    onward = Affine(found[0].scale, shift, found[0].axis)
    return Step(
        f"passes {node.op_type}, the same scale on each of its inputs", onward=((0, onward),)
    )


def _same_scale(one: Affine, other: Affine) -> bool:
    return one.axis == other.axis and np.array_equal(one.scale, other.scale)


def _unequal(node: ir.Node) -> Refusal:
    return Refusal("not-per-channel", f"the inputs of {label(node)} carry different maps.")


JOINS: dict[str, JoinRule] = {
    "Concat": _concat,
    **dict.fromkeys(("Add", "Sub", "Sum", "Mean"), _sum),
}
