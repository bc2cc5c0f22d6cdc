"""Is one kernel the other's, row by row, up to a factor a row and k roundings a number?

The factor of row o is in every interval (K[o, j] +- off[o, j]) / K0[o, j], so in their
intersection; where K0 is zero, K must be. The factor is free within it, so the one that the first
graph uses is taken where it is inside: factors that drift by a rounding in every layer would
otherwise add up to something that no layer shows. Then every number is compared.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from converter.certificate.arrays import Array
from converter.certificate.forms import OWN
from converter.certificate.verdict import Differs, near


def row_factors(held: Array, new: Array, off: Array, hints: Sequence[Array]) -> tuple[Array, float]:
    """The factor of each row, and the largest move as a share of what is allowed.

    Args:
        held, new: (rows, numbers), the kernel that is known and the one that is asked about.
        off: what each number of `new` may be off by.
        hints: factors that the first graph has for the rows.

    Raises:
        Differs: there are none.
    """
    if held.shape != new.shape:
        raise Differs("the kernel has another shape")
    allowed = off + OWN * np.abs(new)
    empty = ~new.any(axis=1)
    for hint in hints:
        factors = np.where(empty, 0.0, hint)
        error = factors[:, None] * held
        error -= new
        np.abs(error, out=error)
        if (error <= allowed).all():
            np.divide(error, allowed, out=error, where=allowed > 0)
            return factors, float(error.max(initial=0.0))
    zero = held == 0
    divisor = np.where(zero, 1.0, held)
    one, other = (new - allowed) / divisor, (new + allowed) / divisor
    low = np.where(zero, -np.inf, np.minimum(one, other)).max(axis=1, initial=-np.inf)
    high = np.where(zero, np.inf, np.maximum(one, other)).min(axis=1, initial=np.inf)
    open_ = ~np.isfinite(low) | ~np.isfinite(high)  # a row of zeros
    middle = np.where(open_, 0.0, (np.where(open_, 0, low) + np.where(open_, 0, high)) / 2)
    factors = middle
    for hint in reversed(hints):
        factors = np.where((low <= hint) & (hint <= high) & ~open_, hint, factors)
    factors = np.where(empty, 0.0, factors)
    try:
        return factors, near(factors[:, None] * held, new, allowed, "the weight")
    except Differs as why:
        raise _blamed(held, new, allowed, why) from None


def _blamed(held: Array, new: Array, allowed: Array, why: Differs) -> Differs:
    """The same for people: the number that stands out of its row.

    Where one number was changed no factor fits, and one between all of them would be off by most
    at the largest number of the row. The median of the ratios is what the others agree on.
    """
    if why.place is None:
        return why
    row = why.place[0]
    there = held[row] != 0
    factor = float(np.median(new[row][there] / held[row][there])) if there.any() else 0.0
    expected = factor * held[row]
    worst = int(np.argmax(np.abs(new[row] - expected)))
    one, other, most = (float(array[worst]) for array in (expected, new[row], allowed[row]))
    share = abs(other - one) / most if most > 0 else math.inf
    return Differs(why.what, (row,), one, other, (len(held),), share)
