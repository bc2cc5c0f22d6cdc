"""Where the windows of convolutions and pools lie: explicit pads, strides and dilations."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, replace
from typing import Any

from converter.certificate.arrays import Mask, Shape
from converter.certificate.verdict import Doubt


@dataclass(frozen=True)
class Windows:
    """Of each spatial axis: taps, stride, dilation (1 for one tap), pads at the begin and end.

    `auto` names the rule that the pads follow where they depend on a size that is open: two
    paddings that are the same at the sizes that are tried are not the same at others.
    """

    taps: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    begins: tuple[int, ...]
    ends: tuple[int, ...]
    auto: str = ""

    @property
    def padded(self) -> bool:
        return any(self.begins) or any(self.ends)

    def key(self) -> Hashable:
        return self.taps, self.strides, self.dilations, self.begins, self.ends, self.auto

    def inside(self, begins: tuple[int, ...], ends: tuple[int, ...]) -> Windows:
        """The same over a value that reaches further by so much on each side."""
        return replace(
            self,
            begins=tuple(a - b for a, b in zip(self.begins, begins, strict=True)),
            ends=tuple(a - b for a, b in zip(self.ends, ends, strict=True)),
        )

    def unpadded(self) -> Windows:
        zero = (0,) * len(self.taps)
        return replace(self, begins=zero, ends=zero, auto="")


def windows_of(attrs: dict[str, Any], sizes: Shape, taps: Shape, *, free: bool) -> Windows:
    """Of a node with these attributes over an input of these spatial sizes.

    `free`: whether the graph has sizes that are open.

    Raises:
        Doubt: the attributes do not fit to the kernel, or a padding cuts off.
    """
    axes = len(sizes)
    strides = tuple(attrs.get("strides", (1,) * axes))
    dilations = tuple(attrs.get("dilations", (1,) * axes))
    pads = tuple(attrs.get("pads", (0,) * (2 * axes)))
    begins, ends = pads[:axes], pads[axes:]
    auto = attrs.get("auto_pad", "NOTSET")
    if auto == "VALID":
        begins = ends = (0,) * axes
    elif auto in {"SAME_UPPER", "SAME_LOWER"}:
        totals = [
            max((-(-n // stride) - 1) * stride + (k - 1) * d + 1 - n, 0)
            for n, stride, k, d in zip(sizes, strides, taps, dilations, strict=True)
        ]
        small, large = tuple(t // 2 for t in totals), tuple(t - t // 2 for t in totals)
        begins, ends = (small, large) if auto == "SAME_UPPER" else (large, small)
    if tuple(attrs.get("kernel_shape", taps)) != tuple(taps) or min(*begins, *ends) < 0:
        raise Doubt("the attributes of its windows do not fit")
    dilations = tuple(1 if k == 1 else d for k, d in zip(taps, dilations, strict=True))
    sliding = free and auto.startswith("SAME") and any(stride > 1 for stride in strides)
    return Windows(taps, strides, dilations, begins, ends, auto if sliding else "")


def trimmed(live: Mask, windows: Windows) -> tuple[Windows, tuple[slice, ...]]:
    """Without borders of zeros that lie in the padding's reach: (windows, what stays of the taps).

    `live`: of each tap, whether a number of it is not zero.
    """
    if windows.auto:
        return windows, (slice(None),) * len(windows.taps)
    kept = []
    taps, begins, ends = list(windows.taps), list(windows.begins), list(windows.ends)
    for axis in range(len(taps)):
        low, high, step = 0, taps[axis], windows.dilations[axis]
        while high - low > 1 and begins[axis] >= step and not live.take(low, axis).any():
            low, begins[axis] = low + 1, begins[axis] - step
        while high - low > 1 and ends[axis] >= step and not live.take(high - 1, axis).any():
            high, ends[axis] = high - 1, ends[axis] - step
        taps[axis] = high - low
        kept.append(slice(low, high))
    dilations = tuple(1 if k == 1 else d for k, d in zip(taps, windows.dilations, strict=True))
    found = Windows(tuple(taps), windows.strides, dilations, tuple(begins), tuple(ends))
    return found, tuple(kept)
