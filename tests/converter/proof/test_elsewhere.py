"""Models that do not run on the usual inputs."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from converter.evaluation.normalize import normalize
from converter.proof import verify
from converter.sources.inputs import describe
from patterns.graphs import Graph
from tests.converter.proof.test_verify import changed, folded, prove


def by_four() -> ir.Model:
    """As ICLabelNet does: the batch is folded by four on the way."""
    g = Graph("float32")
    y = g.bn(g.op("Gemm", g.input("x", "N", 3), g.weight(3, 5, name="w")), 5)
    y = g.op("Reshape", y, g.const(np.array([4, -1])))
    g.output(g.op("Reshape", y, g.const(np.array([-1, 5]))), shape=["N", 5])
    return g.model()


def test_a_batch_that_must_be_a_multiple_of_four() -> None:
    """Rows of 5 numbers: no batch of 1, 2 or 5 has a multiple of four of them."""
    model = by_four()
    proof = prove(model)
    assert proof.passed
    assert {m.inputs for m in proof.measurements} >= {"batch 4", "batch 8", "batch 16"}
    assert not proof.batch_invariant
    assert any("could not be used: batch 1, batch 2, batch 5" in note for note in proof.notes)
    assert not prove(model, changed(folded(model), "w", lambda w: w * 1.1)).passed


def test_a_picture_that_must_be_larger() -> None:
    g = Graph("float32")
    y = g.op("Conv", g.input("x", "N", 1, "h", 8), g.weight(2, 1, 20, 3, name="w"))
    g.output(g.bn(y, 2), shape=["N", 2, "a", 6])
    model = g.model()
    original = normalize(model)
    inputs = describe(model, {"h": 8})
    proof = verify(model, original, folded(model), inputs)
    assert proof.passed
    assert all("axis h = 32" in m.inputs for m in proof.measurements)
    wrong = changed(folded(model), "w", lambda w: w * 1.1)
    assert not verify(model, original, wrong, inputs).passed


def test_your_data_count_where_no_random_input_runs() -> None:
    """Numbers that only the user knows: a Reshape to what an input says."""
    g = Graph("float32")
    x = g.input("x", "N", 6)
    y = g.op("MatMul", g.op("Reshape", x, g.input("shape", 2, dtype="int64")),
             g.weight(3, 2, name="w"))  # fmt: skip
    g.output(y, shape=["a", 2])
    model = g.model()
    wrong = changed(normalize(model), "w", lambda w: w * 1.01)
    data = {"x": np.ones((2, 6), np.float32), "shape": np.array([4, 3])}
    assert "does not run" in prove(model, wrong, dynamic_batch=False).failure
    assert prove(model, wrong, dynamic_batch=False, data=data).verdict == "differs"
    right = prove(model, normalize(model), dynamic_batch=False, data=data)
    assert right.passed
    assert right.truth
