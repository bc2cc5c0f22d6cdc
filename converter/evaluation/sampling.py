"""Ops that pick numbers by position: GridSample in float64, and the indices of a MaxPool.

onnx's reference evaluator knows GridSample-16's modes only by their later names (`linear` for
`bilinear`), gives other numbers than the runtime for `cubic`, and is slow; where the windows of a
MaxPool overlap, its indices are not those into the whole tensor.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import torch
from torch.nn import functional as F

Array = npt.NDArray[Any]

_MODES = {
    "bilinear": "bilinear", "linear": "bilinear", "nearest": "nearest",
    "bicubic": "bicubic", "cubic": "bicubic",
}  # fmt: skip


def grid_sample(node: ir.Node, inputs: Sequence[Array | None]) -> tuple[Array, ...] | None:
    """GridSample-16/20/22 of images and volumes: torch's operator, from which it was taken."""
    x, grid = inputs[0], inputs[1]
    mode = _MODES.get(node.attributes.get_string("mode", "linear"))
    if x is None or grid is None or x.ndim not in {4, 5} or mode is None:
        return None
    y = F.grid_sample(
        torch.from_numpy(np.array(x, np.float64)),
        torch.from_numpy(np.array(grid, np.float64)),
        mode=mode,
        padding_mode=node.attributes.get_string("padding_mode", "zeros"),
        align_corners=bool(node.attributes.get_int("align_corners", 0)),
    )
    return (y.numpy(),)


def unpadded_places(
    node: ir.Node, places: Array, shape: Sequence[int], pads: Sequence[tuple[int, int]]
) -> Array:
    """MaxPool's second result: where each number lies in the flat input (MaxPool-8).

    Args:
        places: (N, C, ..), int64, where each lies in its padded channel.
        shape: of the input, (N, C, ..).
        pads: (begin, end) of each spatial axis; a negative one crops.
    """
    sizes = shape[2:]
    wide = [size + begin + end for size, (begin, end) in zip(sizes, pads, strict=True)]
    at = [
        axis - begin for axis, (begin, _) in zip(np.unravel_index(places, wide), pads, strict=True)
    ]
    if node.attributes.get_int("storage_order", 0):  # column by column
        at, sizes = at[::-1], sizes[::-1]
    inside = np.zeros_like(places)
    for place, size in zip(at, sizes, strict=True):
        inside = inside * size + place
    channel = np.arange(shape[0] * shape[1]).reshape(*shape[:2], *[1] * len(sizes))
    return channel * int(np.prod(sizes)) + inside
