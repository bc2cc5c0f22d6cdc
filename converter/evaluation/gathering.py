"""Ops that pick numbers by indices, where onnx's reference evaluator is narrower than the
standard."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

Array = npt.NDArray[Any]


def gather_elements(node: ir.Node, inputs: Sequence[Array | None]) -> tuple[Array, ...] | None:
    """GatherElements-11/13: y[i][j] = x[places[i][j]][j] for axis 0.

    There may be fewer places than numbers along the other axes: then the first ones are read. The
    evaluator supports that for some axes only, and none longer than 64.
    """
    x, places = inputs[0], inputs[1]
    if x is None or places is None or x.ndim != places.ndim or not x.ndim:
        return None
    axis = node.attributes.get_int("axis", 0) % x.ndim
    read = tuple(slice(None) if i == axis else slice(size) for i, size in enumerate(places.shape))
    return (np.take_along_axis(x[read], places.astype(np.int64), axis=axis),)


def one_hot(node: ir.Node, inputs: Sequence[Array | None]) -> tuple[Array, ...] | None:
    """OneHot-9/11: `values[1]` at each place, `values[0]` elsewhere and where a place is outside.

    The evaluator only takes a scalar depth; the standard also allows a vector of one number.
    """
    places, depth, values = (np.asarray(value) for value in inputs[:3])
    axis, many = node.attributes.get_int("axis", -1), int(depth.ravel()[0])
    places = np.asarray(places).astype(np.int64)
    inside = np.where((places >= -many) & (places < many), places % max(1, many), -1)
    hot = np.expand_dims(inside, axis) == np.arange(many).reshape(
        [-1] + [1] * (places.ndim - axis % (places.ndim + 1))
    )
    return (np.where(hot, values[1], values[0]),)
