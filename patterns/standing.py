"""How many batch-norms stand in a graph: measured on any graph, ours or another tool's.

Counted are the BatchNormalization nodes, and each chain of Mul, Add, Sub and Div by constants
as one: that is what a batch-norm is that was written in single ops, and what remains of one
whose scale was folded and whose shift was not. A lone Add behind a MatMul is its bias.
"""

from __future__ import annotations

import onnx_ir as ir

ELEMENTWISE = frozenset({"Mul", "Add", "Sub", "Div"})


def standing(model: ir.Model) -> int:
    """BatchNormalization nodes and chains of constant elementwise ops, subgraphs included."""
    nodes = list(ir.traversal.RecursiveGraphIterator(model.graph))
    norms = sum(node.op_type == "BatchNormalization" and node.domain == "" for node in nodes)
    return norms + sum(1 for chain in _chains(nodes) if not _is_bias(chain))


def _chains(nodes: list[ir.Node]) -> list[list[ir.Node]]:
    """In the order of the nodes, each chain from its first op on."""
    chains: list[list[ir.Node]] = []
    chain_of: dict[ir.Node, list[ir.Node]] = {}
    for node in nodes:
        source = _data(node)
        if source is None:
            continue
        producer = source.producer()
        chain = chain_of.get(producer) if producer is not None else None
        if chain is None:
            chain = []
            chains.append(chain)
        chain.append(node)
        chain_of[node] = chain
    return chains


def _data(node: ir.Node) -> ir.Value | None:
    """The computed operand of a Mul, Add, .. whose other operand is a constant."""
    if node.op_type not in ELEMENTWISE or node.domain != "":
        return None
    known = [_constant(value) for value in node.inputs]
    if known.count(True) != 1 or node.inputs[0] is None:
        return None
    if node.op_type == "Div" and known[0]:
        return None  # c / x is no scale
    source = node.inputs[1 - known.index(True)]
    if source is None or source.dtype is None or not source.dtype.is_floating_point():
        return None
    return source


def _constant(value: ir.Value | None) -> bool:
    if value is None:
        return False
    producer = value.producer()
    made = producer is not None and producer.op_type == "Constant"
    return made or (value.is_initializer() and not value.is_graph_input())


def _is_bias(chain: list[ir.Node]) -> bool:
    source = _data(chain[0])
    producer = None if source is None else source.producer()
    return (
        len(chain) == 1
        and chain[0].op_type == "Add"
        and producer is not None
        and producer.op_type == "MatMul"
    )
