"""How far two graphs' outputs are from float64, and how far the rule lets them be.

The rule is `verify`'s; here it is applied to one output on one set of inputs.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass, replace
from statistics import median

import ml_dtypes
import numpy as np

from converter.proof.oracle import Array, Feeds

_UNIT_ROUNDOFF = {
    "float16": 2.0**-11,
    "bfloat16": 2.0**-8,
    "float32": 2.0**-24,
    # There is no wider oracle for float64: both sides carry its rounding, summed over a
    # network. 4 * u * max|y| is then 1e-12 of the largest number.
    "float64": 2.5e-13,
}
# Types for which what is allowed is pooled over the random inputs (`pool`). Rounding through a
# whole network in float32 is many times 4 * u * max|y|, so that the reference's own error decides,
# and on a single input its luck. In half types 4 * u * max|y| does, which may be near 0 by luck.
_HALF = frozenset({"float16", "bfloat16"})
_POOLED = frozenset({"float32"}) | _HALF
# How far the reference itself may be from float64, relative to the largest number. Beyond, its
# error would excuse nearly anything: an op that the runtime computes otherwise, or chaos.
_USABLE = {"float16": 0.25, "bfloat16": 0.5, "float32": 0.01, "float64": 1e-6}


@dataclass(frozen=True)
class Measurement:
    """One output on one set of inputs. Errors are maxima of |y - float64|, in y's unit.

    `pooled`: sizes on the other random inputs count, too; `half`: half of their median.
    """

    output: str
    inputs: str
    magnitude: float
    reference_error: float
    candidate_error: float
    allowed: float
    problem: str = ""
    pooled: bool = False
    half: bool = False

    @property
    def floor(self) -> float:
        """What is allowed beside twice the reference's error: 4 * u * max|y|."""
        return self.allowed - 2.0 * self.reference_error

    @property
    def passed(self) -> bool:
        return not self.problem and self.candidate_error <= self.allowed


@dataclass(frozen=True)
class Case:
    """One set of inputs and its name in the report ("batch 2", "your data, 64 rows").

    `given`: by the user, not drawn at random.
    """

    name: str
    feeds: Feeds
    framework: Feeds | None = None
    given: bool = False


def measure(
    output: str, dtype: str, case: Case, truth: Array, reference: Array, candidate: Array
) -> Measurement:
    if truth.shape != reference.shape or truth.shape != candidate.shape:
        shapes = f"{truth.shape}, {reference.shape} and {candidate.shape}"
        return Measurement(output, case.name, 0.0, 0.0, np.inf, 0.0, f"the shapes differ: {shapes}")
    if dtype not in _UNIT_ROUNDOFF:
        return _exact(output, case, truth, reference, candidate)
    expected, original, folded = (wide(array) for array in (truth, reference, candidate))
    limit = _largest(dtype)
    finite = np.isfinite(expected) & (np.abs(expected) <= limit)
    problem = ""
    if expected.size and not finite.any():
        problem = "no finite number to compare: " + _ask(case)
    elif not np.isfinite(folded[finite & np.isfinite(original)]).all():
        problem = "the folded model gives NaN or infinity where the original does not"
    usable = finite & np.isfinite(original) & np.isfinite(folded)
    magnitude = largest_of(expected[usable])
    reference_error = largest_of(original[usable] - expected[usable])
    if expected.size and not usable.any():
        problem = problem or "the original gives no finite number: " + _ask(case)
    elif magnitude and reference_error > _USABLE[dtype] * magnitude:
        problem = problem or (
            f"the original itself is {reference_error / magnitude:.0%} of the largest number away "
            "from float64, too far to prove anything"
        )
    return Measurement(
        output,
        case.name,
        magnitude,
        reference_error,
        largest_of(folded[usable] - expected[usable]),
        2.0 * reference_error + 4.0 * _UNIT_ROUNDOFF[dtype] * magnitude,
        problem,
        pooled=dtype in _POOLED,
        half=dtype in _HALF,
    )


def _ask(case: Case) -> str:
    if case.given:
        return "look for NaN, infinity or far too large numbers in these inputs"
    return "pass inputs of your own with --data"


def pool(measurements: tuple[Measurement, ...], random: Container[str]) -> tuple[Measurement, ...]:
    """What the rule allows on the random inputs, which are drawn alike, taken together.

    On one input an output may be near zero, or the reference near the truth, by luck: a right fold
    then draws another error of the usual size. So for the types of `_POOLED` max|y| and the
    reference's error are the largest on all random inputs. What the user gives, of any size, sets
    no scale for others; the reference's error on it is at least the share of max|y| that it is on
    random inputs.

    In half types 4 * u alone is 0.2 % or 1.6 % of max|y|, and the reference may be a quarter of it
    away from the truth where it overflows nearly: the largest would excuse too much. There an
    input is allowed at least half of the median.
    """
    usable = [m for m in measurements if m.pooled and not m.problem and m.inputs in random]
    largest = {name: [m for m in usable if m.output == name] for name in {m.output for m in usable}}
    return tuple(
        replace(m, allowed=max(m.allowed, _together(m, largest[m.output], m.inputs in random)))
        if m.pooled and m.output in largest
        else m
        for m in measurements
    )


def _together(m: Measurement, others: Sequence[Measurement], drawn_alike: bool) -> float:
    if m.half:
        return 0.5 * median(o.allowed for o in others) if drawn_alike and others else 0.0
    if drawn_alike:
        floor = max(o.floor for o in others)
        return 2.0 * max(o.reference_error for o in others) + floor
    shares = (o.reference_error / o.magnitude for o in others if o.magnitude > 0.0)
    return 2.0 * max(m.reference_error, max(shares, default=0.0) * m.magnitude) + m.floor


def from_framework(
    output: str, dtype: str, case: Case, truth: Array, reference: Array, framework: Array
) -> Measurement:
    found = measure(output, dtype, case, truth, reference, framework)
    if dtype not in _UNIT_ROUNDOFF:
        return found
    slack = 10.0 * found.reference_error + 64.0 * _UNIT_ROUNDOFF[dtype] * found.magnitude
    return replace(found, allowed=max(found.allowed, slack))


def _exact(
    output: str, case: Case, truth: Array, reference: Array, candidate: Array
) -> Measurement:
    """Integers, booleans, strings: counted where they differ from the oracle's."""
    wrong = int(np.count_nonzero(candidate != truth))
    wrong_before = int(np.count_nonzero(reference != truth))
    return Measurement(
        output, case.name, float(truth.size), wrong_before, wrong, 2.0 * wrong_before
    )


def _largest(dtype: str) -> float:
    if dtype == "bfloat16":
        return float(ml_dtypes.finfo(ml_dtypes.bfloat16).max)  # type: ignore[no-untyped-call]
    return float(np.finfo(dtype).max)


def wide(array: Array) -> Array:
    return np.asarray(array, dtype=np.float64)


def largest_of(values: Array) -> float:
    return float(np.max(np.abs(values))) if values.size else 0.0
