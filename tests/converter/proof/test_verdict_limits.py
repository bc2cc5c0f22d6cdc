"""Every limit of the rule, just inside and just outside of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from converter.proof.invariance import Invariance, compare
from converter.proof.measure import (
    Case,
    Measurement,
    from_framework,
    measure,
)
from converter.proof.pooling import allowed_together, pool

UNITS = {"float16": 2.0**-11, "bfloat16": 2.0**-8, "float32": 2.0**-24, "float64": 2.5e-13}
TYPES = pytest.mark.parametrize("dtype", UNITS)
IN, OUT = 0.999, 1.001
CASE = Case("batch 2", {})


def measured(dtype: str, reference: float, candidate: float, size: float = 1.0) -> Measurement:
    """One number, of which both are off by so much: held in float64, so that nothing rounds."""
    truth = np.array([size])
    return measure("y", dtype, CASE, truth, truth + reference, truth + candidate)


@TYPES
@pytest.mark.parametrize(("reference", "size"), [(0.0, 1.0), (1e-7, 1.0), (1e-7, 300.0)])
def test_twice_the_originals_error_and_four_roundings(
    dtype: str, reference: float, size: float
) -> None:
    if reference > 1e-7 * size:
        pytest.skip("not usable")
    allowed = 2 * reference + 4 * UNITS[dtype] * size
    assert measured(dtype, reference, allowed * IN, size).verdict == "equal"
    assert measured(dtype, reference, allowed * OUT, size).verdict == "differs"


@pytest.mark.parametrize(
    ("dtype", "usable"),
    [("float16", 0.25), ("bfloat16", 0.5), ("float32", 0.01), ("float64", 1e-6)],
)
def test_how_far_off_an_original_is_usable(dtype: str, usable: float) -> None:
    inside, outside = (measured(dtype, usable * times, 0.0) for times in (IN, OUT))
    assert inside.verdict == "equal"
    assert outside.verdict == "unmeasured"
    assert "away from float64" in outside.problem
    sharp = [measured(dtype, 0.1 * usable * times, 0.0).sharp for times in (IN, OUT)]
    assert sharp == [True, False]


@TYPES
def test_what_is_far_beyond_even_a_useless_original_differs(dtype: str) -> None:
    reference = 0.6
    far = 4 * (2 * reference + 4 * UNITS[dtype])
    assert measured(dtype, reference, far * IN).verdict == "unmeasured"
    assert measured(dtype, reference, far * OUT).verdict == "differs"
    assert "times as far" in measured(dtype, reference, far * OUT).problem


@TYPES
@pytest.mark.parametrize("reference", [0.0, 5e-8])
def test_ten_times_the_originals_error_or_64_roundings_for_a_framework(
    dtype: str, reference: float
) -> None:
    truth = np.array([1.0])
    slack = 10 * reference + 64 * UNITS[dtype]

    def passes(error: float) -> bool:
        return from_framework("y", dtype, CASE, truth, truth + reference, truth + error).passed

    assert passes(slack * IN)
    assert not passes(slack * OUT)


def of(inputs: str, reference: float, candidate: float, size: float, **more: Any) -> Measurement:
    allowed = 2 * reference + 2.4e-7 * size
    return Measurement("y", inputs, size, reference, candidate, allowed, pooled=True, **more)


@pytest.mark.parametrize(("times", "passes"), [(IN, True), (OUT, False)])
def test_your_data_are_allowed_twice_the_share_of_random_inputs(times: float, passes: bool) -> None:
    usual = of("batch 2", 3e-6, 0.0, 2.0)
    mine = of("yours", 1e-9, (2 * 1.5e-6 * 50 + 2.4e-7 * 50) * times, 50.0)
    assert pool((usual, mine), {"batch 2"})[1].passed is passes


def test_no_share_of_what_is_not_sharp() -> None:
    usual = of("batch 2", 9e-3, 0.0, 1.0, sharp=False)
    assert not pool((usual, of("yours", 1e-9, 1e-3, 1.0)), {"batch 2"})[1].passed


@pytest.mark.parametrize(("times", "passes"), [(IN, True), (OUT, False)])
def test_random_inputs_are_allowed_what_the_largest_is(times: float, passes: bool) -> None:
    large = of("batch 2", 3e-6, 0.0, 2.0)
    small = of("batch 1", 1e-9, (2 * 3e-6 + 2.4e-7 * 2.0) * times, 0.1)
    assert pool((large, small), {"batch 1", "batch 2"})[1].passed is passes
    other = of("batch 1, normal times 4", 1e-9, 1e-6, 0.1)
    found = pool((large, other), {"batch 2"}, [{other.inputs}])
    assert not found[1].passed, "another kind is judged by its own"


def test_half_types_are_allowed_half_of_the_median() -> None:
    cases = [
        Measurement("y", name, 1.0, 0.0, 0.0, allowed, pooled=True, half=True)
        for name, allowed in (("a", 1.0), ("b", 3.0), ("c", 100.0))
    ]
    assert allowed_together(cases[0], cases, True) == 1.5
    assert allowed_together(cases[0], cases, False) == 0.0


@pytest.mark.parametrize(("times", "holds"), [(IN, True), (OUT, False)])
def test_a_sample_alone_may_be_as_far_from_itself_as_from_the_truth(
    times: float, holds: bool
) -> None:
    together = {"y": np.array([[1.0], [2.0]]), "z": np.array([[0.0], [0.0]])}
    alone = [
        {"y": np.array([[1.0]]), "z": np.zeros((1, 1))},
        {"y": np.array([[2.0 + 1e-3 * times]]), "z": np.zeros((1, 1))},
    ]
    found = compare(together, alone, {"y": 1e-3, "z": 1.0})
    assert found.holds is holds
    assert ("others in its batch" in found.problem) is not holds
    assert found.batch == 2
    assert found.difference == pytest.approx(1e-3 * times)


@pytest.mark.parametrize(("difference", "holds"), [(1.0, True), (1.001, False)])
def test_invariance_holds_up_to_what_is_allowed(difference: float, holds: bool) -> None:
    assert Invariance(difference, 1.0).holds is holds
    assert not Invariance(difference, 1.0, "it could not be measured").holds
