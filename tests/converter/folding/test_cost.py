"""A fold never makes a graph dearer: not in nodes, not in multiply-adds, not in bytes.

Bytes may grow by what is new and has to be somewhere: a bias where none was (a number for
each output channel and its name), the copy of a constant that others keep reading, and a number
for each channel where one for all of them was added.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from hypothesis import event, given

from converter.evaluation.normalize import normalize
from converter.files.onnx_file import encode
from converter.folding import fold_graph
from converter.graph.cost import cost_of
from patterns.graphs import Graph, fold
from tests.converter.folding.random_graphs import models

# A tensor's head and a name, in the node and in the list of initializers; an Add node.
OVERHEAD = 250


def size(model: ir.Model) -> int:
    return sum(len(part) for part in encode(model))


def constants(model: ir.Model) -> dict[str, ir.Value]:
    return {
        name: value
        for graph in (model.graph, *model.graph.subgraphs())
        for name, value in graph.initializers.items()
    }


def allowance(before: ir.Model, after: ir.Model) -> int:
    """The bytes of constants with a name that was not there, and those by which an operand has
    grown from one number to one for each channel; no matrix may grow."""
    known, allowed = constants(before), 0
    for name, value in constants(after).items():
        now = value.const_value
        was = known[name].const_value if name in known else None
        assert now is not None
        if was is None:
            allowed += now.nbytes + OVERHEAD
        elif max((1, *now.shape.numpy())) == now.size:
            allowed += max(0, now.nbytes - was.nbytes + 4)
    return allowed


@given(models())
def test_never_dearer(model: ir.Model) -> None:
    before = normalize(model)
    folded = fold_graph(before)
    old, new = cost_of(before), cost_of(folded.model)
    assert new.nodes <= old.nodes
    event("multiply-adds are known" if old.multiply_adds is not None else "a shape is unknown")
    if old.multiply_adds is not None:
        assert new.multiply_adds is not None
        assert new.multiply_adds <= old.multiply_adds
    assert set(new.uncounted) <= set(old.uncounted)
    assert size(folded.model) <= size(before) + allowance(before, folded.model)
    if not folded.plan.applied and not folded.plan.merges:
        assert (new, size(folded.model)) == (old, size(before))


def test_a_fold_without_a_bias_before_takes_three_vectors_off() -> None:
    g = Graph("float32")
    g.output(g.bn(g.op("Conv", g.input("x", "N", 3, 9, 9), g.weight(64, 3, 3, 3)), 64))
    before = normalize(g.model())
    after = fold(g).model
    assert cost_of(before).multiply_adds == 7 * 7 * 64 * (27 + 1)
    assert cost_of(after).multiply_adds == 7 * 7 * 64 * 27
    assert 0 <= size(before) - size(after) - 3 * 64 * 4 < 3 * OVERHEAD


def test_branches_that_become_one_are_cheaper() -> None:
    g = Graph("float32")
    x = g.input("x", "N", 4, 8, 8)
    three = g.bn(g.op("Conv", x, g.weight(4, 4, 3, 3), pads=[1, 1, 1, 1]), 4)
    one = g.bn(g.op("Conv", x, g.weight(4, 4, 1, 1)), 4)
    g.output(g.op("Add", g.op("Add", three, one), g.bn(x, 4)))
    before, after = normalize(g.model()), fold(g).model
    pixels = 64 * 4
    assert cost_of(before).multiply_adds == pixels * (36 + 4 + 3 + 2)
    assert cost_of(after).multiply_adds == pixels * 36
    assert cost_of(before).nodes - cost_of(after).nodes == 6
    assert size(after) < size(before)


def test_a_constant_that_is_not_read_any_more_is_not_kept() -> None:
    g = Graph("float32")
    g.output(g.bn(g.op("Conv", g.input("x", "N", 3, 9, 9), g.weight(64, 3, 3, 3)), 64))
    assert {np.size(v.const_value) for v in constants(fold(g).model).values()} == {64 * 27, 64}
