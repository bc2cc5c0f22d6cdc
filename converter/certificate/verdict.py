"""What `certify` returns, and how a checker says that it is in doubt."""

from __future__ import annotations

import math
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
        sizes: of the array that `place` is an index of: 1 along axes where nothing changes.
        share: how far they are apart, as a share of what is allowed.
    """

    def __init__(
        self,
        what: str,
        place: tuple[int, ...] | None = None,
        expected: float | None = None,
        found: float | None = None,
        sizes: tuple[int, ...] = (),
        share: float = math.inf,
    ) -> None:
        super().__init__(what)
        self.what, self.place, self.expected, self.found = what, place, expected, found
        self.sizes, self.share = sizes, share

    def __str__(self) -> str:
        if self.expected is None or self.found is None:
            return self.what
        return f"{self.what} is {self.found:.9g} where {self.expected:.9g} was expected"

    def alone(self) -> Differs:
        """The same, to be kept: what was raised holds the frames that it went through."""
        return Differs(self.what, self.place, self.expected, self.found, self.sizes, self.share)

    @property
    def channel(self) -> int | None:
        """Where along the only axis on which the numbers change; None: there is not one."""
        along = [axis for axis, size in enumerate(self.sizes) if size != 1]
        return self.place[along[0]] if self.place and len(along) == 1 else None

    @property
    def where(self) -> str:
        """ " in channel 3", " at (0, 3, 2)" where numbers change along several axes, or ""."""
        if self.channel is not None:
            return f" in channel {self.channel}"
        changing = self.place is not None and any(size != 1 for size in self.sizes)
        return f" at {self.place}" if changing else ""

    def away(self, k: float) -> str:
        """How many roundings lie between the numbers, where that says anything."""
        if not self.share * k < _FAR:
            return ""
        return f", {self.share * k:.1f} roundings away: {k:g} are allowed"


# Beyond that many roundings it is no matter of rounding.
_FAR = 1e4


@dataclass(frozen=True, eq=False)
class Miss:
    """A value of the second graph that the first one does not have."""

    value: str
    op: str
    why: Differs | None

    def told(self, k: float) -> NotCertified:
        """`k`: by how many roundings a number may be moved."""
        why = self.why
        name = f"{self.value!r}, a {self.op},"
        if why is None:
            return NotCertified(
                f"{name} has no equal in the original: nothing like it is made there of what it "
                "reads.",
                value=self.value, op=self.op,
            )  # fmt: skip
        return NotCertified(
            f"{name} has no equal in the original: {why}{why.where}{why.away(k)}.",
            self.value, self.op, why.channel, why.expected, why.found,
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
    error, allowed = np.broadcast_arrays(np.abs(found - expected), allowed)
    bad = ~(error <= allowed)  # a NaN is bad
    if bad.any():
        place = np.unravel_index(int(np.argmax(np.where(bad, error, -1.0))), error.shape)
        one, other, most = (
            float(np.broadcast_to(a, error.shape)[place]) for a in (expected, found, allowed)
        )
        away = abs(other - one) / most if most > 0 else math.inf
        raise Differs(what, tuple(map(int, place)), one, other, error.shape, away)
    positive = allowed > 0
    if not positive.any():
        return 0.0
    share = np.divide(error, allowed, out=np.zeros(error.shape), where=positive)
    return float(share.max(initial=0.0))
