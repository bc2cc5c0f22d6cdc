"""Remove nodes that return what they read."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from converter.graph.rewiring import bypass
from converter.graph.values import is_constant, numbers, shape_of, size_of

# The operand that leaves the other one unchanged.
_NEUTRAL = {"Add": 0.0, "Sub": 0.0, "Mul": 1.0, "Div": 1.0}


class DropIdentitiesPass(ir.passes.InPlacePass):
    """Remove Identity nodes, except where two names are needed for one value.

    1. Nodes inside a graph may read the source instead.
    2. A result of a graph may take over its source's node only if the source is computed in the
       same graph and is not a result itself: a body must not return a value from outside.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        modified = False
        for node in tuple(ir.traversal.RecursiveGraphIterator(model.graph)):
            source = node.inputs[0] if node.inputs else None
            if node.op_type != "Identity" or node.domain != "" or source is None:
                continue
            result, graph = node.outputs[0], node.graph
            producer = source.producer()
            if result.is_graph_output() and (  # (2)
                producer is None or producer.graph is not graph or source.is_graph_output()
            ):
                continue
            bypass(node, source)
            modified = True
        return ir.passes.PassResult(model, modified)


class DropNeutralPass(ir.passes.InPlacePass):
    """Remove x + 0, x - 0, x * 1 and x / 1: a sum in Python starts with 0, and a scale that is left
    out is written as 1. It is legal when

    1. the operand is a constant of floats, all of them neutral,
    2. it does not enlarge x: a single number, or the result has x's shape; of x's rank at most,
    3. the result is not an output of the graph, whose name would be lost.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        modified = False
        for node in tuple(ir.traversal.RecursiveGraphIterator(model.graph)):
            if node.op_type not in _NEUTRAL or node.domain != "" or len(node.inputs) != 2:
                continue
            for place in (0, 1) if node.op_type in {"Add", "Mul"} else (1,):
                held, data = node.inputs[place], node.inputs[1 - place]
                if held is not None and data is not None and _changes_nothing(node, held, data):
                    bypass(node, data)
                    modified = True
                    break
        return ir.passes.PassResult(model, modified)


def _changes_nothing(node: ir.Node, held: ir.Value, data: ir.Value) -> bool:
    result = node.outputs[0]
    return (
        is_constant(held)  # (1)
        and held.dtype is not None
        and held.dtype.is_floating_point()
        and (size_of(held) == 1 or shape_of(data) == shape_of(result) is not None)  # (2)
        and len(shape_of(held) or ()) <= len(shape_of(data) or ())
        and not result.is_graph_output()  # (3)
        and bool(np.all(numbers(held) == _NEUTRAL[node.op_type]))
    )
