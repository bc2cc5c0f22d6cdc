"""A map on a value and on an operand that is broadcast to it by numpy's rules: aligned from the
last axis, sizes of 1 repeated."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from converter.folding.affine import Affine
from converter.folding.uniform import is_uniform
from converter.graph.values import Dim


def on_operand(affine: Affine, shape: Sequence[Dim] | None, rank: int | None) -> Affine | None:
    """The map of a result of `rank` axes as a map of an operand of `shape`.

    An operand that is repeated along the channels cannot carry the map, unless it is the same for
    all of them: then the result is None, as it is if the shape is not known.
    """
    if shape is None or rank is None:
        return None
    axis = affine.axis - (rank - len(shape))
    if axis < 0:
        return None
    if shape[axis] == affine.channels:
        return affine.along(axis)
    if shape[axis] == 1 and is_uniform(affine):
        return Affine(affine.scale[:1], affine.shift[:1], axis)
    return None


def on_result(
    affine: Affine, operand: Sequence[Dim] | None, result: Sequence[Dim] | None
) -> Affine | None:
    """The map of an operand as a map of the result; None if the shapes are not known."""
    if operand is None or result is None:
        return None
    axis = affine.axis + len(result) - len(operand)
    size = result[axis]
    if size == affine.channels:
        return affine.along(axis)
    if affine.channels == 1 and isinstance(size, int):
        return Affine(np.repeat(affine.scale, size), np.repeat(affine.shift, size), axis)
    return None
