"""Numbers of one size in an output are not judged by the scale of others in it."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from converter.evaluation.normalize import normalize
from converter.folding import fold_graph
from converter.proof import Measurement, verify
from converter.proof.measure import Case
from converter.proof.parts import ALIKE, ENOUGH, Outcome, by_parts, groups_of_like_size, ranges
from converter.sources.inputs import describe
from patterns.graphs import Graph
from tests.converter.proof.test_verify import changed

PLACES = 36


def detector(layout: str, dtype: str = "float32", boxes: float = 1e5) -> ir.Model:
    """Four boxes of 1e5 beside six scores, at 36 places: (N, 10, 36) or otherwise."""
    g = Graph(dtype, seed=3)
    y = g.op("Conv", g.input("x", "N", 3, 8, 8), g.weight(8, 3, 3, 3))
    y = g.op("Relu", g.bn(y, 8, name="bn"))
    box = g.op("Conv", y, g.const(boxes * g.rng.standard_normal((4, 8, 1, 1))))
    weight = g.const(0.1 * g.rng.standard_normal((6, 8, 1, 1)))
    score = g.op("Conv", y, weight, g.const(np.zeros(6), "score.bias"))
    y = g.op("Concat", box, g.op("Sigmoid", score), axis=1)
    y = g.op("Reshape", y, g.const(np.array([0, 10, PLACES])))
    shape: list[Any] = ["N", 10, PLACES]
    if layout.startswith("last"):
        y, shape = g.op("Transpose", y, perm=[0, 2, 1]), ["N", PLACES, 10]
    if layout.endswith("flat"):
        y, shape = g.op("Flatten", y), ["N", 10 * PLACES]
    g.rename(y, "y")
    g.output("y", shape=shape)
    return g.model()


def shifted(model: ir.Model, by: float) -> ir.Model:
    return changed(model, "score.bias", lambda bias: bias + by) if by else model


@pytest.mark.parametrize("layout", ["channels", "last", "flat", "last, flat"])
@pytest.mark.parametrize(
    ("dtype", "boxes", "seen"), [("float32", 1e5, 5e-5), ("float16", 100.0, 0.05)]
)
def test_scores_beside_boxes(layout: str, dtype: str, boxes: float, seen: float) -> None:
    """An error of the scores is seen down to some of their own roundings, wherever they are."""
    model = detector(layout, dtype, boxes)
    original = normalize(model)
    right = fold_graph(original).model
    proof = verify(model, original, right, describe(model))
    assert proof.passed
    assert len(proof.parts) > 1
    for by in (seen, -seen, 1000 * seen):
        wrong = verify(model, original, shifted(right, by), describe(model))
        assert wrong.verdict == "differs", by
        assert all(m.verdict == "equal" for m in wrong.measurements), "as a whole they are equal"
        assert any("of 10 on axis" in m.part or "of 360" in m.part for m in wrong.parts)


def test_your_data_are_judged_by_parts_too() -> None:
    """Boxes that are as small as scores on noise, and large on what the user has."""
    g = Graph("float32")
    y = g.op("Gemm", g.input("x", "N", 3), g.const(np.eye(3)), g.const(np.zeros(3), "bias"))
    g.output(y, shape=["N", 3])
    model = g.model()
    wrong = changed(normalize(model), "bias", lambda bias: bias + np.array([0, 0, 2e-7]))
    assert verify(model, normalize(model), wrong, describe(model)).passed
    rng = np.random.default_rng(0)
    data = {"x": (rng.standard_normal((64, 3)) * [1e6, 1e6, 1e-2]).astype(np.float32)}
    proof = verify(model, normalize(model), wrong, describe(model), data=data)
    assert proof.verdict == "differs"
    assert [m.part for m in proof.parts if not m.passed] == ["2 of 3 on axis 1"]
    assert verify(model, normalize(model), normalize(model), describe(model), data=data).passed


def outcome(truth: Any, reference: Any, candidate: Any, name: str = "batch 2") -> Outcome:
    truth = np.asarray(truth, np.float64)
    return Outcome(Case(name, {}), truth, truth + reference, truth + candidate)


def columns(*sizes: float, rows: int = 64) -> Any:
    """(rows, len(sizes)): numbers of these sizes, of both signs."""
    sign = np.where(np.arange(rows) % 2, 1.0, -1.0)
    return sign[:, None] * np.asarray(sizes)


def judged(truth: Any, reference: Any, candidate: Any) -> list[Measurement]:
    found = by_parts("y", "float64", [outcome(truth, reference, candidate)])
    return [m for m in found if m.part.endswith("on axis 1")]


def test_one_size_is_no_part() -> None:
    assert judged(columns(1.0, 1.0, 0.5), 0, 0) == []


@pytest.mark.parametrize(("factor", "parts"), [(ALIKE * 0.999, 0), (ALIKE * 1.001, 2)])
def test_sizes_within_a_factor_are_alike(factor: float, parts: int) -> None:
    assert ALIKE == 8.0
    assert len(judged(columns(factor, 1.0), 0, 0)) == parts


@pytest.mark.parametrize(
    ("sizes", "groups"),
    [
        ([1, 1, 1], [[0, 1, 2]]),
        ([1, 100, 2, 50], [[1, 3], [2, 0]]),
        ([1e-9, 1, 1e5, 0], [[2], [1], [0, 3]]),
        ([0, 0], [[0, 1]]),
        ([1, 0.5, 0.2, 0.11], [[0, 1, 2], [3]]),
    ],
)
def test_groups_of_like_size(sizes: list[float], groups: list[list[int]]) -> None:
    found = [group.tolist() for group in groups_of_like_size(np.asarray(sizes, float))]
    assert found == groups


@pytest.mark.parametrize(("rounded", "alone"), [(ENOUGH - 1, False), (ENOUGH, True)])
def test_few_numbers_are_judged_with_the_next_larger(rounded: int, alone: bool) -> None:
    """A channel that a Relu leaves nearly empty: the largest of few errors is luck."""
    assert ENOUGH == 32
    truth = columns(1.0, 1e-3)
    reference, candidate = np.full(truth.shape, 1e-10), np.zeros(truth.shape)
    reference[:, 1] = 0
    candidate[:rounded, 1] = 1.5e-10
    large, small = judged(truth, reference, candidate)
    assert large.passed
    assert small.scant is not alone
    assert small.passed is not alone, "1.5 times what the larger numbers are off"
    candidate[0, 1] = 1e-9
    assert not judged(truth, reference, candidate)[1].passed, "and that is too far in any case"


def test_a_part_is_judged_by_all_inputs_that_were_drawn_alike() -> None:
    """Lucky on one, as usual on the other: as for whole outputs."""
    truth = columns(1.0, 1e-3)
    lucky = outcome(truth, 1e-9 * truth, 1e-6 * truth, "batch 1")
    usual = outcome(truth, 1e-6 * truth, 1e-6 * truth, "batch 2")
    assert not all(m.passed for m in by_parts("y", "float32", [lucky]))
    assert all(m.passed for m in by_parts("y", "float32", [lucky, usual]))
    other = Outcome(Case("yours", {}, given=True), lucky.truth, lucky.reference, lucky.candidate)
    assert all(m.passed for m in by_parts("y", "float32", [other], [usual]))
    assert not all(m.passed for m in by_parts("y", "float32", [other], [lucky]))


def test_memory_is_bounded_by_slabs(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    truth = rng.standard_normal((7, 5, 3)) * [1e4, 1, 1e-4]
    reference, candidate = (1e-9 * rng.standard_normal(truth.shape) for _ in range(2))
    whole = by_parts("y", "float64", [outcome(truth, reference, candidate)])
    monkeypatch.setattr("converter.proof.parts._SLAB", 8)
    assert by_parts("y", "float64", [outcome(truth, reference, candidate)]) == whole
    assert len(whole) == 3


def test_what_is_not_finite_has_no_part_in_it() -> None:
    truth = columns(1.0, np.nan, np.inf, 1e-3)
    (large, small) = judged(truth, 0, 0)
    assert large.magnitude == 1.0
    assert small.magnitude == 1e-3


def test_whole_numbers_and_scalars_have_no_parts() -> None:
    assert by_parts("y", "int64", [outcome([1e5, 1], 0, 0)]) == ()
    assert by_parts("y", "float32", [outcome(1.0, 0, 0)]) == ()
    assert by_parts("y", "float32", []) == ()


@pytest.mark.parametrize(
    ("indices", "text"),
    [([4], "4"), ([2, 0, 1], "0-2"), ([0, 2, 3, 9], "0, 2-3, 9"),
     ([0, 2, 4, 6, 8, 10], "0 and 5 more")],
)  # fmt: skip
def test_ranges(indices: list[int], text: str) -> None:
    assert ranges(np.asarray(indices)) == text
