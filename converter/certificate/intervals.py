"""Is one kernel the other's, row by row, up to a factor a row and k roundings a number?

The factor of row o is in every interval (K[o, j] +- off[o, j]) / K0[o, j], so in their
intersection; where K0 is zero, K must be. The factor is free within it, so the one that the first
graph uses is taken where it is inside: factors that drift by a rounding in every layer would
otherwise add up to something that no layer shows. Then every number is compared.

Most rows have the factor of the first graph, or are the same bytes: that is tried first, and is
done in one go through both weights. Scales of the inputs are divided out where none is zero:
|f*W0*s0 - W*s| <= u*|W*s| is |f*W0*(s0/s) - W| <= u*|W|.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from converter.certificate.arrays import Array, Mask
from converter.certificate.forms import OWN
from converter.certificate.kernels import Along, Block, Kernel, Weight
from converter.certificate.verdict import Differs, near

_TINY = np.finfo(np.float64).smallest_subnormal


@dataclass(frozen=True, eq=False)
class _Pair:
    """What reads the blocks of two kernels: the numbers, and what the second's may be off by."""

    kernel: Kernel
    along: Along
    held: Callable[[Block], Array]
    new: Callable[[Block], tuple[Array, Array]]

    def read(self, block: Block) -> tuple[Array, Array, Array]:
        """They are overwritten by the next block."""
        k0 = self.held(block)
        k, off = self.new(block)
        off += OWN * np.abs(k)
        return k0, k, off


def row_factors(held: Kernel, new: Kernel, hints: Sequence[Array]) -> tuple[Array, float]:
    """The factor of each row, and the largest move as a share of what is allowed.

    Args:
        held, new: the kernel that is known and the one that is asked about.
        hints: factors that the first graph has for the rows.

    Raises:
        Differs: there are none.
    """
    if held.shape != new.shape:
        raise Differs("the kernel has another shape")
    along = new.along
    held, new = _divided(held, new)
    for hint in hints:
        if np.all(hint == 1.0) and same_numbers(held, new):
            return held.alive(), 0.0
        pair = _Pair(new, along, held.numbers(along), new.bounded(along))
        found = _hinted(pair, hint)
        if found is not None:
            return found
    pair = _Pair(new, along, held.numbers(along), new.bounded(along))
    return _free(pair, hints)


def _divided(held: Kernel, new: Kernel) -> tuple[Kernel, Kernel]:
    """Both without the second one's scale of the input, where none is zero."""
    weights = isinstance(held, Weight) and isinstance(new, Weight) and held.group == new.group
    if not weights or held.s.shape != new.s.shape or np.any(new.s == 0):
        return held, new
    return replace(held, s=held.s / new.s), replace(new, s=np.ones_like(new.s))


def same_numbers(held: Kernel, new: Kernel) -> bool:
    """Whether they are the same weights of the same type over the same input, bit by bit."""
    if not isinstance(held, Weight) or not isinstance(new, Weight):
        return False
    if held.layout != new.layout or held.dtype != new.dtype or held.group != new.group:
        return False
    if held.shape != new.shape or not np.array_equal(held.s, new.s):
        return False
    if held.key is not None and held.key == new.key:
        return True
    one, other = held.opened(held.along), new.opened(held.along)
    return all(np.array_equal(one(block), other(block)) for block in held.blocks(held.along))


def identical(held: Kernel, new: Kernel) -> bool:
    """Whether they are the same numbers over the same atom."""
    if same_numbers(held, new):
        return True
    if held.shape != new.shape:
        return False
    along = held.along
    one, other = held.numbers(along), new.numbers(along)
    return all(np.array_equal(one(block), other(block)) for block in held.blocks(along))


def _hinted(pair: _Pair, hint: Array) -> tuple[Array, float] | None:
    """These factors, 0 for rows that are zero; None: they do not fit."""
    alive, pending = np.zeros(hint.shape, bool), np.zeros(hint.shape, bool)
    worst = 0.0
    for block in pair.kernel.blocks(pair.along):
        rows = slice(block[0], block[1])
        error, k, allowed = pair.read(block)
        error *= hint[rows, None, None]
        error -= k
        np.abs(error, out=error)
        np.maximum(allowed, _TINY, out=allowed)
        with np.errstate(all="ignore"):
            error /= allowed
        most = float(error.max(initial=0.0))
        there = _any(k)
        if not most <= 1.0:  # a NaN is bad
            bad = ~(error <= 1.0).all(axis=(1, 2))
            if np.any(bad & there):
                return None
            # Right, if the whole row is zero: its factor is 0.
            pending[rows] |= bad
            most = float(error[~bad].max(initial=0.0))
        alive[rows] |= there
        worst = max(worst, most)
    if np.any(pending & alive):
        return None
    return np.where(alive, hint, 0.0), worst


def _any(k: Array) -> Mask:
    """Of each row, whether a number is not zero: mostly the first one is not."""
    if not k.size:
        return np.zeros(k.shape[0], bool)
    found: Mask = k[:, 0, 0] != 0
    if not found.all():
        found[~found] = k[~found].any(axis=(1, 2))
    return found


def _free(pair: _Pair, hints: Sequence[Array]) -> tuple[Array, float]:
    """Factors from the numbers themselves.

    Raises:
        Differs: there are none.
    """
    blocks = list(pair.kernel.blocks(pair.along))
    factors, worst = np.zeros(pair.kernel.outputs), 0.0
    # A block along the outputs has whole rows, so what does not fit is seen at the first.
    for group in [[block] for block in blocks] if pair.along == "outputs" else [blocks]:
        rows = slice(group[0][0], group[0][1])
        factors[rows] = _within(pair, group, [hint[rows] for hint in hints])
        for block in group:
            k0, k, allowed = pair.read(block)
            try:
                share = near(factors[rows, None, None] * k0, k, allowed, "the weight")
            except Differs as why:
                raise _blamed(pair, block, why) from None
            worst = max(worst, share)
    return factors, worst


def _within(pair: _Pair, group: Sequence[Block], hints: Sequence[Array]) -> Array:
    """Of each row a factor that is in all intervals, if there is one; 0 for rows that are zero."""
    count = group[0][1] - group[0][0]
    low, high = np.full(count, -np.inf), np.full(count, np.inf)
    alive = np.zeros(count, bool)
    for block in group:
        k0, k, allowed = pair.read(block)
        zero = k0 == 0
        divisor = np.where(zero, 1.0, k0)
        one, other = (k - allowed) / divisor, (k + allowed) / divisor
        lower = np.where(zero, -np.inf, np.minimum(one, other))
        upper = np.where(zero, np.inf, np.maximum(one, other))
        low = np.maximum(low, lower.max(axis=(1, 2), initial=-np.inf))
        high = np.minimum(high, upper.min(axis=(1, 2), initial=np.inf))
        alive |= k.any(axis=(1, 2))
    open_ = ~np.isfinite(low) | ~np.isfinite(high)  # a row of zeros
    factors = np.where(open_, 0.0, (np.where(open_, 0, low) + np.where(open_, 0, high)) / 2)
    for hint in reversed(hints):
        factors = np.where((low <= hint) & (hint <= high) & ~open_, hint, factors)
    return np.where(alive, factors, 0.0)


def _blamed(pair: _Pair, block: Block, why: Differs) -> Differs:
    """The same for people: the number that stands out of its row.

    Where one number was changed no factor fits, and one between all of them would be off by most
    at the largest number of the row. The median of the ratios is what the others agree on.
    """
    if why.place is None:
        return why
    row = block[0] + why.place[0]
    whole = row, row + 1, 0, pair.kernel.shape[1]
    k0, k, allowed = (array.reshape(-1) for array in pair.read(whole))
    there = k0 != 0
    factor = float(np.median(k[there] / k0[there])) if there.any() else 0.0
    expected = factor * k0
    worst = int(np.argmax(np.abs(k - expected)))
    one, other, most = (float(array[worst]) for array in (expected, k, allowed))
    share = abs(other - one) / most if most > 0 else math.inf
    return Differs(why.what, (row,), one, other, (pair.kernel.outputs,), share)
