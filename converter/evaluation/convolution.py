"""Conv and ConvTranspose in float64, one sample at a time and in slabs.

torch does the inner loops. Its float64 convolutions copy every window of every sample at once (27
maps for a 3x3x3 kernel), so each call gets one sample, and only so many of its positions that this
stays within `SLAB` bytes. Padding is added to a slab, never to a map.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import torch
from torch.nn import functional as F

from converter.evaluation.windows import Window, pads_of, windows_of

Array = npt.NDArray[Any]
_Tile = tuple[tuple[int, int], ...]  # (first, stop) along each spatial axis

# How many bytes the windows of one call may take. More is not faster: it exceeds the caches.
SLAB = 32 * 2**20

_CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_CONV_TRANSPOSE = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}


def tensor(array: Array) -> torch.Tensor:
    """A float64, contiguous tensor; without a copy where the array is that already."""
    wide = np.ascontiguousarray(array, dtype=np.float64)
    plain = wide.flags.writeable and min(wide.strides, default=0) >= 0  # a Slice may reverse it
    return torch.from_numpy(wide if plain else wide.copy())


def conv(node: ir.Node, inputs: Sequence[Array | None]) -> tuple[Array, ...] | None:
    """Conv-1/11/22."""
    x, w = inputs[0], inputs[1]
    bias = inputs[2] if len(inputs) > 2 else None
    if x is None or w is None or x.ndim - 2 not in _CONV:
        return None
    windows = windows_of(node, x.shape[2:], w.shape[2:])
    group = node.attributes.get_int("group", 1)
    if group == x.shape[1] > 1:
        return (_depthwise(x, w, bias, windows),)
    kernel, shift = tensor(w), None if bias is None else tensor(bias)
    stride, dilation = [v.stride for v in windows], [v.dilation for v in windows]
    y = np.empty((len(x), len(w), *(window.count for window in windows)))
    tiles = _tiles([window.count for window in windows], prod(w.shape[1:]))
    for n, tile in product(range(len(x)), tiles):
        part = _CONV[len(windows)](
            tensor(_source(x[n : n + 1], windows, tile)), kernel, shift,
            stride=stride, dilation=dilation, groups=group,
        )  # fmt: skip
        y[n][_places(tile)] = part[0].numpy()
    return (y,)


def _tiles(counts: Sequence[int], numbers: int) -> list[_Tile]:
    """Cover `counts` positions with tiles; each position takes `numbers` float64 numbers."""
    ends: list[list[tuple[int, int]]] = []
    for axis, count in enumerate(counts):
        rest = prod(counts[axis + 1 :])
        most = max(1, SLAB // max(1, 8 * numbers * rest))
        ends.append([(first, min(first + most, count)) for first in range(0, count, most)])
        numbers *= min(most, count)
    return list(product(*ends))


def _places(tile: _Tile) -> tuple[slice, ...]:
    """The slices of a tile in an array (C, ..)."""
    return (slice(None), *(slice(first, stop) for first, stop in tile))


def _source(x: Array, windows: Sequence[Window], tile: _Tile) -> Array:
    """What the windows of a tile read, (1, C, ..), with zeros outside the map."""
    inside, at, sizes = [], [], []
    for window, (first, stop) in zip(windows, tile, strict=True):
        low = first * window.stride - window.begin
        high = (stop - 1) * window.stride + window.reach - window.begin
        begin, end = np.clip([low, high], 0, window.size)
        inside.append(slice(begin, end))
        at.append(slice(begin - low, end - low))
        sizes.append(high - low)
    if all(part.stop - part.start == size for part, size in zip(inside, sizes, strict=True)):
        return x[:, :, *inside]
    padded = np.zeros((*x.shape[:2], *sizes))
    padded[:, :, *at] = x[:, :, *inside]
    return padded


def _depthwise(x: Array, w: Array, bias: Array | None, windows: Sequence[Window]) -> Array:
    """One input channel a group, summed tap by tap: torch runs float64 groups one by one."""
    axes, channels = len(windows), x.shape[1]
    many = len(w) // channels
    # (channels, outputs of each, taps), to broadcast over the map.
    factors = tensor(w).reshape(channels, many, -1, *[1] * axes)
    y = torch.zeros((len(x), channels, many, *(v.count for v in windows)), dtype=torch.float64)
    if bias is not None:
        y += tensor(bias).reshape(channels, many, *[1] * axes)
    strides = [prod(w.shape[3 + i :]) for i in range(axes)]
    for n in range(len(x)):
        source = tensor(x[n]).unsqueeze(1)
        for taps in product(*(window.taps() for window in windows)):
            flat = sum(tap * step for (tap, _, _), step in zip(taps, strides, strict=True))
            read = source[(slice(None), slice(None), *(inside for _, _, inside in taps))]
            out = (slice(None), slice(None), *(out for _, out, _ in taps))
            y[n][out].addcmul_(read, factors[:, :, flat])
    return y.flatten(1, 2).numpy()


def conv_transpose(node: ir.Node, inputs: Sequence[Array | None]) -> tuple[Array, ...] | None:
    """ConvTranspose-1/11/22: every position spreads its kernel; the pads are cropped."""
    x, w = inputs[0], inputs[1]
    bias = inputs[2] if len(inputs) > 2 else None
    if x is None or w is None or x.ndim - 2 not in _CONV_TRANSPOSE:
        return None
    axes, size = x.ndim - 2, x.shape[2:]
    ones, group = [1] * axes, node.attributes.get_int("group", 1)
    stride = list(node.attributes.get_ints("strides", ones))
    dilation = list(node.attributes.get_ints("dilations", ones))
    extra = list(node.attributes.get_ints("output_padding", [0] * axes))
    reach = [(k - 1) * d + 1 for k, d in zip(w.shape[2:], dilation, strict=True)]
    pads = _transpose_pads(node, size, reach, stride, extra)
    sizes = [
        stride[i] * (size[i] - 1) + extra[i] + reach[i] - begin - end
        for i, (begin, end) in enumerate(pads)
    ]
    y = np.zeros((len(x), w.shape[1] * group, *sizes))
    if bias is not None:
        y += bias.reshape(-1, *ones)
    kernel = tensor(w)
    for n, tile in product(range(len(x)), _tiles(size, prod(w.shape[1:]))):
        part = _CONV_TRANSPOSE[axes](
            tensor(x[n][_places(tile)][None]), kernel,
            stride=stride, dilation=dilation, groups=group,
        )  # fmt: skip
        to, of = [], []
        for i, (first, _) in enumerate(tile):
            low = first * stride[i] - pads[i][0]
            begin, end = np.clip([low, low + int(part.shape[2 + i])], 0, sizes[i])
            to.append(slice(begin, end))
            of.append(slice(begin - low, end - low))
        y[n][(slice(None), *to)] += part[0].numpy()[(slice(None), *of)]
    return (y,)


def _transpose_pads(
    node: ir.Node,
    size: Sequence[int],
    reach: Sequence[int],
    stride: Sequence[int],
    extra: Sequence[int],
) -> list[tuple[int, int]]:
    name = node.attributes.get_string("auto_pad", "NOTSET")
    shape = node.attributes.get_ints("output_shape", None)
    axes = len(size)
    if shape is None and name not in {"SAME_UPPER", "SAME_LOWER"}:
        return pads_of(node, size, reach, stride)
    wanted = (
        list(shape)[-axes:]
        if shape is not None
        else [n * s for n, s in zip(size, stride, strict=True)]
    )
    found = []
    for i in range(axes):
        total = max(0, stride[i] * (size[i] - 1) + extra[i] + reach[i] - wanted[i])
        small, large = total // 2, total - total // 2
        found.append((small, large) if name == "SAME_UPPER" else (large, small))
    return found
