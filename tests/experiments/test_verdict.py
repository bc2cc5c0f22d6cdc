"""Intervals against tables, and every verdict."""

from __future__ import annotations

import math

import pytest

from experiments.verdict import Verdict, estimate, judge, together

HOLDS, FAILS, UNDECIDED = Verdict.HOLDS, Verdict.FAILS, Verdict.UNDECIDED


def test_interval_of_three() -> None:
    """1, 2, 3: mean 2, s = 1, t(2) = 4.303: 2 +- 4.303 / sqrt 3."""
    found = estimate([1.0, 2.0, 3.0])
    assert found.mean == 2
    assert found.deviation == 1
    assert found.low == pytest.approx(2 - 4.303 / math.sqrt(3))
    assert found.high == pytest.approx(2 + 4.303 / math.sqrt(3))


def test_many_repetitions_use_the_last_quantile() -> None:
    found = estimate([0.0, 1.0] * 20)
    margin = 2.228 * math.sqrt(40 * 0.25 / 39) / math.sqrt(40)
    assert found.high - found.mean == pytest.approx(margin)


def test_one_repetition_decides_nothing() -> None:
    assert judge(estimate([5.0]), low=0, high=math.inf) is UNDECIDED
    assert estimate([5.0]).deviation == 0


def test_none_is_an_error() -> None:
    with pytest.raises(ValueError, match="no repetition"):
        estimate([])


@pytest.mark.parametrize(
    ("values", "low", "high", "verdict"),
    [
        ([0.50, 0.51, 0.52], 0.0, math.inf, HOLDS),
        ([-0.50, -0.51, -0.52], 0.0, math.inf, FAILS),
        ([-0.1, 0.1, 0.3], 0.0, math.inf, UNDECIDED),
        ([0.97, 0.97, 0.97], 0.96, 0.98, HOLDS),
        ([0.99, 0.99, 0.99], 0.96, 0.98, FAILS),
        ([0.979, 0.980, 0.981], 0.96, 0.98, UNDECIDED),
        ([0.0, 0.0, 0.0], 0.0, math.inf, FAILS),  # no difference is no improvement
        ([math.inf, 1.0, 1.0], -math.inf, 0.5, UNDECIDED),
    ],
)
def test_each_verdict(values: list[float], low: float, high: float, verdict: Verdict) -> None:
    assert judge(estimate(values), low, high) is verdict


@pytest.mark.parametrize(
    ("verdicts", "all_of", "one_of"),
    [
        ([HOLDS, HOLDS], HOLDS, HOLDS),
        ([HOLDS, FAILS], FAILS, HOLDS),
        ([FAILS, FAILS], FAILS, FAILS),
        ([HOLDS, UNDECIDED], UNDECIDED, HOLDS),
        ([FAILS, UNDECIDED], FAILS, UNDECIDED),
        ([UNDECIDED], UNDECIDED, UNDECIDED),
    ],
)
def test_parts_together(verdicts: list[Verdict], all_of: Verdict, one_of: Verdict) -> None:
    assert together(verdicts) is all_of
    assert together(verdicts, either=True) is one_of


def test_a_claim_needs_a_part() -> None:
    with pytest.raises(ValueError, match="without a measurement"):
        together([])
