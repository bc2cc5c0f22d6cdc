"""Each hazard is raised by the numbers it is about, and by no ordinary network."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from converter import load
from converter.folding import Folded, Hazard
from converter.folding.hazards import SAMPLE, of_batchnorm, of_rounding
from converter.graph.rounding import round_once
from converter.pipeline import plan
from converter.report.facts import describe_decision
from patterns.graphs import Array, Graph, fold

ROOT = Path(__file__).parents[3]
TYPES = ("float16", "bfloat16", "float32", "float64")


def norm(channels: int = 6, *, dtype: Any = "float32", eps: float = 1e-5, **given: Any) -> Any:
    """The hazards of a batch-norm as training leaves it, but for what is given: {channel: x}."""
    rng = np.random.default_rng(0)
    numbers = {
        "gamma": rng.uniform(0.3, 1.5, channels) * np.resize([1.0, -1.0], channels),
        "beta": rng.normal(0, 0.5, channels),
        "mean": rng.normal(0, 0.5, channels),
        "var": rng.uniform(0.3, 2.0, channels),
    }
    for key, changes in given.items():
        for channel, value in changes.items():
            numbers[key][channel] = value
    dtype = ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype
    return of_batchnorm(**numbers, eps=eps, dtype=dtype)


def only(found: tuple[Hazard, ...]) -> Hazard:
    (hazard,) = found
    return hazard


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("eps", [1e-3, 1e-5])
def test_ordinary_statistics_raise_none(dtype: str, eps: float) -> None:
    assert norm(512, dtype=dtype, eps=eps) == ()


CASES = [
    # code, what is given, channels, the worst number, what the sentence says
    ("dead-channels", {"gamma": {1: 0.0, 4: -0.0}}, (1, 4), 0.0, "2 of 6 channels have gamma = 0"),
    ("zero-variance", {"var": {3: 0.0}, "gamma": {3: -2.0}}, (3,), 632.456, "variance 0"),
    ("tiny-variance", {"var": {2: 1e-7, 0: 1e-9}}, (0, 2), 0.9999, "down to 1e-09"),
    ("huge-scale", {"gamma": {5: -1500.0, 2: 1100.0}, "var": {5: 1.0, 2: 1.0}}, (5, 2), 1500.0,
     "up to 1.5e+03"),
    ("large-mean", {"mean": {1: -2000.0}, "var": {1: 1.0}}, (1,), 2000.0,
     "A fold takes the mean into the bias in float64"),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=[case[0] for case in CASES])
@pytest.mark.parametrize("dtype", TYPES)
def test_each_hazard(case: Any, dtype: str) -> None:
    code, given, channels, value, says = case
    hazard = next(h for h in norm(dtype=dtype, **given) if h.code == code)
    assert (hazard.count, hazard.of, hazard.channels) == (len(channels), 6, channels)
    assert hazard.value == pytest.approx(value, rel=1e-3)
    assert says in str(hazard)


@pytest.mark.parametrize("case", CASES, ids=[case[0] for case in CASES])
def test_one_cause_raises_one_hazard(case: Any) -> None:
    assert only(norm(**case[1])).code == case[0]


def test_a_constant_channel_is_only_dead() -> None:
    """With gamma = 0 neither its variance nor its mean does anything."""
    given = {"gamma": {2: 0.0}, "var": {2: 0.0}, "mean": {2: 1e6}}
    assert only(norm(**given)).code == "dead-channels"


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ({"var": {2: 1e-5 / 8}}, "tiny-variance"),  # 89 % of var + eps are epsilon's
        ({"gamma": {2: 900.0}, "var": {2: 1.0}}, "huge-scale"),
        ({"mean": {2: 900.0}, "var": {2: 1.0}}, "large-mean"),
    ],
)
def test_just_below_the_thresholds(given: Any, code: str) -> None:
    assert code not in [hazard.code for hazard in norm(**given)]


def test_sixteen_bits_stand_less_cancellation() -> None:
    given = {"mean": {0: 100.0}, "var": {0: 1.0}}
    assert norm(**given) == ()
    for dtype in ("float16", "bfloat16"):
        assert only(norm(dtype=dtype, **given)).code == "large-mean"


def test_the_range_of_float16_is_told() -> None:
    given = {"gamma": {0: 2000.0}, "var": {0: 1.0}}
    assert "an input above 32.8 overflows float16" in str(only(norm(dtype="float16", **given)))
    assert "overflows" not in str(only(norm(**given)))


@pytest.mark.parametrize(("eps", "word"), [(1e-5, "subnormal"), (1e-8, "0")])
def test_epsilon_below_the_resolution_of_float16(eps: float, word: str) -> None:
    """It matters only where the variance is as small."""
    assert norm(dtype="float16", eps=eps) == ()
    given = {"var": {4: eps / 10}}
    found = {hazard.code: hazard for hazard in norm(dtype="float16", eps=eps, **given)}
    hazard = found["half-epsilon"]
    assert hazard.channels == (4,)
    assert f"is {word} in float16" in str(hazard)
    exact = 1 / np.sqrt(1.1 * eps)
    wrong = 1 / np.sqrt(float(np.float16(eps)) + 0.1 * eps)
    if word == "subnormal":
        assert hazard.value == pytest.approx(abs(wrong / exact - 1), rel=0.05)
    assert "half-epsilon" not in [h.code for h in norm(eps=eps, **given)]
    assert "half-epsilon" not in [h.code for h in norm(dtype="float16", eps=1e-3, **given)]


def test_never_updated() -> None:
    fresh = {"gamma": np.ones(3), "beta": np.zeros(3), "mean": np.zeros(3), "var": np.ones(3)}
    hazard = only(of_batchnorm(**fresh, eps=1e-5))
    assert (hazard.code, hazard.count) == ("never-updated", 3)
    assert "num_batches_tracked" not in str(hazard)
    assert "num_batches_tracked 0" in str(only(of_batchnorm(**fresh, eps=1e-5, untracked=True)))


def test_the_worst_come_first_and_not_all() -> None:
    ones = dict.fromkeys(range(40, 60), 1.0)
    hazard = only(norm(100, mean={i: 1e5 + i for i in range(40, 60)}, var=ones))
    assert hazard.count == 20
    assert hazard.channels == tuple(range(59, 59 - SAMPLE, -1))
    assert ", .." in str(hazard)


def test_no_channels_or_only_dead_ones() -> None:
    assert [h.code for h in norm(2, gamma={0: 0.0, 1: 0.0})] == ["dead-channels"]
    empty = np.zeros(0)
    assert of_batchnorm(empty, empty, empty, empty, 1e-5) == ()


# --- folded weights -----------------------------------------------------------------------


def rounding(before: Array, scale: Array, dtype: Any) -> Hazard | None:
    """The hazard of folding `scale` into rows of weights that are of `dtype` already."""
    stored = round_once(before, dtype)
    exact = stored.astype(np.float64) * scale.reshape(-1, *[1] * (before.ndim - 1))
    return of_rounding(lambda: stored, exact, round_once(exact, dtype), "Conv c1")


UNDERFLOWING = [("float16", 2e-5), ("bfloat16", 1e-39), ("float32", 5e-39)]


@pytest.mark.parametrize(("dtype", "scale"), UNDERFLOWING)
@pytest.mark.parametrize("shape", [(4, 3, 3, 3), (4, 1, 3, 3), (4, 8), (4,)])
def test_a_row_that_underflows(dtype: str, scale: float, shape: tuple[int, ...]) -> None:
    kind = ml_dtypes.bfloat16 if dtype == "bfloat16" else np.dtype(dtype)
    smallest = float(ml_dtypes.finfo(kind).smallest_normal)
    weights = np.random.default_rng(0).uniform(0.1, 1.0, shape)
    hazard = rounding(weights, np.array([1.0, 1.0, scale, 1.0]), kind)
    assert hazard is not None
    assert hazard.code == "underflow"
    assert hazard.channels == (2,)
    lost = np.abs(round_once(weights, kind).astype(float)[2] * scale) < smallest
    assert 0 < hazard.count <= lost.sum()
    assert hazard.of == weights.size
    assert hazard.where == "Conv c1"
    assert "Conv c1" in str(hazard)
    assert dtype in str(hazard)


def test_weights_that_become_zero_are_counted() -> None:
    weights = np.full((2, 4), 0.5)
    hazard = rounding(weights, np.array([1e-8, 1.0]), np.float16)
    assert hazard is not None
    assert "0 of 8 folded weights of Conv c1 became subnormal and 4 became 0" in str(hazard)


def test_columns_count_as_well() -> None:
    """The output channel of a Gemm is the second axis."""
    stored = np.full((4, 2), 0.5, np.float16)
    exact = stored.astype(float) * np.array([1.0, 1e-6])
    hazard = of_rounding(lambda: stored, exact, round_once(exact, np.float16), "Gemm fc")
    assert hazard is not None
    assert hazard.count == 4


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float32, np.float64])
def test_ordinary_weights_do_not_underflow(dtype: Any) -> None:
    """A few of them are tiny, beside others that are not."""
    rng = np.random.default_rng(0)
    weights = rng.normal(0, 0.02, (64, 64, 3, 3))
    assert rounding(weights, rng.uniform(0.15, 2.7, 64), dtype) is None


def test_weights_that_were_subnormal_before_are_no_news() -> None:
    assert rounding(np.full((2, 4), 3e-5), np.array([0.5, 0.5]), np.float16) is None


def test_zeros_are_no_underflow() -> None:
    assert rounding(np.zeros((2, 4)), np.array([1e-8, 1.0]), np.float16) is None
    assert rounding(np.ones((2, 4)), np.array([0.0, 1.0]), np.float16) is None


# --- in a graph ---------------------------------------------------------------------------


def net(dtype: str = "float16", **given: Any) -> Graph:
    g = Graph(dtype)
    y = g.op("Conv", g.input("x", "N", 3, 5, 5), g.weight(4, 3, 3, 3), node="/conv1/Conv")
    g.output(g.op("BatchNormalization", y, *g.statistics(4, "bn1", **given)))
    return g


def test_a_fold_tells_what_underflowed() -> None:
    hazard = only(fold(net(gamma=[1.0, 1e-6, 1.0, 1.0], var=[1.0, 1.0, 1.0, 1.0])).hazards)
    assert (hazard.code, hazard.where) == ("underflow", "Conv conv1")
    assert hazard.channels == (1,)
    assert 20 < hazard.count <= 27


@pytest.mark.parametrize("dtype", TYPES)
def test_an_ordinary_fold_tells_nothing(dtype: str) -> None:
    folded = fold(net(dtype))
    assert len(folded.plan.folded) == 1
    assert folded.hazards == ()
    assert warnings(folded) == []


def test_the_report_has_fields_and_sentences() -> None:
    (decision,) = fold(net("float32", gamma=[1.0, 0.0, 2.0, 0.0])).plan.decisions
    described = describe_decision(decision)
    (hazard,) = decision.site.warnings
    assert described["warnings"] == [hazard.sentence]
    assert described["hazards"] == [asdict(hazard)]
    assert (hazard.code, hazard.count, hazard.channels) == ("dead-channels", 2, (1, 3))


def test_the_model_that_ships_raises_none() -> None:
    found = plan(load(ROOT / "models" / "mnist" / "checkpoint.pt"))
    assert found.decisions
    assert [w for d in found.decisions for w in d.site.warnings] == []


def warnings(folded: Folded) -> list[Hazard]:
    return [hazard for d in folded.plan.decisions for hazard in d.site.warnings]
