"""Inputs that tell nothing are no verdict; "differs" and "cannot tell" are two ends."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from converter.evaluation.normalize import normalize
from converter.proof import Measurement, Proof, verify
from converter.proof.conclusion import conclusion
from converter.proof.draws import STANDARD
from converter.proof.judging import Judgement
from converter.proof.measure import GROSS
from converter.proof.plan import ROWS, Plan
from converter.report.facts import EXIT_CODES
from converter.sources.inputs import describe
from patterns.graphs import Graph
from tests.converter.proof.test_verify import changed, folded, net, prove


def heatmap(bias: float, dtype: str = "float32", size: int | str = 16) -> ir.Model:
    """A detector's head: sigmoid numbers of e^bias on noise."""
    g = Graph(dtype, opset=17, seed=int(-bias))
    x = g.input("x", "b", 3, size, size)
    y = g.op("Conv", x, g.const(0.2 * g.rng.standard_normal((8, 3, 3, 3))), pads=[1] * 4)
    y = g.op("Relu", g.bn(y, 8, name="bn"))
    head = g.const(0.2 * g.rng.standard_normal((1, 8, 1, 1)), "head.weight")
    y = g.op("Sigmoid", g.op("Conv", y, head, g.const(np.array([bias]), "head.bias")))
    g.rename(y, "y")
    g.output("y", shape=["b", 1, size, size])
    return g.model()


@pytest.mark.parametrize("bias", [-12.0, -14.0, -16.0, -20.0])
def test_a_head_that_is_silent_on_noise(bias: float) -> None:
    model = heatmap(bias)
    proof = prove(model)
    assert proof.verdict == "equal"
    assert proof.passed
    blunt = [m for m in proof.measurements if m.unmeasured or not m.sharp]
    assert blunt, "standard normal numbers tell nothing of it"
    telling = [m for m in proof.measurements if m.passed and m.sharp]
    assert telling
    assert proof.sampled == telling[0].inputs, "nor would a self-test of them"
    assert proof.batch_invariant


@pytest.mark.parametrize("name", ["head.bias", "head.weight"])
@pytest.mark.parametrize("bias", [-12.0, -14.0, -20.0])
def test_a_wrong_fold_of_it_is_found(name: str, bias: float) -> None:
    model = heatmap(bias)
    proof = prove(model, changed(folded(model), name, lambda w: w * 1.02))
    assert proof.verdict == "differs"
    assert "differs" in conclusion(proof)


def test_data_that_tell_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("converter.proof.draws.KINDS", ())
    model = heatmap(-14.0)
    silent = prove(model)
    assert silent.verdict == "unmeasured"
    assert silent.unmeasured == ("y",)
    assert not silent.passed
    assert EXIT_CODES[silent.verdict] == 3
    assert "not refuted" in conclusion(silent)
    assert "'y'" in conclusion(silent)
    assert "--data" in conclusion(silent)
    x = 40 * np.random.default_rng(0).standard_normal((3, 3, 16, 16))
    data = {"x": x.astype(np.float32)}
    assert prove(model, data=data).verdict == "equal"
    wrong = changed(folded(model), "head.weight", lambda w: w * 1.02)
    assert prove(model, wrong, data=data).verdict == "differs"
    # What the original cannot tell either is no excuse for what is far beyond it.
    assert prove(model, changed(folded(model), "head.bias", lambda w: w / 2)).verdict == "differs"


def test_nothing_is_proven_of_what_no_input_tells() -> None:
    """Numbers that the original itself computes with an error of its own size, on any input."""
    g = Graph("float32")
    x = g.op("Mul", g.input("x", "N", 9), g.const(1e-9, "tiny"))
    g.output(g.op("Sub", g.op("Add", x, g.const(1.0)), g.const(1.0)), shape=["N", 9])
    model = g.model()
    proof = prove(model, changed(normalize(model), "tiny", lambda tiny: tiny * 1.01))
    assert proof.verdict == "unmeasured"
    assert len({m.inputs for m in proof.measurements}) > 9, "other kinds were tried"


def test_larger_pictures_are_tried() -> None:
    """Open axes: a head that only answers to pictures of more than 8 columns."""
    g = Graph("float32")
    x = g.input("x", "N", 1, 1, "w")
    right = g.op("Slice", x, *(g.const(np.array([n])) for n in (8, 10**6, 3)))
    y = g.op("ReduceSum", right, g.const(np.array([1, 2, 3])), keepdims=0)
    g.output(g.op("Mul", y, g.const(2.0)), shape=["N"])
    model = g.model()
    inputs = describe(model, {"w": 8})
    proof = verify(model, normalize(model), normalize(model), inputs)
    assert any("twice the size" in m.inputs and m.magnitude > 0 for m in proof.measurements)
    assert proof.passed


def test_an_output_of_zeros_is_told() -> None:
    g = Graph("float32")
    g.output(g.op("Relu", g.op("Sub", g.input("x", "N", 3), g.const(1e6))), shape=["N", 3])
    proof = prove(g.model())
    assert proof.passed
    assert any("0 on all inputs" in note for note in proof.notes)


def judgement(candidate: float, allowed: float = 1.0, **more: Any) -> Judgement:
    m = Measurement("y", "batch 1", 1.0, 0.5, candidate, allowed, **more)
    return Judgement((m,), (), ())


@pytest.mark.parametrize(("times", "gross"), [(0.999, False), (1.001, True)])
def test_what_is_far_beyond_is_no_luck(times: float, gross: bool) -> None:
    assert GROSS == 16.0
    assert judgement(GROSS * times).gross is gross
    assert not judgement(GROSS * times, scant=True).gross


def test_more_is_drawn_while_it_may_be_luck() -> None:
    assert ROWS == (16, 32)
    model = heatmap(-1.0)
    inputs = describe(model)
    first = prove(model)
    trials = _trials(first)
    plan = Plan(inputs, True, 0, [STANDARD])
    rounds = [plan.next(judgement(2.0), trials, ["y"]) for _ in range(3)]
    assert [sum(len(case.feeds["x"]) for case in cases) for cases in rounds] == [20, 35, 0]
    names = [case.name for cases in rounds for case in cases]
    assert len(set(names)) == len(names)
    bytes_ = {case.feeds["x"].tobytes() for cases in rounds for case in cases}
    assert len(bytes_) == len(names), "other numbers each time"
    assert Plan(inputs, True, 0, [STANDARD]).next(judgement(GROSS + 1), trials, ["y"]) == []
    assert Plan(inputs, True, 0, [STANDARD]).next(judgement(0.5), trials, ["y"]) == []


def _trials(proof: Proof) -> list[Any]:
    from converter.proof.measure import Case
    from converter.proof.trials import Trial

    return [Trial(Case("batch 1", proof.sample), {}, {}, {})]


def test_a_failure_by_luck_is_measured_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """One output, a batch of one: the original is exact by luck, the folded model is not."""
    g = Graph("float32", seed=1)
    x = g.input("x", 1, 64)
    y = g.op("MatMul", x, g.const(g.rng.standard_normal((64, 1)), "w"))
    g.output(y, shape=[1, 1])
    model = g.model()
    h = Graph("float32", seed=1)
    flip = h.rng.standard_normal((64, 1))
    x = h.input("x", 1, 64)
    halves = h.op("Split", x, outputs=2, axis=1, num_outputs=2)
    parts = [
        h.op("MatMul", half, h.const(flip[i : i + 32]))
        for half, i in zip(halves, (0, 32), strict=True)
    ]
    h.output(h.rename(h.op("Add", *parts), g.outputs[0].name), shape=[1, 1])
    other = h.model()
    verdicts = [
        verify(model, normalize(model), other, describe(model), dynamic_batch=False, seed=seed)
        for seed in range(60)
    ]
    assert all(proof.passed for proof in verdicts)
    assert any(len(proof.measurements) > 1 for proof in verdicts), "some were measured again"


def test_a_weight_that_is_no_number_is_named() -> None:
    """A training that diverged: other inputs would not help."""

    def poison(weight: Any) -> Any:
        return np.where(np.arange(weight.size).reshape(weight.shape) == 0, np.nan, weight)

    model = changed(heatmap(-1.0), "head.weight", poison)
    proof = prove(model)
    assert not proof.passed
    assert "head.weight (1 NaN of 8 numbers)" in conclusion(proof)
    assert "--data" not in conclusion(proof)
    assert prove(heatmap(-1.0)).broken == ""
    mean = changed(net(), "bn1.running_mean", lambda m: np.where(np.arange(m.size) == 0, np.nan, m))
    told = prove(mean)
    assert "bn1.running_mean (1 NaN of 4 numbers)" in (conclusion(told) + "".join(told.notes))
