"""The part of a graph that depends on constants alone, and what of it needs the model's own types.

A node belongs to it if no input of the model reaches it, and if it gives the same in each run. Ops
with bodies do not, nor do quantised weights, which are not changed.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import onnx_ir as ir

from converter.graph.values import QUANTIZED, RANDOM, is_constant

_BODIES = frozenset({"If", "Loop", "Scan", "SequenceMap"})
_JUMPS = frozenset(
    {"Floor", "Ceil", "Round", "Sign", "Mod", "IsInf", "IsNaN", "Not", "NonZero", "Unique"}
    | {"Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Equal", "ArgMax", "ArgMin", "TopK"}
    | {"Hardmax", "Shrink", "ThresholdedRelu", "Range", "OneHot"}
)
CASTS = frozenset({"Cast", "CastLike"})
FLOATS = {ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.FLOAT, ir.DataType.DOUBLE}
_WHOLE = {
    *(ir.DataType.INT8, ir.DataType.INT16, ir.DataType.INT32, ir.DataType.INT64),
    *(ir.DataType.UINT8, ir.DataType.UINT16, ir.DataType.UINT32, ir.DataType.UINT64),
    ir.DataType.BOOL,
}


@dataclass
class Cone:
    """The nodes that depend on constants alone, in order.

    Attributes:
        every: all of them.
        nodes: those whose results reach other nodes.
        wanted: their results that are read by other nodes.
        roots: for each result, the initializers that it is computed from.
    """

    model: ir.Model
    every: dict[ir.Node, None] = field(default_factory=dict)
    nodes: list[ir.Node] = field(default_factory=list)
    wanted: set[ir.Value] = field(default_factory=set)
    roots: dict[ir.Value, frozenset[ir.Value]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        every = self.every
        for node in ir.traversal.RecursiveGraphIterator(self.model.graph):
            if self._constant(node):
                every[node] = None
        for node in every:
            for value in node.outputs:
                others = any(use.node not in every for use in value.uses())
                if others and not value.is_graph_output():
                    self.wanted.add(value)
        needed: set[ir.Node] = set()
        for node in reversed(every):
            read = any(use.node in needed for value in node.outputs for use in value.uses())
            if read or self.wanted.intersection(node.outputs):
                needed.add(node)
        self.nodes = [node for node in every if node in needed]

    def _constant(self, node: ir.Node) -> bool:
        source = node.inputs[0] if node.inputs else None
        if node.op_type == "BatchNormalization" and source is not None:
            # A batch-norm in training with one result: onnx infers no type for it.
            node.outputs[0].type = node.outputs[0].type or source.type
        if not reads_constants_alone(node) or not all(map(_is_numbers, node.outputs)):
            return False
        read: set[ir.Value] = set()
        for value in node.inputs:
            if value is None:
                continue
            if value in self.roots:
                read |= self.roots[value]
            elif is_constant(value) and _holds_numbers(value):
                read.add(value)
            else:
                return False
        self.roots.update(dict.fromkeys(node.outputs, frozenset(read)))
        return True

    def jumping(self) -> set[ir.Value]:
        """The values that must be rounded as the model itself rounds them."""
        found: set[ir.Value] = set()
        for node in reversed(self.nodes):
            if jumps(node) or found.intersection(node.outputs):
                found.update(value for value in node.inputs if value is not None)
        return found


def reads_constants_alone(node: ir.Node) -> bool:
    """Whether everything a node reads is constant, and its result is the same in each run."""
    if node.domain != "" or node.op_type in RANDOM | _BODIES | QUANTIZED:
        return False
    training = node.inputs[2] if node.op_type == "Dropout" and len(node.inputs) > 2 else None
    return training is None


def jumps(node: ir.Node) -> bool:
    if node.op_type in CASTS:
        source, result = node.inputs[0], node.outputs[0]
        from_floats = source is not None and source.dtype in FLOATS
        return from_floats and result.dtype not in FLOATS
    return node.op_type in _JUMPS


def _holds_numbers(constant: ir.Value) -> bool:
    held = constant.const_value
    return held is not None and held.dtype in FLOATS | _WHOLE


def _is_numbers(value: ir.Value) -> bool:
    """Whether a result is a tensor of numbers, or is not read at all."""
    if not value.uses() and not value.is_graph_output():
        return True
    tensor = value.type is None or isinstance(value.type, ir.TensorType)
    return tensor and value.dtype in FLOATS | _WHOLE
