"""Comparing forms over the same atoms: exactly, or up to what they may be off by."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from converter.certificate.arrays import Array
from converter.certificate.atoms import Space
from converter.certificate.forms import OWN, Form
from converter.certificate.verdict import Differs, near

# The second graph's own magnitudes excuse no more than so many times the first one's: terms that it
# adds and takes away again, however large, are not in the first graph. Those of the value itself do
# not say it all: what a fold moves through a Relu is a bound here and a shift there. So the largest
# of any value is added to them.
MOST = 4.0


def excused(space: Space, off: Array, held: Array, held_off: Array, new: Array) -> Array:
    """What `new` may be off by, `off` or less: it is compared with `held`, of which the checker's
    own arithmetic may be off by `held_off`, which says what magnitudes were added up in it."""
    rounding, smallest = space.allowance
    size = np.abs(held) + held_off / OWN + np.abs(new) + space.magnitude
    return np.minimum(off, MOST * (rounding * size + smallest))


def same_numbers(space: Space, held: Sequence[tuple[Array, Array]], new: Sequence[
    tuple[Array, Array]], exactly: bool, what: str) -> None:  # fmt: skip
    """Pairs (number, what it may be off by).

    Raises:
        Differs: they are not the same.
    """
    for (expected, a), (found, b) in zip(held, new, strict=True):
        if exactly:
            if expected.shape != found.shape or not np.array_equal(expected, found):
                raise Differs(what)
            continue
        try:
            b = excused(space, b, expected, a, found)
            allowed = np.broadcast_to(a + b, np.broadcast_shapes(a.shape, b.shape, expected.shape))
            share = near(expected, found, allowed, what)
        except ValueError as error:
            raise Differs(f"{what} has another shape") from error
        space.moved(share)


def same_forms(
    space: Space, held: Sequence[Form], new: Sequence[Form], exactly: bool, what: str = "it"
) -> None:
    """Forms whose atoms are the same.

    Raises:
        Differs: their numbers are not.
    """
    for one, other in zip(held, new, strict=True):
        if one.ids != other.ids or one.shape != other.shape or one.real != other.real:
            raise Differs(f"{what} reads other values")
        pairs_one, pairs_other = [], []
        for atom in one.terms:
            s, r = one.terms[atom], other.terms[atom]
            pairs_one.append((s, (one.u + OWN) * np.abs(s)))
            pairs_other.append((r, (other.u + OWN) * np.abs(r)))
        same_numbers(space, pairs_one, pairs_other, exactly, f"the scale of {what}")
        same_numbers(
            space,
            [(one.t, one.m + OWN * np.abs(one.t))],
            [(other.t, other.m + OWN * np.abs(other.t))],
            exactly,
            f"the shift of {what}",
        )
