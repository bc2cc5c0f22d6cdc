"""What is removed from the export of a Keras model before anything is folded.

Keras' torch backend computes a convolution as T(conv(T(x), W)) + b, with T from channels last to
first and back. Without the Transposes that is conv(x, W) + b, and b is the convolution's bias.
A recurrent layer comes with an initial state of zeros for each sample, which ONNX assumes anyway.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from converter.evaluation.normalize import NormalizePass
from converter.graph.building import Builder
from converter.graph.in_order import InOrder
from converter.graph.reshapes import FixReshapesPass
from converter.graph.rewiring import bypass
from converter.graph.transposes import CancelTransposesPass
from converter.graph.values import is_constant
from converter.graph.zero_biases import DropZeroBiasesPass

_END = 1 << 31  # what exporters write is at least this
_RECURRENT = frozenset({"LSTM", "GRU"})
_CONVOLUTIONS = frozenset({"Conv", "ConvTranspose"})


def clean(model: ir.Model) -> ir.Model:
    """A normalized copy with fewer nodes that computes the same."""
    steps = InOrder(
        NormalizePass(),
        TellConstantsPass(),
        DropZeroStatesPass(),
        DropZeroBiasesPass(constants=True),
        DropWholeSlicesPass(),
        FixReshapesPass(),
        CancelTransposesPass(),
        TakeBiasesPass(),
        NormalizePass(),
    )
    return steps(model).model


class TellConstantsPass(ir.passes.InPlacePass):
    """Annotate each constant with the shape of its numbers: a constant that was evaluated may still
    have the name of an axis in its shape. This is legal for every model."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        modified = False
        for value in model.graph.initializers.values():
            if value.const_value is not None:
                shape = ir.Shape(value.const_value.shape.numpy())
                modified |= value.shape != shape
                value.shape = shape
        return ir.passes.PassResult(model, modified)


class DropZeroStatesPass(ir.passes.InPlacePass):
    """Remove initial states of zeros from LSTM and GRU: inputs 5 and 6, h and c.

    1. They are made by ConstantOfShape, of zeros, perhaps sliced.
    2. ONNX takes zeros where they are left out (operators, LSTM, initial_h).
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        modified = False
        for node in model.graph:
            if node.op_type not in _RECURRENT or node.domain != "":
                continue
            for index in range(5, min(len(node.inputs), 7)):
                if _made_of_zeros(node.inputs[index]):
                    node.replace_input_with(index, None)
                    modified = True
        return ir.passes.PassResult(model, modified)


class DropWholeSlicesPass(ir.passes.InPlacePass):
    """Remove a Slice that takes everything: x[:, :6] of a 6-wide x.

    1. It takes each element from 0 to the end or beyond, and all of that is given by constants.
    2. It is not an output of the graph.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        modified = False
        for node in tuple(model.graph):
            source = node.inputs[0] if node.inputs else None
            if node.op_type == "Slice" and node.domain == "" and source and _takes_all(node):
                bypass(node, source)
                modified = True
        return ir.passes.PassResult(model, modified)


class TakeBiasesPass(ir.passes.InPlacePass):
    """conv(x, W) + b: b becomes the bias, and the Add is removed.

    1. b is a constant of shape (1, C, 1, ..).
    2. Only the Add reads the convolution's result, which is not an output of the graph.
    3. The convolution has no bias: the sum of two biases would be rounded once more.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        builder = Builder(model)
        taken = [
            _take_bias(model.graph, node, builder)
            for node in tuple(model.graph)
            if node.op_type in _CONVOLUTIONS and node.domain == ""
        ]
        return ir.passes.PassResult(model, any(taken))


def _made_of_zeros(value: ir.Value | None) -> bool:
    while value is not None and (made := value.producer()) is not None:
        if made.op_type == "Slice":
            value = made.inputs[0]
            continue
        fill = made.attributes.get_tensor("value", None)
        return made.op_type == "ConstantOfShape" and (fill is None or not fill.numpy().any())
    return False


def _takes_all(node: ir.Node) -> bool:
    source, *operands = node.inputs
    if source is None or source.shape is None or node.outputs[0].is_graph_output():
        return False
    constants = [v.const_value.numpy() for v in operands if v is not None and v.const_value]
    if len(constants) < len(operands) or len(constants) < 3:
        return False
    starts, ends, axes = constants[:3]
    steps = constants[3] if len(constants) > 3 else np.ones_like(starts)
    sizes = [source.shape[int(axis)] for axis in axes]
    lengths = [size if isinstance(size, int) else _END for size in sizes]
    return not starts.any() and bool((steps == 1).all()) and bool((ends >= lengths).all())


def _take_bias(graph: ir.Graph, conv: ir.Node, builder: Builder) -> bool:
    out = conv.outputs[0]
    uses = list(out.uses())
    if len(uses) != 1 or out.is_graph_output() or out.shape is None:  # (2)
        return False
    add, position = uses[0]
    operand = add.inputs[1 - position] if add.op_type == "Add" and add.domain == "" else None
    if operand is None or operand.const_value is None or not is_constant(operand):
        return False
    if tuple(operand.const_value.shape) != (1, out.shape[1], *(1,) * (len(out.shape) - 2)):  # (1)
        return False
    if len(conv.inputs) > 2:  # (3)
        return False
    values = np.ascontiguousarray(operand.const_value.numpy().reshape(-1))
    conv.resize_inputs(3)
    conv.replace_input_with(2, builder.constant(graph, f"{operand.name}_vector", values))
    result = add.outputs[0]
    leaves, name = result.is_graph_output(), result.name
    ir.convenience.replace_all_uses_with(result, out, replace_graph_outputs=True)
    graph.remove(add, safe=True)
    if leaves:
        result.name, out.name = None, name
    return True
