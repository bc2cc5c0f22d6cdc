"""Take a node out of a graph."""

from __future__ import annotations

import onnx_ir as ir


def bypass(node: ir.Node, source: ir.Value) -> None:
    """Remove `node`: readers of its result read `source`, which takes over an output's name.

    A result of the graph keeps its declared shape, on which people and servers rely. A body of an
    If or Loop cannot return a value from outside: there an Identity replaces `node`.
    """
    result, graph = node.outputs[0], node.graph
    assert graph is not None
    leaves = result.is_graph_output()
    producer = source.producer()
    if leaves and producer is not None and producer.graph is not graph:
        node.op_type = "Identity"
        node.attributes.clear()
        node.resize_inputs(1)
        node.replace_input_with(0, source)
        return
    if source.shape is None or (leaves and result.shape is not None):
        source.shape = result.shape
    if source.type is None:
        source.type = result.type
    result.replace_all_uses_with(source, replace_graph_outputs=True)
    graph.remove(node, safe=True)
    if leaves:
        name, result.name = result.name, None
        source.name = name
