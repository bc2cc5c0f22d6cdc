"""The type in which an output was computed, which may be narrower than its declared type.

A model with float16 weights often takes and gives float32, with a Cast at either end. The unit
roundoff of float32 is then the wrong measure: the numbers were rounded to float16 on the way.
"""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

_ROUNDOFF = {ir.DataType.BFLOAT16: 2.0**-8, ir.DataType.FLOAT16: 2.0**-11}
# The declared types that can hide a narrower one.
_WIDER = frozenset({ir.DataType.FLOAT, ir.DataType.DOUBLE})


def narrower(model: ir.Model) -> dict[str, str]:
    """Outputs of float32 or float64 computed in half types: {output: the coarsest of them}."""
    reached: dict[ir.Node, set[ir.DataType]] = {}
    for node in model.graph:
        kinds = set(_halves(node))
        for value in _read(node):
            producer = value.producer()
            kinds |= reached.get(producer, set()) if producer is not None else set()
        reached[node] = kinds
    found: dict[str, str] = {}
    for value in model.graph.outputs:
        producer = value.producer()
        kinds = reached.get(producer, set()) if producer is not None else set()
        if kinds and value.name is not None and value.dtype in _WIDER:
            found[value.name] = max(kinds, key=_ROUNDOFF.__getitem__).name.lower()
    return found


def _read(node: ir.Node) -> Iterator[ir.Value]:
    """The values that a node and its bodies read."""
    yield from (value for value in node.inputs if value is not None)
    for inner in _inside(node):
        yield from _read(inner)


def _halves(node: ir.Node) -> Iterator[ir.DataType]:
    """Half types of the inputs and outputs of a node and of its bodies."""
    for value in (*node.inputs, *node.outputs):
        if value is not None and value.dtype in _ROUNDOFF:
            yield value.dtype
    for inner in _inside(node):
        yield from _halves(inner)


def _inside(node: ir.Node) -> Iterator[ir.Node]:
    for attribute in node.attributes.values():
        if attribute.type == ir.AttributeType.GRAPH:
            yield from attribute.as_graph()
        elif attribute.type == ir.AttributeType.GRAPHS:
            for graph in attribute.as_graphs():
                yield from graph
