"""Pools in float64, axis by axis and tap by tap.

A window is a box, so its maximum, or its sum, can be taken along one axis after the other. Only
what lies on the map is read: a window of 640x640 over a map of 8x8 costs only what the map costs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from converter.evaluation.sampling import unpadded_places
from converter.evaluation.windows import Window, windows_of

Array = npt.NDArray[Any]


def _windows(node: ir.Node, x: Array) -> list[Window] | None:
    kernel = node.attributes.get_ints("kernel_shape", None)
    if kernel is None or len(kernel) != x.ndim - 2:
        return None
    ceil = bool(node.attributes.get_int("ceil_mode", 0))
    return windows_of(node, x.shape[2:], kernel, ceil=ceil)


def _at(part: slice, axis: int, rank: int) -> tuple[slice, ...]:
    return (*[slice(None)] * axis, part, *[slice(None)] * (rank - axis - 1))


def _sums(x: Array, windows: Sequence[Window]) -> Array:
    for axis, window in enumerate(windows, start=2):
        y = np.zeros((*x.shape[:axis], window.count, *x.shape[axis + 1 :]))
        for _, out, inside in window.taps():
            y[_at(out, axis, x.ndim)] += x[_at(inside, axis, x.ndim)]
        x = y
    return x


def _largest(x: Array, windows: Sequence[Window]) -> Array:
    low = -np.inf if x.dtype.kind == "f" else np.iinfo(x.dtype).min
    for axis, window in enumerate(windows, start=2):
        y = np.full((*x.shape[:axis], window.count, *x.shape[axis + 1 :]), low, dtype=x.dtype)
        for _, out, inside in window.taps():
            part = y[_at(out, axis, x.ndim)]
            np.maximum(part, x[_at(inside, axis, x.ndim)], out=part)
        x = y
    return x


def _places(x: Array, windows: Sequence[Window]) -> tuple[Array, Array]:
    """The largest numbers and where in its channel each lies; of equal ones, the first.

    It goes from the last axis to the first, and keeps the first of rows with an equal maximum.
    """
    places = np.arange(np.prod(x.shape[2:], dtype=np.int64)).reshape(1, 1, *x.shape[2:])
    places = np.broadcast_to(places, x.shape)
    low = -np.inf if x.dtype.kind == "f" else np.iinfo(x.dtype).min
    for axis, window in reversed(list(enumerate(windows, start=2))):
        shape = (*x.shape[:axis], window.count, *x.shape[axis + 1 :])
        y, at = np.full(shape, low, dtype=x.dtype), np.full(shape, -1)
        for _, out, inside in window.taps():
            part, place = y[_at(out, axis, x.ndim)], at[_at(out, axis, x.ndim)]
            there = x[_at(inside, axis, x.ndim)]
            better = (there > part) | (place < 0)
            np.copyto(part, there, where=better)
            np.copyto(place, places[_at(inside, axis, x.ndim)], where=better)
        x, places = y, at
    return x, places


def max_pool(node: ir.Node, inputs: Sequence[Array | None]) -> tuple[Array, ...] | None:
    """MaxPool-1/8/10/11/12/22, of floats and of integers; padding is never the maximum."""
    x = np.asarray(inputs[0])
    windows = _windows(node, x)
    if windows is None:
        return None
    if len(node.outputs) == 1:
        return (_largest(x, windows),)
    y, places = _places(x, windows)
    return y, unpadded_places(node, places, x.shape, [(0, 0)] * len(windows))


def average_pool(node: ir.Node, inputs: Sequence[Array | None]) -> tuple[Array, ...] | None:
    """AveragePool-1/7/10/11/19/22: the sum of a window over how many of its numbers count."""
    x = np.asarray(inputs[0])
    windows = _windows(node, x)
    if windows is None:
        return None
    y = _sums(x, windows)
    padding = bool(node.attributes.get_int("count_include_pad", 0))
    for axis, window in enumerate(windows, start=2):
        y /= np.reshape(window.counted(padding), [-1] + [1] * (x.ndim - axis - 1))
    return (y,)


def lp_pool(node: ir.Node, inputs: Sequence[Array | None]) -> tuple[Array, ...] | None:
    """LpPool-2/11/18/22: the p-norm of each window."""
    x, p = np.asarray(inputs[0]), node.attributes.get_int("p", 2)
    windows = _windows(node, x)
    return None if windows is None else (_sums(np.abs(x) ** p, windows) ** (1.0 / p),)


def global_max_pool(node: ir.Node, inputs: Sequence[Array | None]) -> tuple[Array, ...] | None:
    """GlobalMaxPool-1/22, of any rank."""
    del node
    x = np.asarray(inputs[0])
    return (x.max(axis=tuple(range(2, x.ndim)), keepdims=True),)


def global_average_pool(node: ir.Node, inputs: Sequence[Array | None]) -> tuple[Array, ...] | None:
    """GlobalAveragePool-1/22, of any rank."""
    del node
    x = np.asarray(inputs[0])
    return (x.mean(axis=tuple(range(2, x.ndim)), keepdims=True),)


def global_lp_pool(node: ir.Node, inputs: Sequence[Array | None]) -> tuple[Array, ...] | None:
    """GlobalLpPool-2/22: the p-norm of each channel."""
    x, p = np.asarray(inputs[0]), node.attributes.get_int("p", 2)
    places = tuple(range(2, x.ndim))
    return (np.sum(np.abs(x) ** p, axis=places, keepdims=True) ** (1.0 / p),)
