"""Infer the shapes and types of a graph's values, as far as its ops determine them."""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes import common

# Ops whose results are not tensors, but sequences, optional values or maps.
_NO_TENSORS = frozenset(
    {"SequenceConstruct", "SequenceEmpty", "SequenceInsert", "SequenceErase", "SplitToSequence"}
    | {"SequenceMap", "Optional", "ZipMap"}
)


class InferShapesPass(ir.passes.InPlacePass):
    """Annotate the values of a model with types and shapes.

    Annotations compute nothing, so it is legal for every model:

    1. A shape or type that was inferred replaces the one that was there.
    2. onnx_ir merges only the element type that was inferred, so a sequence of floats without an
       annotation would become a tensor of floats. Its type is removed again: the op defines it.
    3. Where inference fails, nothing changes: errors are reported when the model runs.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        before = {value: value.type for value in _results(model)}
        infer = common.ShapeInferencePass(check_type=False, strict_mode=False)
        modified = infer(model).modified  # (1), (3)
        for node in ir.traversal.RecursiveGraphIterator(model.graph):
            for place, value in enumerate(node.outputs):
                if before.get(value) is not None or not _no_tensor(node, place):
                    continue
                value.type, value.shape = _type_in_body(node, place), None  # (2)
        return ir.passes.PassResult(model, modified)


def _results(model: ir.Model) -> list[ir.Value]:
    nodes = ir.traversal.RecursiveGraphIterator(model.graph)
    return [value for node in nodes for value in node.outputs]


def _no_tensor(node: ir.Node, place: int) -> bool:
    if node.op_type in _NO_TENSORS:
        return True
    if node.op_type == "Identity" and node.inputs[0] is not None:
        source = node.inputs[0]
        producer = source.producer()
        typed = source.type is not None and not isinstance(source.type, ir.TensorType)
        return typed or (producer is not None and _no_tensor(producer, source.index() or 0))
    found = _type_in_body(node, place)
    return found is not None and not isinstance(found, ir.TensorType)


def _type_in_body(node: ir.Node, place: int) -> ir.TypeProtocol | None:
    """The type that the body of an If or Loop declares for a result of the node."""
    attribute = node.attributes.get("then_branch") or node.attributes.get("body")
    if attribute is None or node.op_type not in {"If", "Loop"}:
        return None
    outputs = attribute.as_graph().outputs
    position = place + (node.op_type == "Loop")  # a body's first result is the condition
    return outputs[position].type if position < len(outputs) else None
