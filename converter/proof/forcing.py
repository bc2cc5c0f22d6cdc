"""Run bodies that no input reaches, by replacing conditions with constants in both graphs alike.

A forced branch reads what it would read, because everything around it is computed as usual. So maps
that were folded across its border take effect, which they do not for a body that is taken out and
run alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from converter.evaluation.oracle import Array
from converter.graph.building import Builder
from converter.proof.control import Body, bodies

# Iterations of a forced Loop; its own condition may end it sooner.
TURNS = 2


def forced(model: ir.Model, body: Body, among: Sequence[Body]) -> ir.Model | None:
    """A copy of a graph in which a body runs; None if that cannot be forced.

    Args:
        body: which of `among`.
        among: all bodies of `model`, in order.
    """
    copy = model.clone()
    inside = list(bodies(copy.graph))
    if len(inside) != len(among):
        return None
    places = {id(original): place for place, original in enumerate(among)}
    for wanted in (*body.outer, body):
        node = inside[places[id(wanted)]].node
        if node.op_type == "If":
            _set(copy, node, 0, np.asarray(wanted.branch == "then_branch"))
        elif node.op_type == "Loop":
            if node.inputs[0] is not None or len(node.inputs) < 2:
                _set(copy, node, 0, np.asarray(TURNS, np.int64))
            if len(node.inputs) > 1 and node.inputs[1] is not None:
                _set(copy, node, 1, np.asarray(True))
        else:  # a Scan runs once for each element of its input
            return None
    return copy


def _set(model: ir.Model, node: ir.Node, place: int, number: Array) -> None:
    old = node.inputs[place]
    if old is not None and old.shape is not None and all(isinstance(n, int) for n in old.shape):
        number = np.broadcast_to(number, [int(str(n)) for n in old.shape]).copy()
    node.replace_input_with(place, Builder(model).constant(model.graph, "forced", number))
