"""The forms of ops that the model's own opset has.

onnxscript's optimizer rewrites some ops of sequences into the forms of the newest opset. Before it
runs, `prepare` writes them so that what it makes of them is right; afterwards, `settle` gives its
ops the form that they had in older opsets (onnx/docs/Changelog.md):

    SplitToSequence   `keepdims` counts only without sizes (SplitToSequence-11); equal sizes are
                      written out, as Split has `num_outputs` since 18
    Split             sizes are an attribute before 13
    Squeeze, Unsqueeze   axes are an attribute before 13, and a vector since
"""

from __future__ import annotations

from itertools import count

import numpy as np
import onnx_ir as ir

_AXES_ARE_INPUTS = 13
_WAS_ATTRIBUTE = {"Split": "split", "Squeeze": "axes", "Unsqueeze": "axes"}


def prepare(model: ir.Model) -> None:
    """Write each SplitToSequence with its sizes, in place, where they are known."""
    for node in _nodes(model, "SplitToSequence"):
        sizes = node.inputs[1] if len(node.inputs) > 1 else None
        if sizes is None:
            continue
        node.attributes.pop("keepdims", None)
        source, held = node.inputs[0], _numbers(sizes)
        shape = None if source is None else source.shape
        if held is None or held.ndim or shape is None or not node.outputs[0].name:
            continue
        axis = node.attributes.get("axis")
        total, part = shape[0 if axis is None else axis.as_int()], int(held)
        if not isinstance(total, int) or part < 1 or total < 1:
            continue
        whole = [part] * (total // part) + [total % part] * (total % part > 0)
        node.replace_input_with(1, _initializer(model, node, np.array(whole, np.int64)))


def settle(model: ir.Model) -> None:
    """Give the ops that were written the form of the model's opset, in place."""
    older = model.graph.opset_imports.get("", 0) < _AXES_ARE_INPUTS
    for op, name in _WAS_ATTRIBUTE.items():
        for node in _nodes(model, op):
            given = node.inputs[1] if len(node.inputs) > 1 else None
            held = None if given is None else _numbers(given)
            if held is None:
                continue
            if older:
                node.attributes.add(ir.AttrInt64s(name, [int(n) for n in held.ravel()]))
                node.resize_inputs(1)
            elif held.ndim == 0:
                node.replace_input_with(1, _initializer(model, node, held.reshape(1)))


def _nodes(model: ir.Model, op: str) -> list[ir.Node]:
    nodes = ir.traversal.RecursiveGraphIterator(model.graph)
    return [node for node in nodes if node.op_type == op and node.domain == ""]


def _numbers(value: ir.Value) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]] | None:
    """Of a constant that nobody may replace."""
    if value.is_graph_input() or value.const_value is None:
        return None
    return np.asarray(value.const_value.numpy(), np.int64)


def _initializer(
    model: ir.Model, node: ir.Node, values: np.ndarray[tuple[int, ...], np.dtype[np.int64]]
) -> ir.Value:
    taken = {name for graph in _graphs(model) for name in graph.initializers}
    stem = f"{node.outputs[0].name}_{'sizes' if 'plit' in node.op_type else 'axes'}"
    name = next(n for i in count(1) if (n := stem if i == 1 else f"{stem}_{i}") not in taken)
    tensor = ir.tensor(values, name=name)
    value = ir.Value(
        name=name,
        shape=ir.Shape(values.shape),
        type=ir.TensorType(ir.DataType.INT64),
        const_value=tensor,
    )
    assert isinstance(node.graph, ir.Graph)
    node.graph.register_initializer(value)
    return value


def _graphs(model: ir.Model) -> list[ir.Graph]:
    return [model.graph, *model.graph.subgraphs()]
