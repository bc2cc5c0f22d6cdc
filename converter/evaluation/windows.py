"""Where the windows of a convolution or a pool lie: the pads of a node, and the taps.

The window of output `o` reads input `o * stride + tap * dilation - begin`, for each tap of its
kernel, as far as that lies on the map: what lies outside is never built.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import onnx_ir as ir


@dataclass(frozen=True)
class Window:
    """Windows along one axis: `count` of them over `size` numbers.

    `begin` and `end` are the padding, negative where it crops; `reach` is the span of a window.
    """

    size: int
    kernel: int
    stride: int
    dilation: int
    begin: int
    end: int
    count: int

    @property
    def reach(self) -> int:
        return (self.kernel - 1) * self.dilation + 1

    def taps(self) -> Iterator[tuple[int, slice, slice]]:
        """(tap, outputs, inputs) for each tap that reads the map at all; both slices have the same
        length."""
        inside = range(max(0, -self.begin), self.size + min(0, self.end))
        for tap in range(self.kernel):
            offset = tap * self.dilation - self.begin
            first = max(0, -((offset - inside.start) // self.stride))
            last = min(self.count - 1, (inside.stop - 1 - offset) // self.stride)
            if first <= last:
                start, stop = first * self.stride + offset, last * self.stride + offset + 1
                yield tap, slice(first, last + 1), slice(start, stop, self.stride)

    def counted(self, padding: bool) -> list[int]:
        """How many taps of each window fall on the map, or on the map and its padding."""
        low, high = -self.begin, self.size + self.end
        if not padding:
            low, high = max(0, low), min(self.size, high)
        starts = (o * self.stride - self.begin for o in range(self.count))
        # Of the taps at `start + tap * dilation`, those in [low, high).
        return [
            max(0, min(self.kernel, -((start - high) // self.dilation)))
            - max(0, min(self.kernel, -((start - low) // self.dilation)))
            for start in starts
        ]


def pads_of(
    node: ir.Node, size: Sequence[int], reach: Sequence[int], stride: Sequence[int]
) -> list[tuple[int, int]]:
    """(begin, end) for each spatial axis. `reach` is (kernel - 1) * dilation + 1."""
    axes = len(size)
    name = node.attributes.get_string("auto_pad", "NOTSET")
    if name in {"SAME_UPPER", "SAME_LOWER"}:
        found = []
        for i in range(axes):
            total = max(0, (-(-size[i] // stride[i]) - 1) * stride[i] + reach[i] - size[i])
            small, large = total // 2, total - total // 2
            found.append((small, large) if name == "SAME_UPPER" else (large, small))
        return found
    none = [0] * (2 * axes)
    pads = none if name == "VALID" else list(node.attributes.get_ints("pads", none))
    return [(pads[i], pads[axes + i]) for i in range(axes)]


def windows_of(
    node: ir.Node, size: Sequence[int], kernel: Sequence[int], *, ceil: bool = False
) -> list[Window]:
    """The windows of a node along each spatial axis.

    With `ceil` a last window may hang over the end, but must start inside the input or its begin
    padding (MaxPool-12, AveragePool-19).
    """
    ones = [1] * len(size)
    stride = list(node.attributes.get_ints("strides", ones))
    dilation = list(node.attributes.get_ints("dilations", ones))
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
    found = []
    for i, (begin, end) in enumerate(pads_of(node, size, reach, stride)):
        span = size[i] + begin + end - reach[i]
        count = span // stride[i] + 1
        if ceil:
            count = -(-span // stride[i]) + 1
            if (count - 1) * stride[i] >= size[i] + begin:
                count -= 1
        found.append(Window(size[i], kernel[i], stride[i], dilation[i], begin, end, max(0, count)))
    return found
