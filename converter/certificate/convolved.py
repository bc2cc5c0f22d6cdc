"""What a convolution makes of a constant that is added to its input, a number a place."""

from __future__ import annotations

from itertools import product
from math import prod
from typing import Any

import numpy as np

from converter.certificate.arrays import MOST, Array, Shape
from converter.certificate.forms import OWN
from converter.certificate.verdict import Doubt
from converter.certificate.windows import Windows


def convolved(
    rounding: float,
    added: tuple[Array, Array],
    shape: Shape,
    weight: Array,
    group: int,
    windows: Windows,
    kept: tuple[slice, ...],
) -> tuple[Array, Array]:
    """The result and what it may be off by, from the constant and what that may be off by.

    Args:
        rounding: what a weight may be off by, relative.
        added: both broadcast to `shape`.
        shape: of the input (samples, channels, *sizes).
        weight: (outputs, inputs of a group, *taps), in the type's numbers.
        group: of the convolution.
        windows, kept: its geometry; `kept` are the taps that it speaks of.

    Raises:
        Doubt: there are too many numbers.
    """
    t, m = added
    samples = max(t.shape[0], m.shape[0])
    wide = samples, *shape[1:]
    if prod(wide) * prod(windows.taps) > MOST:
        raise Doubt("a shift with too many numbers is convolved")
    weight = weight[(slice(None), slice(None), *kept)] if kept else weight
    size = np.abs(weight)
    t, m = (np.broadcast_to(array, wide) for array in (t, m))
    result = _applied(t, weight, group, windows)
    magnitude = _applied(np.abs(t), size, group, windows)
    return result, _applied(m, size, group, windows) + (rounding + 2 * OWN) * magnitude


def _applied(x: Array, weight: Array, group: int, windows: Windows) -> Array:
    axes = len(windows.taps)
    around = ((0, 0), (0, 0), *zip(windows.begins, windows.ends, strict=True))
    x = np.pad(x, around)
    sizes = tuple(
        (x.shape[i + 2] - (windows.taps[i] - 1) * windows.dilations[i] - 1) // windows.strides[i]
        + 1
        for i in range(axes)
    )
    outputs, inputs = weight.shape[:2]
    result = np.zeros((x.shape[0], group, outputs // group, *sizes))
    for number, tap in enumerate(product(*(range(n) for n in windows.taps))):
        seen: tuple[Any, ...] = tuple(
            slice(first := tap[i] * windows.dilations[i], first + (sizes[i] - 1) * step + 1, step)
            for i, step in enumerate(windows.strides)
        )
        part = x[(slice(None), slice(None), *seen)].reshape(x.shape[0], group, inputs, *sizes)
        kernel = weight.reshape(outputs, inputs, -1)[:, :, number].reshape(group, -1, inputs)
        result += np.einsum("goi,ngi...->ngo...", kernel, part, optimize=True)
    return result.reshape(x.shape[0], outputs, *sizes)
