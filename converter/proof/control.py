"""The parts of a graph that run only sometimes: the branches of If, the bodies of Loop and Scan.

A proof by inputs covers only what ran on them. So each such body has a name, which is its path from
the main graph: `If y: then_branch`. They come in the order in which the graph holds them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from converter.evaluation.oracle import read_by
from converter.graph.naming import label

BRANCHES = {"If": ("then_branch", "else_branch"), "Loop": ("body",), "Scan": ("body",)}
# Ops that return how large a value is, not what it holds.
_SIZES = frozenset({"Shape", "Size"})


@dataclass(frozen=True, eq=False)
class Body:
    """A subgraph that may run or not.

    Attributes:
        node: the If, Loop or Scan that holds it.
        branch: `then_branch`, `else_branch` or `body`.
        outer: the bodies around it, from the outside in.
        dead: its If has a condition that no input changes and that chooses the other branch, or it
            lies inside such a branch; set by `Recorder`.
    """

    node: ir.Node
    branch: str
    outer: tuple[Body, ...] = ()

    @property
    def graph(self) -> ir.Graph:
        return self.node.attributes[self.branch].as_graph()

    @property
    def key(self) -> tuple[str, str]:
        """A key that is the same for this body in another graph with the same names."""
        return next((v.name for v in self.node.outputs if v.name), ""), self.branch

    @property
    def name(self) -> str:
        """ "then_branch of If y" """
        return f"{self.branch} of {label(self.node)}"


def bodies(graph: ir.Graph, outer: tuple[Body, ...] = ()) -> Iterator[Body]:
    """Every body of a graph, outer ones first, in the order of the nodes."""
    for node in graph:
        for branch in BRANCHES.get(node.op_type, ()) if node.domain == "" else ():
            if branch not in node.attributes:
                continue
            body = Body(node, branch, outer)
            yield body
            yield from bodies(body.graph, (*outer, body))


def pairs(
    originals: Sequence[Body], candidates: Sequence[Body]
) -> tuple[list[tuple[Body, Body]], list[Body]]:
    """The bodies of two graphs that correspond to each other, and those without a counterpart.

    They are matched by the names of their outputs; where the graphs have different names, by their
    order, if both hold equally many of the same kinds.
    """
    by_key = {body.key: body for body in candidates}
    if len(by_key) == len(candidates) and all(body.key in by_key for body in originals):
        found = [(body, by_key[body.key]) for body in originals]
    elif [_kind(b) for b in originals] == [_kind(b) for b in candidates]:
        found = list(zip(originals, candidates, strict=True))
    else:
        found = [(body, by_key[body.key]) for body in originals if body.key in by_key]
    told = {id(body) for pair in found for body in pair}
    return found, [b for b in (*originals, *candidates) if id(b) not in told]


def _kind(body: Body) -> tuple[str, str, int]:
    return body.node.op_type, body.branch, len(body.outer)


def captured(graph: ir.Graph) -> list[ir.Value]:
    """The outer values that a body reads, each once."""
    inside = {*graph.inputs, *graph.initializers.values()}
    found: dict[ir.Value, None] = {}
    for node in graph:
        found.update(dict.fromkeys(value for value in read_by(node) if value not in inside))
        inside.update(node.outputs)
    found.update(dict.fromkeys(value for value in graph.outputs if value not in inside))
    return list(found)


def fixed(value: ir.Value | None, formal: frozenset[ir.Value]) -> bool:
    """Whether neither an input of the graph nor an iteration of a loop can change a value.

    Args:
        formal: inputs of the graph and of the bodies around.
    """
    seen: set[ir.Value] = set()
    waiting = [value]
    while waiting:
        value = waiting.pop()
        if value is None or value in seen or value.const_value is not None:
            continue
        seen.add(value)
        node = value.producer()
        if value in formal or node is None:
            return False
        if node.op_type in _SIZES and node.domain == "":
            if not _fixed_shape(node.inputs[0]):
                return False
            continue
        if _RANDOM.get(node.op_type) or any(
            attribute.type in {ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS}
            for attribute in node.attributes.values()
        ):
            return False
        waiting += node.inputs
    return True


def _fixed_shape(value: ir.Value | None) -> bool:
    if value is None or value.const_value is not None:
        return True
    node = value.producer()
    if node is not None and node.domain == "" and node.op_type == "Shape":
        return True  # as long as its input has axes
    return value.shape is not None and all(isinstance(dim, int) for dim in value.shape)


# Ops that draw random numbers: two runs of the same graph give different results.
_RANDOM = dict.fromkeys(
    ("RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Bernoulli",
     "Multinomial"),
    True,
)  # fmt: skip


def draws_numbers(node: ir.Node) -> bool:
    """Whether a node gives other numbers in each run: the Random ops, and Dropout in training."""
    if node.domain != "":
        return False
    if node.op_type == "Dropout" and len(node.inputs) > 2 and node.inputs[2] is not None:
        training = node.inputs[2].const_value
        return training is None or bool(training.numpy().any())
    return node.op_type in _RANDOM


def random_outputs(graph: ir.Graph) -> dict[str, list[ir.Node]]:
    """The outputs that depend on numbers drawn by the graph itself, and the nodes that draw."""
    found = {}
    for output in graph.outputs:
        nodes = [node for node in _behind(output) if draws_numbers(node)]
        if nodes:
            found[output.name or ""] = nodes
    return found


def _behind(output: ir.Value) -> Iterator[ir.Node]:
    """Every node that a value depends on, including those of bodies."""
    seen: set[ir.Node] = set()
    waiting: list[ir.Value | None] = [output]
    while waiting:
        value = waiting.pop()
        node = value.producer() if value is not None else None
        if node is None or node in seen:
            continue
        seen.add(node)
        yield node
        if node.domain == "" and node.op_type in _SIZES:
            continue
        waiting += node.inputs
        for attribute in node.attributes.values():
            if attribute.type == ir.AttributeType.GRAPH:
                inner = attribute.as_graph()
                waiting += list(inner.outputs)
                waiting += [v for n in inner.all_nodes() for v in n.inputs]
