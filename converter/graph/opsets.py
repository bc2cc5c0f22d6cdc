"""Bring ops into the forms that the model's own opset has.

onnxscript's optimizer rewrites some ops on sequences into the forms of the newest opset. Before it
runs, `SizeSequencesPass` writes them so that its result is right; afterwards, `FitOpsetPass` gives
its ops the form that they had in older opsets (onnx/docs/Changelog.md).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from converter.graph.building import Builder

_AXES_ARE_INPUTS = 13
_WAS_ATTRIBUTE = {"Split": "split", "Squeeze": "axes", "Unsqueeze": "axes"}


class SizeSequencesPass(ir.passes.InPlacePass):
    """Write each SplitToSequence with its sizes.

    1. `keepdims` only has an effect without sizes (SplitToSequence-11): with them it is removed.
    2. Equal sizes, which are given as one number, are written out where the length of the axis is
       known: Split, which the optimizer turns it into, has `num_outputs` only since 18.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        modified, builder = False, Builder(model)
        for node in _nodes(model, "SplitToSequence"):
            sizes = node.inputs[1] if len(node.inputs) > 1 else None
            if sizes is None:
                continue
            modified |= node.attributes.pop("keepdims", None) is not None  # (1)
            source, held = node.inputs[0], _numbers(sizes)
            shape = None if source is None else source.shape
            if held is None or held.ndim or shape is None or not node.outputs[0].name:
                continue
            total, part = shape[node.attributes.get_int("axis", 0)], int(held)
            if not isinstance(total, int) or part < 1 or total < 1:
                continue
            whole = [part] * (total // part) + [total % part] * (total % part > 0)
            node.replace_input_with(1, _constant(builder, node, np.array(whole, np.int64)))  # (2)
            modified = True
        return ir.passes.PassResult(model, modified)


class FitOpsetPass(ir.passes.InPlacePass):
    """Give the ops that the optimizer wrote the form of the model's opset.

    1. The sizes of Split, and the axes of Squeeze and Unsqueeze, are an attribute before opset 13:
       a constant input becomes one.
    2. Since then they are a vector: a constant without axes becomes a vector of one number.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        older = model.graph.opset_imports.get("", 0) < _AXES_ARE_INPUTS
        modified, builder = False, Builder(model)
        for op, name in _WAS_ATTRIBUTE.items():
            for node in _nodes(model, op):
                given = node.inputs[1] if len(node.inputs) > 1 else None
                held = None if given is None else _numbers(given)
                if held is None or (held.ndim and not older):
                    continue
                if older:
                    node.attributes.add(ir.AttrInt64s(name, held.ravel().tolist()))  # (1)
                    node.resize_inputs(1)
                else:
                    node.replace_input_with(1, _constant(builder, node, held.reshape(1)))  # (2)
                modified = True
        return ir.passes.PassResult(model, modified)


def _nodes(model: ir.Model, op: str) -> list[ir.Node]:
    nodes = ir.traversal.RecursiveGraphIterator(model.graph)
    return [node for node in nodes if node.op_type == op and node.domain == ""]


def _numbers(value: ir.Value) -> npt.NDArray[np.int64] | None:
    """The numbers of a constant that cannot be replaced at run time."""
    if value.is_graph_input() or value.const_value is None:
        return None
    return np.asarray(value.const_value.numpy(), np.int64)


def _constant(builder: Builder, node: ir.Node, values: npt.NDArray[np.int64]) -> ir.Value:
    assert isinstance(node.graph, ir.Graph)
    what = "sizes" if "plit" in node.op_type else "axes"
    return builder.constant(node.graph, f"{node.outputs[0].name}_{what}", values)
