"""What the export of a Keras model is cleaned of, before anything is folded.

Keras' torch backend computes a convolution as T(conv(T(x), W)) + b, with T from channels last to
first and back. Without the Transposes that is conv(x, W) + b, and b is the convolution's bias.
A recurrent layer comes with a first state of zeros of the batch's size, which ONNX assumes anyhow.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from converter.evaluation.normalize import normalize
from converter.graph.rewiring import bypass
from converter.graph.shape_arithmetic import fix_reshapes
from converter.graph.transposes import cancel_transposes

_END = 1 << 31  # what exporters write is at least this
_RECURRENT = frozenset({"LSTM", "GRU"})
_CONVOLUTIONS = frozenset({"Conv", "ConvTranspose"})


def clean(model: ir.Model) -> ir.Model:
    """A normalized copy with fewer nodes that computes the same."""
    model = normalize(model)
    for value in model.graph.initializers.values():
        if value.const_value is not None:  # what was evaluated may still have a size of no number
            value.shape = ir.Shape(value.const_value.shape.numpy())
    for node in tuple(model.graph):
        source = node.inputs[0] if node.inputs else None
        if source is None:
            continue
        if node.op_type in _RECURRENT and node.domain == "":
            _drop_zero_state(node)
        elif node.op_type in _CONVOLUTIONS and node.domain == "":
            _drop_zero_bias(node)
        elif node.op_type == "Slice" and node.domain == "" and _is_whole(node):
            bypass(node, source)
    fix_reshapes(model)
    model = cancel_transposes(model)
    for node in tuple(model.graph):
        if node.op_type in _CONVOLUTIONS and node.domain == "":
            _take_bias(model.graph, node)
    return normalize(model)


def _drop_zero_state(node: ir.Node) -> None:
    """Inputs 5 and 6 are the first h and c, zeros where they are left out."""
    for index in range(5, min(len(node.inputs), 7)):
        value = node.inputs[index]
        while value is not None and (made := value.producer()) is not None:
            if made.op_type == "Slice":
                value = made.inputs[0]
                continue
            fill = made.attributes.get("value")
            if made.op_type == "ConstantOfShape" and (
                fill is None or not np.any(fill.as_tensor().numpy())
            ):
                node.replace_input_with(index, None)
            break


def _is_whole(node: ir.Node) -> bool:
    """A Slice from 0 to the end or beyond, forwards: x[:, :6] of a 6-wide x."""
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


def _drop_zero_bias(node: ir.Node) -> None:
    """The exporter gives every convolution one, of a wrong shape where there are three axes."""
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    if bias is not None and bias.const_value is not None and not np.any(bias.const_value.numpy()):
        node.resize_inputs(2)


def _take_bias(graph: ir.Graph, conv: ir.Node) -> None:
    """conv(x, W) + b with b of shape (1, C, 1, ..): b becomes the bias, and the Add goes."""
    out = conv.outputs[0]
    uses = list(out.uses())
    if len(uses) != 1 or out.is_graph_output() or out.shape is None:
        return
    add, position = uses[0]
    operand = add.inputs[1 - position] if add.op_type == "Add" and add.domain == "" else None
    if operand is None or not operand.is_initializer() or operand.const_value is None:
        return
    if tuple(operand.const_value.shape) != (1, out.shape[1], *(1,) * (len(out.shape) - 2)):
        return
    if len(conv.inputs) > 2:
        return  # the sum of two biases would be rounded once more
    values = np.ascontiguousarray(operand.const_value.numpy().reshape(-1))
    bias = _initializer(graph, f"{operand.name}_vector", values)
    conv.resize_inputs(3)
    conv.replace_input_with(2, bias)
    result = add.outputs[0]
    leaves, name = result.is_graph_output(), result.name
    ir.convenience.replace_all_uses_with(result, out, replace_graph_outputs=True)
    graph.remove(add, safe=True)
    if leaves:
        result.name, out.name = None, name


def _initializer(graph: ir.Graph, name: str, array: np.ndarray[Any, Any]) -> ir.Value:
    while name in graph.initializers:
        name += "_"
    tensor = ir.tensor(array, name=name)
    value = ir.Value(
        name=name, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype), const_value=tensor
    )
    graph.initializers.add(value)
    return value
