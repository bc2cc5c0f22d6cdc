"""Keep a Pad of zeros in front of a MaxPool from being fused away."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from converter.graph.building import Builder

_AXES = 3  # Pad-18: data, pads, constant_value, axes
_SINCE = 18


class KeepZeroPaddingsPass(ir.passes.InPlacePass):
    """Name the axes of every Pad that a MaxPool reads.

    onnxruntime (1.31.1, any optimisation level) turns the Pad's widths into pads of the MaxPool,
    whose padding is minus infinity and not zero: where a whole window at the border is negative,
    the result is wrong, also in the graph as it was trained. It only does so with a Pad that has no
    `axes` input. Naming all axes, which changes nothing, keeps the zeros. A Pad gets them when

    1. the opset has that input, from 18 on,
    2. the Pad has mode "constant" and no axes yet,
    3. a MaxPool reads its result,
    4. the rank is known.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        if model.graph.opset_imports.get("", 0) < _SINCE:  # (1)
            return ir.passes.PassResult(model, modified=False)
        found = [
            (graph, node)
            for graph in model.graphs()
            for node in graph
            if _is_read_by_a_maximum(node) and not _has_axes(node)
            if node.outputs[0].shape is not None  # (4)
        ]
        builder = Builder(model) if found else None
        for graph, node in found:
            assert builder is not None
            result = node.outputs[0]
            assert result.shape is not None
            axes = np.arange(len(result.shape), dtype=np.int64)
            node.resize_inputs(_AXES + 1)
            node.replace_input_with(_AXES, builder.constant(graph, f"{result.name}_axes", axes))
        return ir.passes.PassResult(model, bool(found))


def _is_read_by_a_maximum(node: ir.Node) -> bool:
    return (
        node.op_type == "Pad"
        and node.domain == ""
        and node.attributes.get_string("mode", "constant") == "constant"  # (2)
        and any(use.node.op_type == "MaxPool" for use in node.outputs[0].uses())  # (3)
    )


def _has_axes(node: ir.Node) -> bool:
    return len(node.inputs) > _AXES and node.inputs[_AXES] is not None
