"""A read-only view of the graph as it will be after the plan.

While a plan is made, batch-norms that are already placed are looked through, ops that read only a
value's shape do not count as its readers, and a single function decides whether a value is a
constant.
"""

from __future__ import annotations

import onnx_ir as ir

from converter.folding.refusal import Refusal
from converter.graph.naming import label
from converter.graph.values import (
    QUANTIZED,
    RANDOM,
    Dim,
    is_constant,
    made_of_constants,
    shape_of,
)

# Ops that read a value's shape, not its numbers, so a fold does not affect them.
SHAPE_READERS = frozenset({"Shape", "Size"})


class View:
    """Answers the questions that the rules ask about a graph."""

    def __init__(self, *, broadcasts: bool = True) -> None:
        # Whether Max, Min, Sum and Mean repeat axes of size 1: only since opset 8.
        self.broadcasts = broadcasts
        self._folded: dict[ir.Node, ir.Value | None] = {}
        self._blocked: set[ir.Node] = set()

    def look_through(self, *nodes: ir.Node, source: ir.Value | None) -> None:
        """From now on, `nodes` (a batch-norm that will be removed) are treated as `source`."""
        for node in nodes:
            self._folded[node] = source

    def is_folded(self, node: ir.Node) -> bool:
        return node in self._folded

    def block(self, *nodes: ir.Node) -> None:
        """From now on, `nodes` belong to a merge: nothing passes them and nothing changes them."""
        self._blocked.update(nodes)

    def is_blocked(self, node: ir.Node) -> bool:
        return node in self._blocked

    def readers(self, value: ir.Value) -> list[ir.Node]:
        """The nodes that read the numbers of `value`, one entry for each input that does.

        Readers of a folded batch-norm's output count as readers of its input.
        """
        return [node for node, _ in self.reads(value)]

    def reads(self, value: ir.Value) -> list[tuple[ir.Node, int]]:
        """As `readers`, with the index of the input that reads it."""
        found: list[tuple[ir.Node, int]] = []
        for use in value.uses():
            if use.node.op_type in SHAPE_READERS and use.node.domain == "":
                continue
            if use.node in self._folded:
                found += self.reads(use.node.outputs[0])
            else:
                found.append((use.node, use.idx))
        return found

    def bias_behind(self, node: ir.Node) -> ir.Node | None:
        """The Add of a constant that is the only reader of the node's result, if there is one."""
        value = node.outputs[0]
        reads = self.reads(value)
        if len(reads) != 1 or self.is_graph_output(value):
            return None
        total, index = reads[0]
        if total.op_type != "Add" or total.domain != "" or total.graph is not node.graph:
            return None
        other = total.inputs[1 - index]
        return None if self.why_not_constant(other, total, "operand") else total

    def is_graph_output(self, value: ir.Value) -> bool:
        """Whether the numbers of `value` leave the graph, directly or through a folded node."""
        return value.is_graph_output() or any(
            self.is_graph_output(use.node.outputs[0])
            for use in value.uses()
            if use.node in self._folded
        )

    def producer(self, value: ir.Value) -> ir.Node | None:
        """The node that computes `value`, with folded batch-norms looked through."""
        node = value.producer()
        while node is not None and node in self._folded:
            source = self._folded[node]
            node = None if source is None else source.producer()
        return node

    def origin(self, value: ir.Value) -> ir.Value:
        """The value itself, or what it will be read from once folded batch-norms are gone."""
        node = value.producer()
        while node is not None and (source := self._folded.get(node)) is not None:
            value = source
            node = value.producer()
        return value

    def shape(self, value: ir.Value) -> tuple[Dim, ...] | None:
        """A number or a symbol for each axis, None for an axis of unknown size."""
        return shape_of(value)

    def rank(self, value: ir.Value) -> int | None:
        shape = self.shape(value)
        return None if shape is None else len(shape)

    def why_not_constant(self, value: ir.Value | None, of: ir.Node, what: str) -> Refusal | None:
        """The reason why `value` is not a fixed constant; None if it is one."""
        if is_constant(value):
            return None
        if value is not None and value.is_initializer() and value.const_value is not None:
            return Refusal(
                "overridable-weights",
                f"the {what} of {label(of)} is a graph input, so a caller may replace it.",
                "Export without keep_initializers_as_inputs.",
            )
        made = None if value is None else made_of_constants(value)
        if made is None:
            why = "is computed at run time, not a constant."
        elif made.op_type in QUANTIZED:
            why = f"is quantised ({label(made)}), and stays so."
        elif made.op_type in RANDOM:
            why = f"is drawn at random at run time, by {label(made)}."
        else:
            why = (
                f"is made of constants by {label(made)}, but would be too large as a constant, or "
                "cannot be evaluated here."
            )
        return Refusal("computed-weights", f"the {what} of {label(of)} {why}")
