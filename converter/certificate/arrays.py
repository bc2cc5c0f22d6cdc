"""Arrays that broadcast over a value: a number a channel is held once a channel."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from converter.certificate.verdict import Doubt

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
Index = npt.NDArray[np.signedinteger[Any]]
Shape = tuple[int, ...]

# Numbers that are held at once to follow a rearrangement, and in one step of a comparison.
MOST = 1 << 26


def aligned(array: npt.ArrayLike, rank: int) -> Array:
    """With `rank` axes: ONNX broadcasts from the last axis on."""
    found = np.asarray(array, np.float64)
    return found.reshape((1,) * (rank - found.ndim) + found.shape)


def compressed(array: Array) -> Array:
    """Axes along which nothing changes get the size 1."""
    for axis in range(array.ndim):
        if array.shape[axis] > 1:
            first = array[(slice(None),) * axis + (slice(0, 1),)]
            if np.array_equal(np.broadcast_to(first, array.shape), array):
                array = first
    return np.asarray(array, order="C")  # of the same rank, also of a single number


def varies(array: Array, axes: Sequence[int]) -> bool:
    """Whether it has more than one number along one of the axes."""
    return any(array.shape[axis] != 1 for axis in axes)


def wide(array: Array, shape: Shape) -> Array:
    return np.broadcast_to(array, shape)


def bits(array: npt.NDArray[Any]) -> Hashable:
    """Type, shape and content, for keys. Texts are compared as texts: an array of them holds
    addresses, and one may be that of another text later."""
    content = tuple(array.reshape(-1).tolist()) if array.dtype.hasobject else array.tobytes()
    return str(array.dtype), array.shape, content


def must_fit(shape: Shape) -> Shape:
    """The same shape.

    Raises:
        Doubt: it has more numbers than are held.
    """
    if count(shape) > 4 * MOST:
        raise Doubt(f"a value of {count(shape):,} numbers is made, which is too many")
    return shape


def count(shape: Shape) -> int:
    return prod(shape)
