"""What `certify` returns, and how a checker says that it is in doubt."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Certified:
    """The second graph computes what the first one computes, for every input.

    Attributes:
        batchnorms: BatchNormalization nodes of the first graph.
        weights: numbers of the second graph's weights that were compared, each use once.
        largest_move: how far a weight or a value was moved at most, in roundings of its type.
        roundings: how far one may be moved (k).
        sizes: the sizes that were tried for the axes of free size, a dictionary an attempt.
        seconds: how long it took.
    """

    batchnorms: int
    weights: int
    largest_move: float
    roundings: float
    sizes: tuple[dict[str, int], ...]
    seconds: float

    def __bool__(self) -> bool:
        return True


@dataclass(frozen=True)
class NotCertified:
    """Nothing is known: the graphs may compute the same or not.

    Attributes:
        reason: a sentence that names the first value that was not found, what was expected there
            and what was found.
        value: the name of that value in the second graph, "" where the reason is another one.
        op: the op that computes it.
        channel: where in the value (an index along the channel axis); None if it is not one place.
        expected, found: the numbers there.
        seconds: how long it took.
    """

    reason: str
    value: str = ""
    op: str = ""
    channel: int | None = None
    expected: float | None = None
    found: float | None = None
    seconds: float = 0.0

    def __bool__(self) -> bool:
        return False

    def __str__(self) -> str:
        return f"Not certified: {self.reason}"


class Doubt(Exception):
    """The graph has something of which nothing is certified; the message is a sentence."""


class Differs(Exception):
    """Two values are not the same.

    Attributes:
        what: what of them differs.
        place: the index of the worst number, None if it is not one number.
        expected, found: the two numbers.
    """

    def __init__(
        self,
        what: str,
        place: tuple[int, ...] | None = None,
        expected: float | None = None,
        found: float | None = None,
    ) -> None:
        super().__init__(what)
        self.what, self.place, self.expected, self.found = what, place, expected, found

    def __str__(self) -> str:
        if self.expected is None or self.found is None:
            return self.what
        return f"{self.what} is {self.found:.9g} where {self.expected:.9g} was expected"


@dataclass(frozen=True, eq=False)
class Miss:
    """A value of the second graph that the first one does not have."""

    value: str
    op: str
    why: Differs | None

    def told(self) -> NotCertified:
        why = self.why
        name = f"{self.value!r}, a {self.op},"
        if why is None:
            return NotCertified(
                f"{name} reads values in a way in which the original does not.",
                value=self.value, op=self.op,
            )  # fmt: skip
        channel = None
        if why.place:
            channel = why.place[1] if len(why.place) > 1 else why.place[0]
        there = "" if channel is None else f" in channel {channel}"
        return NotCertified(
            f"{name} has no equal in the original: {why}{there}.",
            self.value, self.op, channel, why.expected, why.found,
        )  # fmt: skip


def near(
    expected: npt.NDArray[np.float64],
    found: npt.NDArray[np.float64],
    allowed: npt.NDArray[np.float64],
    what: str,
) -> float:
    """The largest |found - expected| as a share of what is allowed.

    Raises:
        Differs: it is more than allowed somewhere, or a number is not finite.
    """
    if np.any(allowed < 0):
        raise Differs(f"the bound of {what} is negative")
    error = np.abs(found - expected)
    bad = ~(error <= allowed)  # a NaN is bad
    if bad.any():
        place = np.unravel_index(int(np.argmax(np.where(bad, error, -1.0))), error.shape)
        wide = np.broadcast_to(expected, error.shape), np.broadcast_to(found, error.shape)
        raise Differs(what, tuple(map(int, place)), float(wide[0][place]), float(wide[1][place]))
    positive = allowed > 0
    if not positive.any():
        return 0.0
    share = np.divide(error, allowed, out=np.zeros_like(error), where=positive)
    return float(share.max(initial=0.0))
