"""Ops that keep the channels on their axis: they need only their condition (`commuting.py`)."""

from __future__ import annotations

import onnx_ir as ir

from converter.folding.affine import Affine
from converter.folding.commuting import SAME_AXIS, refusal_on_axis
from converter.folding.refusal import Refusal
from converter.folding.step import ForwardRule, Rule, Step
from converter.folding.view import View
from converter.graph.naming import label


def backward(node: ir.Node, affine: Affine, view: View) -> Step | Refusal:
    """a*op(x) + b = op(a*x + b)."""
    refusal = refusal_on_axis(node, affine, view)
    return refusal or Step(f"passes {node.op_type}", onward=((0, affine),))


def forward(node: ir.Node, index: int, affine: Affine, view: View) -> Step | Refusal:
    """op(a*x + b) = a*op(x) + b."""
    return (
        data_only(node, index)
        or refusal_on_axis(node, affine, view)
        or Step(f"passes {node.op_type}", onward=((0, affine),))
    )


def data_only(node: ir.Node, index: int, data: int = 0) -> Refusal | None:
    """None when input `index` is the data of `node`, not a parameter of it."""
    if index == data:
        return None
    return Refusal("not-linear", f"it is a parameter of {label(node)}, not its data.")


BACKWARD: dict[str, Rule] = dict.fromkeys(SAME_AXIS, backward)
FORWARD: dict[str, ForwardRule] = dict.fromkeys(SAME_AXIS, forward)
