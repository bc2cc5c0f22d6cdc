"""Factors that vary along what is added up: what counts is their proportion there.

sum_d w_d*x_d = c * sum_d v_d*x_d        if w_d = c*v_d
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from converter.certificate.arrays import Array, compressed
from converter.certificate.atoms import Space
from converter.certificate.forms import OWN
from converter.certificate.verdict import Differs, near


@dataclass(frozen=True, eq=False)
class Weights:
    """Factors, and what each of them may be off by, relative."""

    w: Array
    u: float


def proportion(
    space: Space, held: Weights, new: Weights, exactly: bool, axes: Sequence[int]
) -> Array | None:
    """What the new factors are times the held ones, with the size 1 along `axes`; None: the same.

    Raises:
        Differs: they do not stand in one proportion along the axes.
    """
    if exactly:
        if held.w.shape != new.w.shape or not np.array_equal(held.w, new.w):
            raise Differs("the scale of what is added up")
        return None
    shape = np.broadcast_shapes(held.w.shape, new.w.shape)
    old, now = (np.broadcast_to(array, shape) for array in (held.w, new.w))
    quotient = _largest(old, now, axes)
    allowed = (held.u + new.u + 4 * OWN) * np.abs(now)
    before = space.largest
    # Most are as they were: then nothing moves.
    for c in (np.ones(quotient.shape), quotient):
        try:
            share = near(c * old, now, allowed, "the scale of what is added up")
        except Differs as differs:
            space.largest, why = before, differs
            continue
        space.moved(share)
        return compressed(c)
    raise why


def _largest(old: Array, now: Array, axes: Sequence[int]) -> Array:
    """The quotient where the old numbers are largest along the axes."""
    places = sorted(axis % old.ndim for axis in axes)
    last = range(old.ndim - len(places), old.ndim)
    lines = [np.moveaxis(array, places, last) for array in (old, now)]
    lead = lines[0].shape[: old.ndim - len(places)]
    first, second = (line.reshape(*lead, -1) for line in lines)
    place = np.argmax(np.abs(first), axis=-1, keepdims=True)
    one, other = (np.take_along_axis(line, place, -1)[..., 0] for line in (first, second))
    quotient = np.divide(other, one, out=np.zeros(one.shape), where=one != 0)
    return np.expand_dims(quotient, tuple(places))
