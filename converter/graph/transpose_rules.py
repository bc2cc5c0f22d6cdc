"""The ops that a Transpose can move past, T(u, p) in, T(f(u), p) out: a rule for each.

A rule gives the node its inputs in the layout of u (`Handing.feed`), puts its axes into the order
of u, and moves T to the readers of its outputs (`Handing.hand`). It returns False, with nothing
changed, where that cannot be done. `transposes.py` applies the rules.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import onnx_ir as ir

from converter.graph.values import is_constant

Perm = tuple[int, ...]


class Handing(Protocol):
    """The operations that a rule may use."""

    def feed(self, node: ir.Node, indices: range, p: Perm) -> bool:
        """Give the node these inputs in u's layout; False where one cannot be."""

    def hand(self, value: ir.Value, p: Perm) -> None:
        """Declare that `value` now holds u where T(u, p) is meant."""

    def initializer(self, array: np.ndarray[Any, Any], near: str) -> ir.Value:
        """A new constant."""


_UNARY = (
    "Abs", "Cast", "Ceil", "Celu", "Clip", "Elu", "Erf", "Exp", "Floor", "Gelu", "HardSigmoid",
    "HardSwish", "Identity", "LeakyRelu", "Log", "Mish", "Neg", "Not", "Reciprocal", "Relu",
    "Round", "Selu", "Sigmoid", "Sign", "Softplus", "Softsign", "Sqrt", "Tanh", "ThresholdedRelu",
)  # fmt: skip
_BROADCASTING = (
    "Add", "And", "Div", "Equal", "Greater", "Less", "Max", "Min", "Mul", "Or", "PRelu", "Pow",
    "Sub", "Sum", "Where",
)  # fmt: skip
_REDUCING = (
    "ReduceL1", "ReduceL2", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum",
    "ReduceSumSquare",
)  # fmt: skip


def compose(p: Perm, q: Perm) -> Perm:
    """First p, then q."""
    return tuple(p[k] for k in q)


def inverse(p: Perm) -> Perm:
    return tuple(int(k) for k in np.argsort(p))


def _unary(handing: Handing, node: ir.Node, p: Perm) -> bool:
    """Other inputs, as Clip's limits, are scalars."""
    if not handing.feed(node, range(1), p):
        return False
    handing.hand(node.outputs[0], p)
    return True


def _broadcasting(handing: Handing, node: ir.Node, p: Perm) -> bool:
    """The result has the operands' full rank, and so must p."""
    ranks = [len(v.shape) for v in node.inputs if v is not None and v.shape is not None]
    if len(ranks) < len(node.inputs) or max(ranks) != len(p):
        return False
    if not handing.feed(node, range(len(node.inputs)), p):
        return False
    handing.hand(node.outputs[0], p)
    return True


def _axis(default: int, every: bool) -> Callable[[Handing, ir.Node, Perm], bool]:
    """The rule for ops with one axis; `every`: all inputs have the layout, not only the first."""

    def rule(handing: Handing, node: ir.Node, p: Perm) -> bool:
        axis = node.attributes.get_int("axis", default) % len(p)
        if not handing.feed(node, range(len(node.inputs) if every else 1), p):
            return False
        node.attributes["axis"] = ir.AttrInt64("axis", p[axis])
        for out in node.outputs:
            handing.hand(out, p)
        return True

    return rule


def _softmax(handing: Handing, node: ir.Node, p: Perm) -> bool:
    """Since opset 13 along one axis; before, along all axes from `axis` on at once (Softmax-11),
    which must also be the last axes of u."""
    if node.graph is None or node.graph.opset_imports.get("", 0) >= 13:
        return _axis(-1, every=False)(handing, node, p)
    axis = node.attributes.get_int("axis", 1)
    first = axis + len(p) if axis < 0 else axis
    if sorted(p[first:]) != list(range(first, len(p))) or not handing.feed(node, range(1), p):
        return False
    handing.hand(node.outputs[0], p)
    return True


def _reducing(handing: Handing, node: ir.Node, p: Perm) -> bool:
    """keepdims = 0 drops axes; those that stay are put into the order of u."""
    given = node.attributes.get_ints("axes", None)
    operand = node.inputs[1] if len(node.inputs) > 1 else None
    if given is not None:
        axes = list(given)
    elif operand is not None and operand.const_value is not None and is_constant(operand):
        axes = operand.const_value.numpy().tolist()
    else:
        return False
    axes = [axis % len(p) for axis in axes]
    if not axes or not handing.feed(node, range(1), p):
        return False
    moved = sorted(p[axis] for axis in axes)
    if given is not None:
        node.attributes["axes"] = ir.AttrInt64s("axes", moved)
    else:
        node.replace_input_with(1, handing.initializer(np.array(moved, np.int64), "axes"))
    if node.attributes.get_int("keepdims", 1):
        handing.hand(node.outputs[0], p)
        return True
    kept = sorted(set(range(len(p))) - set(moved))
    handing.hand(node.outputs[0], tuple(kept.index(p[k]) for k in range(len(p)) if k not in axes))
    return True


def _pad(handing: Handing, node: ir.Node, p: Perm) -> bool:
    operand = node.inputs[1] if len(node.inputs) > 1 else None
    if operand is None or operand.const_value is None or not is_constant(operand):
        return False
    pads = operand.const_value.numpy().reshape(-1)
    by_axes = len(node.inputs) > 3 and node.inputs[3] is not None
    if by_axes or pads.size != 2 * len(p) or not handing.feed(node, range(1), p):
        return False
    back = list(inverse(p))
    moved = pads.reshape(2, -1)[:, back].reshape(-1)
    node.replace_input_with(1, handing.initializer(moved, str(operand.name)))
    handing.hand(node.outputs[0], p)
    return True


RULES: dict[str, Callable[[Handing, ir.Node, Perm], bool]] = (
    dict.fromkeys(_UNARY, _unary)
    | dict.fromkeys(_BROADCASTING, _broadcasting)
    | dict.fromkeys(_REDUCING, _reducing)
    | {
        "Concat": _axis(0, every=True),
        "LogSoftmax": _softmax,
        "Pad": _pad,
        "Softmax": _softmax,
        "Split": _axis(0, every=False),
    }
)
