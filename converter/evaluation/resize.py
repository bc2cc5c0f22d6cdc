"""Resize in float64: one matrix of weights per axis.

Resize-11/13/18/19 is separable: output i of an axis is a weighted sum of a few inputs around the
position that the coordinate transformation maps i to. onnx's reference evaluator goes element by
element, and partly in float32.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

Array = npt.NDArray[Any]
Float64 = npt.NDArray[np.float64]


def resize(node: ir.Node, inputs: Sequence[Array | None]) -> tuple[Array, ...] | None:
    """Resize-10/11/13/18/19 and Upsample-7/9.

    None for antialiasing, crops and kept aspect ratios, which are left to the evaluator.
    """
    x = inputs[0]
    mode = node.attributes.get_string("mode", "nearest")
    transform = node.attributes.get_string(_TRANSFORM, "half_pixel")
    rounding = node.attributes.get_string("nearest_mode", "round_prefer_floor")
    if node.op_type == "Upsample" or len(inputs) == 2:  # Upsample-7/9 and Resize-10
        factors = node.attributes.get_floats("scales", None)
        inputs = [x, None, inputs[1] if factors is None else np.asarray(factors)]
        transform, rounding = "asymmetric", "floor"
    if (
        x is None
        or x.dtype != np.float64
        or node.attributes.get_int("antialias", 0) != 0
        or transform not in _POSITIONS
        or node.attributes.get_string("keep_aspect_ratio_policy", "stretch") != "stretch"
    ):
        return None
    scales = inputs[2] if len(inputs) > 2 else None
    sizes = inputs[3] if len(inputs) > 3 else None
    axes = [axis % x.ndim for axis in node.attributes.get_ints("axes", range(x.ndim))]
    y = x
    for place, axis in enumerate(axes):
        length = x.shape[axis]
        if scales is not None and scales.size:
            scale = float(scales[place])
            count = int(np.floor(length * scale))
        elif sizes is not None and sizes.size:
            count = int(sizes[place])
            scale = count / length
        else:
            return None
        if scale == 1.0:
            continue
        positions = _POSITIONS[transform](length, count, scale)
        weights = (
            _nearest(_ROUND[rounding](positions), length)
            if mode == "nearest"
            else _weights(node, mode, positions, length)
        )
        y = np.moveaxis(np.tensordot(weights, y, axes=([1], [axis])), 0, axis)
    return (y,)


_TRANSFORM = "coordinate_transformation_mode"


def _half_pixel(length: int, count: int, scale: float) -> Float64:
    del length
    return np.asarray((np.arange(count) + 0.5) / scale - 0.5)


def _symmetric(length: int, count: int, scale: float) -> Float64:
    adjustment = count / (scale * length)
    return length / 2 * (1 - adjustment) + _half_pixel(length, count, scale)


def _pytorch(length: int, count: int, scale: float) -> Float64:
    return _half_pixel(length, count, scale) if count > 1 else np.zeros(count)


def _corners(length: int, count: int, scale: float) -> Float64:
    del scale
    return np.linspace(0.0, length - 1.0, count) if count > 1 else np.zeros(count)


def _asymmetric(length: int, count: int, scale: float) -> Float64:
    del length
    return np.asarray(np.arange(count) / scale)


def _for_nearest(length: int, count: int, scale: float) -> Float64:
    """`tf_half_pixel_for_nn`, which only Resize-11 has."""
    del length
    return np.asarray((np.arange(count) + 0.5) / scale)


_POSITIONS = {
    "half_pixel": _half_pixel,
    "half_pixel_symmetric": _symmetric,
    "pytorch_half_pixel": _pytorch,
    "align_corners": _corners,
    "asymmetric": _asymmetric,
    "tf_half_pixel_for_nn": _for_nearest,
}
_ROUND: dict[str, Callable[[Float64], Float64]] = {
    "round_prefer_floor": lambda x: np.asarray(np.ceil(x - 0.5)),
    "round_prefer_ceil": lambda x: np.asarray(np.floor(x + 0.5)),
    "floor": lambda x: np.asarray(np.floor(x)),
    "ceil": lambda x: np.asarray(np.ceil(x)),
}


def _nearest(positions: Float64, length: int) -> Float64:
    """(outputs, inputs) that pick one input each."""
    return np.asarray(np.eye(length)[np.clip(positions, 0, length - 1).astype(int)])


def _weights(node: ir.Node, mode: str, positions: Float64, length: int) -> Float64:
    """(outputs, inputs) of one axis; what lies outside is the edge, or is left out."""
    matrix = np.zeros((len(positions), length))
    rows = np.arange(len(positions))
    base = np.floor(positions)
    ratio = positions - base
    taps = {0: 1 - ratio, 1: ratio} if mode == "linear" else _cubic(node, ratio)
    outside = bool(node.attributes.get_int("exclude_outside", 0))
    for offset, weight in taps.items():
        at = (base + offset).astype(int)
        inside = (at >= 0) & (at < length)
        kept = np.where(inside, weight, 0.0) if outside else weight
        np.add.at(matrix, (rows, np.clip(at, 0, length - 1)), kept)
    if outside:
        matrix /= matrix.sum(axis=1, keepdims=True)
    return matrix


def _cubic(node: ir.Node, t: Float64) -> dict[int, Float64]:
    """Keys (1981), with the coefficient `cubic_coeff_a`."""
    a = node.attributes.get_float("cubic_coeff_a", -0.75)

    def near(x: Float64) -> Float64:
        return np.asarray(((a + 2) * x - (a + 3)) * x * x + 1)

    def far(x: Float64) -> Float64:
        return np.asarray(((a * x - 5 * a) * x + 8 * a) * x - 4 * a)

    return {-1: far(t + 1), 0: near(t), 1: near(1 - t), 2: far(2 - t)}
