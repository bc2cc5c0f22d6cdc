"""Functions of a file: their bodies are put where they are called, if that is known to be small."""

from __future__ import annotations

from functools import cache

import onnx_ir as ir
from onnx_ir.passes import common

from converter.certificate.signature import DEFAULT
from converter.certificate.verdict import Doubt

# Nodes of a graph with the bodies of its functions in it. A function that calls another one twice
# doubles what that one doubled.
MOST_NODES = 1_000_000


def inlined(model: ir.Model) -> ir.Model:
    """The same model, or a copy of it without functions.

    Raises:
        Doubt: one is named as an op of the standard is, calls itself, or they grow too large.
    """
    if not model.functions:
        return model
    for domain, name, _ in model.functions:
        if domain in DEFAULT:
            raise Doubt(f"a function of the file is named as the op {name!r} is")
    if (size := _size(model)) > MOST_NODES:
        raise Doubt(f"with its functions put in, the graph has {size:,} nodes, which is too many")
    model = model.clone()
    common.InlinePass()(model)
    return model


def _size(model: ir.Model) -> int:
    calling: list[ir.OperatorIdentifier] = []

    @cache
    def of_function(key: ir.OperatorIdentifier) -> int:
        if key in calling:
            raise Doubt(f"the function {key[1]!r} calls itself")
        calling.append(key)
        found = of(model.functions[key])
        calling.pop()
        return found

    def of(body: ir.Graph | ir.Function) -> int:
        total = 0
        for node in ir.traversal.RecursiveGraphIterator(body):
            key = node.op_identifier()
            total += of_function(key) if key in model.functions else 1
        return total

    return of(model.graph)
