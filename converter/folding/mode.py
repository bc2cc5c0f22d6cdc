"""Which rules apply: those of `ops/` and `moves/`, and some only when the planner allows them."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from converter.folding import moves, ops
from converter.folding.affine import Affine
from converter.folding.refusal import Refusal
from converter.folding.step import ForwardRule, Rule, Step
from converter.folding.view import View


@dataclass(frozen=True)
class Mode:
    """What a way may use.

    Attributes:
        takers: the batch-norms that may take a map up, because they stay.
        through_relu: a Relu or Clip may become a maximum with one number per channel.
        levels: the other terms of a sum may be divided by the scale of one of them.
    """

    takers: frozenset[ir.Node] = frozenset()
    through_relu: bool = False
    levels: bool = False

    def backward(self, node: ir.Node) -> Rule | None:
        """The rule for a map on the node's output."""
        if not self._has_rules(node):
            return None
        op = node.op_type
        rule = ops.BACKWARD.get(op) or moves.BACKWARD.get(op)
        other = ops.THROUGH_RELU_BACKWARD.get(op) if self.through_relu else None
        if rule is None or other is None:
            return rule

        def either(node: ir.Node, affine: Affine, view: View) -> Step | Refusal:
            step = rule(node, affine, view)
            return step if isinstance(step, Step) else other(node, affine, view)

        return either

    def forward(self, node: ir.Node) -> ForwardRule | None:
        """The rule for a map on one of the node's inputs."""
        if not self._has_rules(node):
            return None
        op = node.op_type
        rule = ops.FORWARD.get(op) or moves.FORWARD.get(op)
        other = moves.LEVELED.get(op) if self.levels else None
        if self.through_relu:
            other = ops.THROUGH_RELU_FORWARD.get(op, other)
        if rule is None or other is None:
            return rule

        def either(node: ir.Node, index: int, affine: Affine, view: View) -> Step | Refusal:
            step = rule(node, index, affine, view)
            return step if isinstance(step, Step) else other(node, index, affine, view)

        return either

    def _has_rules(self, node: ir.Node) -> bool:
        return node.domain == "" and (node.op_type != "BatchNormalization" or node in self.takers)
