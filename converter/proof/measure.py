"""How far two graphs' outputs are from float64, and how far the rule lets them be.

The rule is `verify`'s; here it is applied to one output on one set of inputs.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import median
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


@dataclass(frozen=True)
class Measurement:
    """One output on one set of inputs. Errors are maxima of |y - float64|, in y's unit.

    `pooled`: the other random inputs also set the scale; `half`: at least half of the median.
    `part`: which numbers of the output, "" for all (`parts.py`); `scant`: too few to tell.
    `unmeasured`: these inputs cannot tell whether the candidate is right, and `problem` says why.
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
    slack: tuple[float, float] = (0.0, 0.0),
) -> Measurement:
    """One output on one set of inputs.

    Args:
        who: what the candidate is, for messages.
        slack: (a, b): it may be off by at least a times the reference's error plus b times
            u * max|y|.
    """
    if truth.shape != reference.shape or truth.shape != candidate.shape:
        shapes = f"{truth.shape}, {reference.shape} and {candidate.shape}"
        return Measurement(output, case.name, 0.0, 0.0, np.inf, 0.0, f"the shapes differ: {shapes}")
    limits = limits_of(dtype)
    if limits is None:
        return _exact(output, case, truth, reference, candidate)
    expected, original, folded = (wide(array) for array in (truth, reference, candidate))
    finite = np.isfinite(expected) & (np.abs(expected) <= limits.largest)
    usable = finite & np.isfinite(original) & np.isfinite(folded)
    magnitude = largest_of(expected[usable])
    reference_error = largest_of(original[usable] - expected[usable])
    candidate_error = largest_of(folded[usable] - expected[usable])
    allowed = max(
        allowance(limits, reference_error, magnitude),
        slack[0] * reference_error + slack[1] * limits.roundoff * magnitude,
    )
    problem, unmeasured = "", False
    if not np.isfinite(folded[finite & np.isfinite(original)]).all():
        problem = f"{who} gives NaN or infinity where the original does not"
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
    )


def _ask(case: Case) -> str:
    if case.given:
        return "look for NaN, infinity or far too large numbers in these inputs"
    return "pass inputs of your own with --data"


def pool(
    measurements: tuple[Measurement, ...],
    random: Container[str],
    others: Sequence[Container[str]] = (),
) -> tuple[Measurement, ...]:
    """What the rule allows on the random inputs, which are drawn alike, taken together.

    On one input an output may be near zero, or the reference near the truth, by chance, while a
    right fold has an error of the usual size. So for the types of `_POOLED` max|y| and the
    reference's error are the largest on all random inputs. The user's inputs, which may be of any
    size, set no scale for others; the reference's error on them is taken as at least the share of
    max|y| that it is on random inputs, as far as those are `sharp`.

    In half types 4 * u alone is 0.2 % or 1.6 % of max|y|, and the reference may be a quarter of
    max|y| away from the truth where it nearly overflows: the largest would excuse too much. There,
    an input is allowed at least half of the median.

    Args:
        random: names of the inputs of standard normal numbers.
        others: the same for each other kind of numbers that were drawn.
    """
    return tuple(
        replace(m, allowed=max(m.allowed, *_pools(m, measurements, random, others)))
        for m in measurements
    )


def _pools(
    m: Measurement,
    measurements: Sequence[Measurement],
    random: Container[str],
    others: Sequence[Container[str]],
) -> Iterator[float]:
    yield 0.0
    mine = [o for o in measurements if o.output == m.output and not o.problem]
    for kind in (random, *others):
        if m.inputs in kind:
            yield allowed_together(m, [o for o in mine if o.inputs in kind], True)
            return
    yield allowed_together(m, [o for o in mine if o.inputs in random and o.sharp], False)


def allowed_together(m: Measurement, others: Sequence[Measurement], drawn_alike: bool) -> float:
    """How far `m` may be off by the random inputs `others`; 0 where they do not apply to it."""
    if not m.pooled or not others:
        return 0.0
    if m.half:
        return 0.5 * median(o.allowed for o in others) if drawn_alike else 0.0
    if drawn_alike:
        floor = max(o.floor for o in others)
        return 2.0 * max(o.reference_error for o in others) + floor
    shares = (o.reference_error / o.magnitude for o in others if o.magnitude > 0.0)
    return 2.0 * max(m.reference_error, max(shares, default=0.0) * m.magnitude) + m.floor


def from_framework(
    output: str, dtype: str, case: Case, truth: Array, reference: Array, framework: Array
) -> Measurement:
    """The original framework's own output in the candidate's place."""
    who = "the original framework"
    return measure(output, dtype, case, truth, reference, framework, who, _FRAMEWORK)


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
    )


def _largest(dtype: str) -> float:
    if dtype == "bfloat16":
        return float(ml_dtypes.finfo(ml_dtypes.bfloat16).max)  # type: ignore[no-untyped-call]
    return float(np.finfo(dtype).max)


def wide(array: Array) -> Array:
    return np.asarray(array, dtype=np.float64)


def largest_of(values: Array) -> float:
    return float(np.max(np.abs(values))) if values.size else 0.0
