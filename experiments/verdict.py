"""Does a measurement say what a claim says? Means over seeds, and how sure they are.

Of n repetitions x_1 ... x_n with mean m and standard deviation s (with n - 1), the 95 % interval
of the mean is m +- t * s / sqrt(n), t the quantile of Student's distribution with n - 1 degrees
of freedom ("Student", Biometrika 6, 1908). Two arms are compared seed by seed, as pairs: x_i is
the difference of the runs with the seed i.

    holds           the whole interval is where the claim says
    does not hold   none of it is
    undecided       the border lies within: the spread is too wide for so few repetitions

A single repetition has no spread: its interval is the whole line, and nothing is decided.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

# Two-sided 95 % quantiles of Student's t for 1, 2, ... degrees of freedom; the last for more.
STUDENT = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)


class Verdict(StrEnum):
    """What is said of a claim."""

    HOLDS = "holds"
    FAILS = "does not hold"
    UNDECIDED = "undecided"


@dataclass(frozen=True)
class Estimate:
    """A mean over repetitions with its 95 % interval; +-infinity for a single one."""

    values: tuple[float, ...]
    mean: float
    low: float
    high: float

    @property
    def deviation(self) -> float:
        """Standard deviation of the repetitions, 0 for one."""
        n = len(self.values)
        if n < 2:
            return 0.0
        return math.sqrt(sum((x - self.mean) ** 2 for x in self.values) / (n - 1))


def estimate(values: Sequence[float]) -> Estimate:
    """The mean of `values` and its interval. Raises ValueError for none."""
    n = len(values)
    if not n:
        raise ValueError("no repetition, no estimate")
    mean = sum(values) / n
    if n == 1 or not math.isfinite(mean):
        return Estimate(tuple(values), mean, -math.inf, math.inf)
    deviation = math.sqrt(sum((x - mean) ** 2 for x in values) / (n - 1))
    margin = STUDENT[min(n - 1, len(STUDENT)) - 1] * deviation / math.sqrt(n)
    return Estimate(tuple(values), mean, mean - margin, mean + margin)


def judge(found: Estimate, low: float, high: float) -> Verdict:
    """Whether the mean lies in the open range (low, high), either of which may be infinite."""
    if low < found.low and found.high < high:
        return Verdict.HOLDS
    if found.high <= low or found.low >= high:
        return Verdict.FAILS
    return Verdict.UNDECIDED


def together(verdicts: Sequence[Verdict], *, either: bool = False) -> Verdict:
    """The verdict of a claim from those of its parts: all of them must hold, or `either`.

    Raises ValueError for no part.
    """
    if not verdicts:
        raise ValueError("a claim without a measurement")
    decisive, other = (Verdict.HOLDS, Verdict.FAILS) if either else (Verdict.FAILS, Verdict.HOLDS)
    if decisive in verdicts:
        return decisive
    return other if set(verdicts) == {other} else Verdict.UNDECIDED
