"""A shift that a layer takes from the layer before it: known no better than the layer's factor."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from converter.evaluation.normalize import normalize
from converter.folding import FoldOptions, fold_graph
from patterns.graphs import Graph
from tests.converter.certificate.pairs import accepted, refused

CHANNELS = 40


def mixed(seed: int) -> ir.Model:
    """Two convolutions of halves, put together, with one batch-norm behind them: mixnet's."""
    g = Graph("float32", seed=seed)
    x = g.op("Conv", g.input("x", "N", 3, 4, 4), g.weight(CHANNELS, 3, 1, 1))
    halves = g.op("Split", g.bn(x, CHANNELS), axis=1, num_outputs=2, outputs=2)
    parts = [g.op("Conv", half, g.weight(12, CHANNELS // 2, 1, 1)) for half in halves]
    g.output(g.rename(g.op("Sigmoid", g.bn(g.op("Concat", *parts, axis=1), 24)), "y"))
    return g.model()


@pytest.mark.parametrize("seed", range(12))
def test_a_small_sum_of_large_shifts_is_known_as_well_as_these(seed: int) -> None:
    once = mixed(seed)
    folded = fold_graph(normalize(once), FoldOptions()).model
    assert not any(node.op_type == "BatchNormalization" for node in folded.graph)
    assert accepted(once, folded).largest_move <= 1.5
    # A number that is moved by more than roundings is found as before.
    first = next(node for node in folded.graph if node.op_type == "Conv")
    bias = first.inputs[2]
    assert bias is not None
    assert bias.const_value is not None
    bias.const_value = ir.tensor(bias.const_value.numpy() * np.float32(1.0001), name=bias.name)
    refused(once, folded)
