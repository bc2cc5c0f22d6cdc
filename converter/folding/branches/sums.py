"""Sums in a graph: trees of Add, Sub and Sum nodes, seen as terms with signs.

Sub(Add(u, v), Sum(w, z))  =  u + v - w - z
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from converter.folding.view import View
from converter.graph.rewiring import bypass


@dataclass(frozen=True, eq=False)
class Term:
    """One summand: what `node` of the sum reads as its input `index`, and its sign in the sum."""

    node: ir.Node
    index: int
    sign: int

    @property
    def value(self) -> ir.Value:
        value = self.node.inputs[self.index]
        assert value is not None
        return value


@dataclass(frozen=True, eq=False)
class Sum:
    """A sum.

    Attributes:
        root: the node that gives its result.
        nodes: all nodes of the tree, each before those that it reads.
        terms: the summands, in order.
    """

    root: ir.Node
    nodes: tuple[ir.Node, ...]
    terms: tuple[Term, ...]


def find_sums(graph: ir.Graph, maps: Container[ir.Node], view: View) -> Iterator[Sum]:
    """The largest sums of one graph. A node of `maps` is a scale and shift, not part of a sum."""
    for node in graph:
        if _signs(node, maps, view) and not _inside(node, maps, view):
            yield _sum(node, maps, view)


def _signs(node: ir.Node | None, maps: Container[ir.Node], view: View) -> tuple[int, ...]:
    """The signs of a node's inputs; empty if it is not part of a sum."""
    if node is None or node.domain != "" or node in maps or view.is_folded(node):
        return ()
    if any(value is None for value in node.inputs):
        return ()
    if node.op_type == "Sub":
        return (1, -1)
    added = {"Add", "Sum"} if view.broadcasts else {"Add"}
    return (1,) * len(node.inputs) if node.op_type in added else ()


def _inside(node: ir.Node, maps: Container[ir.Node], view: View) -> bool:
    value = node.outputs[0]
    readers = view.readers(value)
    return bool(readers) and private(value, view) and bool(_signs(readers[0], maps, view))


def private(value: ir.Value, view: View) -> bool:
    """Whether a single node of the same graph reads the value, its shape included."""
    producer = view.producer(value)
    if producer is None or view.is_graph_output(view.origin(value)):
        return False
    uses = tuple(view.origin(value).uses())
    while len(uses) == 1 and view.is_folded(uses[0].node):
        uses = tuple(uses[0].node.outputs[0].uses())
    return len(uses) == 1 and uses[0].node.graph is producer.graph


def _sum(root: ir.Node, maps: Container[ir.Node], view: View) -> Sum:
    nodes, terms = [root], list[Term]()
    waiting = _terms(root, 1, maps, view)
    while waiting:
        term = waiting.pop(0)
        inner = view.producer(term.value)
        if inner is not None and _signs(inner, maps, view) and private(term.value, view):
            nodes.append(inner)
            waiting = _terms(inner, term.sign, maps, view) + waiting
        else:
            terms.append(term)
    return Sum(root, tuple(nodes), tuple(terms))


def _terms(node: ir.Node, sign: int, maps: Container[ir.Node], view: View) -> list[Term]:
    signs = _signs(node, maps, view)
    return [Term(node, index, sign * factor) for index, factor in enumerate(signs)]


def write_anew(total: Sum, positive: Container[Term], gone: Container[Term]) -> None:
    """Replace a sum by the sum of the terms that are left; those in `positive` now have the sign +.

    The positive terms are added, then the negative ones subtracted, by a Sum node only where
    there was one, so that there are no more nodes than before: without a Sum, one less than there
    are terms; with it, one for the positive terms, one for the negative ones, and one for both.
    """
    left = [term for term in total.terms if term not in gone]
    signs = [1 if term in positive else term.sign for term in left]
    plus, minus = (
        [term.value for term, sign in zip(left, signs, strict=True) if sign == wanted]
        for wanted in (1, -1)
    )
    names = [node.name for node in total.nodes]
    result = _joined(total, plus, names)
    if minus:
        result = _node(total, "Sub", [result, _joined(total, minus, names)], names)
    bypass(total.root, result)
    for node in total.nodes[1:]:
        assert node.graph is not None
        node.graph.remove(node, safe=True)


def _joined(total: Sum, values: Sequence[ir.Value], names: list[str | None]) -> ir.Value:
    if len(values) > 2 and any(node.op_type == "Sum" for node in total.nodes):
        return _node(total, "Sum", values, names)
    result = values[0]
    for value in values[1:]:
        result = _node(total, "Add", [result, value], names)
    return result


def _node(total: Sum, op: str, values: Sequence[ir.Value], names: list[str | None]) -> ir.Value:
    root = total.root
    node = ir.Node("", op, values, name=names.pop())
    node.metadata_props.update(root.metadata_props)
    result, before = node.outputs[0], root.outputs[0]
    result.type = before.type
    if all(value.shape is not None and value.shape == values[0].shape for value in values):
        result.shape = values[0].shape
    assert isinstance(root.graph, ir.Graph)
    root.graph.insert_before(root, node)
    return result
