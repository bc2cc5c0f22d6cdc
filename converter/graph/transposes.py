"""Remove Transposes that undo each other: Conv -> NHWC -> Relu -> NCHW -> Conv needs none.

Frameworks with channels last export each op between two Transposes. Write T(u, p) for a Transpose
whose axis k is u's axis p[k]. Then

    T(T(u, p), q) = T(u, r) with r[k] = p[q[k]]       r = 0, 1, 2, .. is no Transpose
    f(T(u, p)) = T(f'(u), p)                          f elementwise; constants are transposed
                                                      once, by the inverse of p
    reduce, concatenate, pad, split, slice along axis k of T(u, p) = along axis p[k] of u

so a Transpose is moved from one op to the next, without being computed, until an op needs the
layout. This never costs more than before: the result is only taken when the Transposes that are
left move fewer numbers.
"""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common

from converter.graph.building import Builder
from converter.graph.rewiring import bypass
from converter.graph.transpose_rules import RULES, Perm, compose, inverse
from converter.graph.values import is_constant


class CancelTransposesPass(ir.passes.FunctionalPass):
    """Move Transposes down until they undo each other. The given model is not changed.

    1. An op takes its inputs without the Transpose if the table of `transpose_rules.py` has a rule
       for it, and the rule finds what it needs (known ranks; constant axes and paddings).
    2. The whole result is only taken when the Transposes that are left move fewer numbers.
    3. A model with bodies is left alone: they may read values whose layout changes.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        candidate = model.clone()
        if not any(n.op_type == "Transpose" for n in model.graph) or any(model.graph.subgraphs()):
            return ir.passes.PassResult(candidate, modified=False)  # (3)
        _Handing(candidate).run()
        common.RemoveUnusedNodesPass()(candidate)
        common.NameFixPass()(candidate)
        if _moved(candidate) < _moved(model):  # (2)
            return ir.passes.PassResult(candidate, modified=True)
        return ir.passes.PassResult(model.clone(), modified=False)


def _moved(model: ir.Model) -> tuple[int, int]:
    """How many numbers the Transposes of a graph move for one sample, and how many they are."""
    nodes = [node for node in model.graph if node.op_type == "Transpose"]
    shapes = [node.outputs[0].shape for node in nodes]
    numbers = sum(
        prod(dim if isinstance(dim, int) else 1 for dim in shape) for shape in shapes if shape
    )
    return numbers, len(nodes)


class _Handing:
    """Goes over the nodes in order, and moves each Transpose behind the op that reads it."""

    def __init__(self, model: ir.Model) -> None:
        self.graph = model.graph
        self._builder = Builder(model)

    def run(self) -> None:
        for node in tuple(self.graph):
            if node.domain == "" and node.op_type == "Transpose":
                self._compose(node)
            elif node.domain == "":
                self._hand_on(node)

    def source(self, value: ir.Value) -> tuple[ir.Value, Perm] | None:
        """(u, p) when the value is T(u, p)."""
        node = value.producer()
        if node is None or node.op_type != "Transpose" or node.domain != "":
            return None
        below = node.inputs[0]
        return (below, _perm(node)) if below is not None else None

    def _compose(self, node: ir.Node) -> None:
        """Let T(T(u, p), q) read u itself, or replace it by u."""
        below = node.inputs[0]
        found = self.source(below) if below is not None else None
        if found is None:
            return
        u, p = found
        perm = compose(p, _perm(node))
        node.replace_input_with(0, u)
        node.attributes["perm"] = ir.AttrInt64s("perm", perm)
        if perm != tuple(range(len(perm))):
            return
        # A result of the graph can only replace a computed value that is not a result itself.
        if not node.outputs[0].is_graph_output() or (u.producer() and not u.is_graph_output()):
            bypass(node, u)

    def transposed(self, value: ir.Value, perm: Perm, name: str) -> ir.Value:
        """T(value, perm), computed right behind the value."""
        out = ir.tape.Tape().op("Transpose", [value], {"perm": list(perm)})
        node, producer = out.producer(), value.producer()
        assert node is not None
        out.name, out.type = name, value.type
        if value.shape is not None:
            out.shape = ir.Shape([value.shape[k] for k in perm])
        if producer is None:
            self.graph.insert_before(next(iter(self.graph)), node)
        else:
            node.metadata_props.update(producer.metadata_props)
            self.graph.insert_after(producer, node)
        return out

    def _hand_on(self, node: ir.Node) -> None:
        """Let the node work on u instead of T(u, p), where its op has a rule."""
        rule = RULES.get(node.op_type)
        sources = [self.source(value) if value is not None else None for value in node.inputs]
        perm = next((found[1] for found in sources if found), None)
        if rule and perm:
            rule(self, node, perm)

    def feed(self, node: ir.Node, indices: range, p: Perm) -> bool:
        """Give the node its inputs in u's layout; False, changing nothing, where one cannot be."""
        fresh: dict[int, ir.Value] = {}
        pending: list[tuple[int, ir.Value, Perm]] = []
        for index in indices:
            value = node.inputs[index]
            if value is None:
                return False
            found = self.source(value)
            if found and found[1] == p:
                fresh[index] = found[0]
            elif found:
                pending.append((index, found[0], compose(found[1], inverse(p))))
            elif is_constant(value):
                fresh[index] = self._constant(value, p)
            elif value.shape is not None and len(value.shape) == len(p):
                pending.append((index, value, inverse(p)))
            else:
                return False
        for index, value, perm in pending:
            name = self._builder.name(f"{value.name}_transposed")
            fresh[index] = self.transposed(value, perm, name)
        for index, value in fresh.items():
            node.replace_input_with(index, value)
        return True

    def hand(self, value: ir.Value, p: Perm) -> None:
        """`value` now holds u where T(u, p) is meant: its readers get a Transpose of it."""
        if p == tuple(range(len(p))):
            return
        if value.shape is not None:
            value.shape = ir.Shape([value.shape[k] for k in inverse(p)])
        readers = tuple(value.uses())
        leaves = value.is_graph_output()
        name = str(value.name)
        if leaves:
            value.name = self._builder.name(f"{name}_inner")
        else:
            name = self._builder.name(f"{name}_transposed")
        meant = self.transposed(value, p, name)
        for node, index in readers:
            node.replace_input_with(index, meant)
        for index, output in enumerate(self.graph.outputs):
            if output is value:
                self.graph.outputs[index] = meant

    def _constant(self, value: ir.Value, p: Perm) -> ir.Value:
        """A constant operand in u's layout: ones in front up to the full rank, then transposed."""
        assert value.const_value is not None
        array = value.const_value.numpy()
        if array.size == 1 and array.ndim <= len(p):
            return value
        if array.ndim > len(p):
            raise AssertionError("an operand has a higher rank than the result")
        array = array.reshape((1,) * (len(p) - array.ndim) + array.shape).transpose(inverse(p))
        return self.initializer(np.ascontiguousarray(array), str(value.name))

    def initializer(self, array: np.ndarray[Any, Any], near: str) -> ir.Value:
        return self._builder.constant(self.graph, f"{near}_transposed", array)


def _perm(node: ir.Node) -> Perm:
    """The permutation; without the attribute the axes are reversed."""
    given = node.attributes.get_ints("perm", None)
    if given is not None:
        return tuple(given)
    value = node.inputs[0]
    assert value is not None
    assert value.shape is not None
    return tuple(range(len(value.shape)))[::-1]
