"""Ops of two operands, one of which is a constant: which one, and how a map changes its size."""

from __future__ import annotations

from math import prod

import onnx_ir as ir

from converter.folding.affine import Affine
from converter.folding.refusal import Refusal
from converter.folding.view import View
from converter.graph.naming import label
from converter.graph.values import Dim, is_constant


def constant_operand(node: ir.Node, view: View) -> int | None:
    """Which of the two operands is a constant; None if neither or both are."""
    constant = [view.why_not_constant(value, node, "operand") is None for value in node.inputs]
    return constant.index(True) if constant.count(True) == 1 else None


def repeats(held: tuple[Dim, ...], affine: Affine, rank: int) -> bool:
    """Whether a constant of this shape times (C,) has more numbers than either of the two."""
    position = affine.axis - (rank - len(held))
    repeated = position < 0 or held[position] == 1
    size = prod(dim for dim in held if isinstance(dim, int))
    return repeated and size > 1 and affine.channels > 1


def repeated(node: ir.Node) -> Refusal:
    return Refusal("dearer", f"the constant of {label(node)} would be repeated for every channel.")


def one_a_channel(node: ir.Node, affine: Affine) -> int:
    """How much a constant of one number grows when it becomes one number per channel."""
    held = [value.const_value for value in node.inputs if value is not None and is_constant(value)]
    alone = [tensor for tensor in held if tensor is not None and tensor.size == 1]
    return len(alone) * (affine.channels - 1)
