"""How far two graphs' outputs are from float64, and how far the rule lets them be.

The rule is `verify`'s; here it is applied to one output on one set of inputs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import ml_dtypes
import numpy as np

from converter.evaluation.oracle import Array, Feeds

_UNIT_ROUNDOFF = {
    "float16": 2.0**-11,
    "bfloat16": 2.0**-8,
    "float32": 2.0**-24,
    # There is no wider oracle for float64: both sides carry its rounding, summed over the
    # network. 4 * u * max|y| is then 1e-12 of the largest number.
    "float64": 2.5e-13,
}
# Beyond this part of what is `usable`, other inputs are tried as well.
_SHARP = 0.1
# Where the reference's own error is beyond `usable`, a candidate whose error is this many times
# what the rule allows is wrong all the same.
_FAR = 4.0
# A candidate this many times beyond what is allowed is not off by chance, nor by roundings: of 805
# networks that were folded none was beyond 2.4 times the original's own error, which is 1.2 times
# what is allowed.
GROSS = 16.0
# How far another framework's kernels, which sum in another order, may be from float64: 10 times as
# far as the reference, plus 64 units in the last place of the largest number.
_FRAMEWORK = (10.0, 64.0)
# Types for which what is allowed is pooled over the random inputs (`pool`). Rounding through a
# whole network in float32 is many times 4 * u * max|y|, so the reference's own error decides, which
# may be small by chance on a single input. In half types 4 * u * max|y| decides, which may also be
# near 0 by chance.
_HALF = frozenset({"float16", "bfloat16"})
_POOLED = frozenset({"float32"}) | _HALF
# How far the reference itself may be from float64, relative to the largest number. Beyond that, its
# error would excuse nearly anything: the runtime computes an op differently, or the network is
# chaotic.
_USABLE = {"float16": 0.25, "bfloat16": 0.5, "float32": 0.01, "float64": 1e-6}


# "unmeasured": it could not be decided whether it is equal.
Verdict = Literal["equal", "differs", "unmeasured"]


@dataclass(frozen=True)
class Limits:
    """The constants of the rule for a type of number; `usable`, `pooled`, `half` as above."""

    roundoff: float
    usable: float
    largest: float
    pooled: bool
    half: bool


# Between the type of an output and the narrower one in which it was computed (`precision`).
BY = " by "


def limits_of(dtype: str) -> Limits | None:
    """None for types that are not floating point: those must be equal.

    Args:
        dtype: numpy's name of the output's type; "float32 by float16" where the numbers were
            rounded in float16 on their way.
    """
    given, _, narrow = dtype.partition(BY)
    if given not in _UNIT_ROUNDOFF:
        return None
    kind = narrow or given
    return Limits(
        _UNIT_ROUNDOFF[kind], _USABLE[kind], _largest(given), kind in _POOLED, kind in _HALF
    )


def allowance(limits: Limits, reference_error: float, magnitude: float) -> float:
    """The rule on one set of inputs: 2 * err(reference) + 4 * u * max|y|."""
    return 2.0 * reference_error + 4.0 * limits.roundoff * magnitude


def framework_allowance(limits: Limits, reference_error: float, magnitude: float) -> float:
    """The rule for another framework's kernels."""
    error, roundings = _FRAMEWORK
    return max(
        allowance(limits, reference_error, magnitude),
        error * reference_error + roundings * limits.roundoff * magnitude,
    )


@dataclass(frozen=True)
class Measurement:
    """One output on one set of inputs. Errors are maxima of |y - float64|, in y's unit.

    `pooled`: the other random inputs also set the scale; `half`: at least half of the median.
    `part`: which numbers of the output, "" for all (`parts.py`); `scant`: too few to tell.
    `unmeasured`: these inputs cannot tell whether the candidate is right, and `problem` says why.
    `unlike`: it has another shape, or no number where the original has one: no rounding does that.
    `exact`: not of floats; `magnitude` is how many numbers there are, an error how many are wrong.
    `sharp`: the output is not 0 throughout, and the reference's error is far below `usable`.
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
    part: str = ""
    scant: bool = False
    unmeasured: bool = False
    sharp: bool = True
    unlike: bool = False
    exact: bool = False

    @property
    def times(self) -> float:
        """How many times what is allowed the candidate is off; infinite where nothing is."""
        if not self.candidate_error:
            return 0.0
        return self.candidate_error / self.allowed if self.allowed else float("inf")

    @property
    def floor(self) -> float:
        """What is allowed besides twice the reference's error: 4 * u * max|y|."""
        return self.allowed - 2.0 * self.reference_error

    @property
    def passed(self) -> bool:
        return not self.problem and self.candidate_error <= self.allowed

    @property
    def verdict(self) -> Verdict:
        if self.unmeasured:
            return "unmeasured"
        return "equal" if self.passed else "differs"


@dataclass(frozen=True)
class Case:
    """One set of inputs and its name in the report ("batch 2", "your data, 64 rows").

    `given`: by the user, not drawn at random. `kind`: how it was drawn, "" for standard normal
    numbers: only inputs that are drawn alike set a scale for each other.
    """

    name: str
    feeds: Feeds
    framework: Feeds | None = None
    given: bool = False
    kind: str = ""


def measure(
    output: str,
    dtype: str,
    case: Case,
    truth: Array,
    reference: Array,
    candidate: Array,
    who: str = "the folded model",
    rule: Callable[[Limits, float, float], float] = allowance,
) -> Measurement:
    """One output on one set of inputs.

    Args:
        who: what the candidate is, for messages.
        rule: what is allowed at an error of the reference and a largest number.
    """
    if truth.shape != reference.shape or truth.shape != candidate.shape:
        shapes = f"{truth.shape}, {reference.shape} and {candidate.shape}"
        problem = f"the shapes differ: {shapes}"
        return Measurement(output, case.name, 0.0, 0.0, np.inf, 0.0, problem, unlike=True)
    limits = limits_of(dtype)
    if limits is None:
        return _exact(output, case, truth, reference, candidate)
    expected, original, folded = (wide(array) for array in (truth, reference, candidate))
    finite = np.isfinite(expected) & (np.abs(expected) <= limits.largest)
    usable = finite & np.isfinite(original) & np.isfinite(folded)
    magnitude = largest_of(expected[usable])
    reference_error = largest_of(original[usable] - expected[usable])
    candidate_error = largest_of(folded[usable] - expected[usable])
    allowed = rule(limits, reference_error, magnitude)
    problem, unmeasured, unlike = "", False, False
    if not np.isfinite(folded[finite & np.isfinite(original)]).all():
        problem, unlike = f"{who} gives NaN or infinity where the original does not", True
    elif expected.size and not finite.any():
        problem, unmeasured = "no finite number to compare: " + _ask(case), True
    elif expected.size and not usable.any():
        problem, unmeasured = "the original gives no finite number: " + _ask(case), True
    elif magnitude and reference_error > limits.usable * magnitude:
        problem = (
            f"the original itself is {reference_error / magnitude:.0%} of the largest number away "
            "from float64, too far to prove anything"
        )
        unmeasured = candidate_error <= _FAR * allowed
        if not unmeasured:
            problem += f"; {who} is {candidate_error / reference_error:.0f} times as far"
    return Measurement(
        output,
        case.name,
        magnitude,
        reference_error,
        candidate_error,
        allowed,
        problem,
        pooled=limits.pooled,
        half=limits.half,
        unmeasured=unmeasured,
        sharp=magnitude > 0.0 and reference_error <= _SHARP * limits.usable * magnitude,
        unlike=unlike,
    )


def _ask(case: Case) -> str:
    if case.given:
        return "look for NaN, infinity or far too large numbers in these inputs"
    return "pass inputs of your own with --data"


def from_framework(
    output: str, dtype: str, case: Case, truth: Array, reference: Array, framework: Array
) -> Measurement:
    """The original framework's own output in the candidate's place."""
    who = "the original framework"
    return measure(output, dtype, case, truth, reference, framework, who, framework_allowance)


def _exact(
    output: str, case: Case, truth: Array, reference: Array, candidate: Array
) -> Measurement:
    """Integers, booleans, strings: count where they differ from the oracle's."""
    wrong = int(np.count_nonzero(candidate != truth))
    wrong_before = int(np.count_nonzero(reference != truth))
    return Measurement(
        output,
        case.name,
        float(truth.size),
        wrong_before,
        wrong,
        2.0 * wrong_before,
        sharp=truth.size > 0,
        exact=True,
    )


def _largest(dtype: str) -> float:
    if dtype == "bfloat16":
        return float(ml_dtypes.finfo(ml_dtypes.bfloat16).max)  # type: ignore[no-untyped-call]
    return float(np.finfo(dtype).max)


def wide(array: Array) -> Array:
    return np.asarray(array, dtype=np.float64)


def largest_of(values: Array) -> float:
    return float(np.max(np.abs(values))) if values.size else 0.0
