"""Relu, Clip, and Max and Min with a constant: a whole map passes if their thresholds may move.

A Relu then becomes a maximum with one number a channel (`thresholds.py`). Runtimes have faster
ways for a Relu, so that one and Clip are rewritten only when the user asks for it
(`View.through_relu`); a Max or Min with a constant stays what it is.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from converter.folding.affine import Affine
from converter.folding.moves import same_axis
from converter.folding.moves.arithmetic import constant_operand, grows
from converter.folding.moves.broadcasting import on_operand
from converter.folding.refusal import Refusal
from converter.folding.step import Absorb, ForwardRule, Rule, Step
from converter.folding.view import View
from converter.graph.naming import label


def _relu(node: ir.Node, affine: Affine, view: View) -> Step | Refusal:
    """a*relu(x) = relu(a*x) for a >= 0; else a*relu(x) + b = max(a*x + b, b), or min for a < 0."""
    step = same_axis.backward(node, affine, view)
    return step if isinstance(step, Step) or not view.through_relu else _back(node, affine, view)


def _relu_forward(node: ir.Node, index: int, affine: Affine, view: View) -> Step | Refusal:
    """relu(a*x) = a*relu(x) for a >= 0; else relu(a*x + b) = a*max(x, -b/a) + b, or min."""
    step = same_axis.forward(node, index, affine, view)
    if isinstance(step, Step) or not view.through_relu:
        return step
    return _ahead(node, index, affine, view)


def _clip(node: ir.Node, affine: Affine, view: View) -> Step | Refusal:
    """a*clip(x, lo, hi) + b = clip(a*x + b, a*lo + b, a*hi + b)."""
    return _fixed(node, view) or _back(node, affine, view)


def _clip_forward(node: ir.Node, index: int, affine: Affine, view: View) -> Step | Refusal:
    """clip(a*x + b, lo, hi) = a*clip(x, (lo - b)/a, (hi - b)/a) + b."""
    return _fixed(node, view) or _ahead(node, index, affine, view)


def _fixed(node: ir.Node, view: View) -> Refusal | None:
    """The bounds of a Clip must be constants, and the user must have asked."""
    for value in node.inputs[1:3]:
        if value is not None:
            refusal = view.why_not_constant(value, node, "bound")
            if refusal:
                return refusal
    if view.through_relu:
        return None
    return Refusal("not-linear", f"{label(node)} lets no scale and no shift pass.")


def _extreme(node: ir.Node, affine: Affine, view: View) -> Step | Refusal:
    """a*max(x, c) + b = max(a*x + b, a*c + b), and min where a < 0."""
    return _with_constant(node, affine, view) or _back(node, affine, view)


def _extreme_forward(node: ir.Node, index: int, affine: Affine, view: View) -> Step | Refusal:
    """max(a*x + b, c) = a*max(x, (c - b)/a) + b, and min where a < 0."""
    return _with_constant(node, affine, view) or _ahead(node, index, affine, view)


def _with_constant(node: ir.Node, affine: Affine, view: View) -> Refusal | None:
    constant = constant_operand(node, view) if len(node.inputs) == 2 else None
    if constant is None:
        return Refusal("not-linear", f"{label(node)} compares values that are computed.")
    held = node.inputs[constant]
    shape = None if held is None else view.shape(held)
    if shape is None or grows(shape, affine, view.rank(node.outputs[0]) or 0):
        return Refusal(
            "dearer", f"the constant of {label(node)} would be repeated for every channel."
        )
    return None


def _back(node: ir.Node, affine: Affine, view: View) -> Step | Refusal:
    index = _data(node)
    refusal = _same_channels(node, index, affine, view)
    if refusal:
        return refusal
    formula = "its thresholds become a*t + b"
    return Step(formula, (Absorb(node, affine),), ((index, affine),), adds=_more(node, affine))


def _ahead(node: ir.Node, index: int, affine: Affine, view: View) -> Step | Refusal:
    refusal = _same_channels(node, _data(node), affine, view)
    if index != _data(node):
        refusal = Refusal("not-linear", f"it is no data but a bound of {label(node)}.")
    if refusal is None and np.any(affine.scale == 0.0):
        refusal = Refusal(
            "not-linear", f"{label(node)} follows, and a scale of 0 in front of it has no inverse."
        )
    if refusal:
        return refusal
    formula = "its thresholds become (t - b)/a"
    edits = (Absorb(node, affine, "before"),)
    return Step(formula, edits, ((0, affine),), adds=_more(node, affine))


def _data(node: ir.Node) -> int:
    first = node.inputs[0]
    return int(node.op_type in {"Max", "Min"} and first is not None and first.is_initializer())


def _same_channels(node: ir.Node, index: int, affine: Affine, view: View) -> Refusal | None:
    """The data has the rank and the channels of the result, and both are known."""
    if not view.broadcasts:
        why = "before opset 8, a maximum or minimum does not repeat its constant"
        return Refusal("unsupported-form", f"{label(node)} keeps its bounds: {why}.")
    value, rank = node.inputs[index], view.rank(node.outputs[0])
    shape = None if value is None else view.shape(value)
    placed = on_operand(affine, shape, rank)
    if placed is None or shape is None or len(shape) != rank or placed.channels != affine.channels:
        return Refusal("unknown-shape", f"the shapes around {label(node)} are not known.")
    if node.outputs[0].dtype is None:
        return Refusal("unknown-shape", f"the type of what {label(node)} gives is not known.")
    return None


def _more(node: ir.Node, affine: Affine) -> int:
    """A maximum in some channels and a minimum in others are two ops, and so are two bounds."""
    mixed = bool(np.any(affine.scale < 0) and np.any(affine.scale > 0))
    return int(mixed or node.op_type == "Clip")


BACKWARD: dict[str, Rule] = {"Relu": _relu, "Clip": _clip, "Max": _extreme, "Min": _extreme}
FORWARD: dict[str, ForwardRule] = {
    "Relu": _relu_forward,
    "Clip": _clip_forward,
    "Max": _extreme_forward,
    "Min": _extreme_forward,
}
