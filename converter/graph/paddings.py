"""Keep a Pad of zeros in front of a MaxPool from being fused away.

onnxruntime (1.31.1, any optimisation level) makes the Pad's widths those of the MaxPool, whose
padding is minus infinity and not zero: where all of a window at the border is negative, the
result is wrong, in the graph as it was trained, too. It only does so with a Pad that has no
`axes` input (ONNX Pad-18), so naming all axes, which changes nothing, keeps the zeros.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

_AXES = 3  # Pad-18: data, pads, constant_value, axes
_SINCE = 18


def keep_zero_paddings(model: ir.Model) -> None:
    """Name the axes of every Pad that a MaxPool reads, in place; from opset 18 on."""
    if model.graph.opset_imports.get("", 0) < _SINCE:
        return
    for graph in (model.graph, *model.graph.subgraphs()):
        for node in graph:
            if _is_read_by_a_maximum(node) and not _axes(node):
                _name_axes(graph, node)


def _is_read_by_a_maximum(node: ir.Node) -> bool:
    mode = node.attributes.get("mode")
    return (
        node.op_type == "Pad"
        and node.domain == ""
        and (mode is None or mode.as_string() == "constant")
        and any(use.node.op_type == "MaxPool" for use in node.outputs[0].uses())
    )


def _axes(node: ir.Node) -> ir.Value | None:
    return node.inputs[_AXES] if len(node.inputs) > _AXES else None


def _name_axes(graph: ir.Graph, node: ir.Node) -> None:
    shape = node.outputs[0].shape
    if shape is None:
        return
    name = f"{node.outputs[0].name}_axes"
    tensor = ir.tensor(np.arange(len(shape), dtype=np.int64), name=name)
    value = ir.Value(
        name=name,
        shape=ir.Shape([len(shape)]),
        type=ir.TensorType(tensor.dtype),
        const_value=tensor,
    )
    graph.register_initializer(value)
    node.resize_inputs(_AXES + 1)
    node.replace_input_with(_AXES, value)
