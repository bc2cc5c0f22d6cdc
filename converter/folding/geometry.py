"""Where the taps of a convolution lie, and how those of a small kernel lie in a large one."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from converter.folding.view import View

# (offset, step) on each axis of the large kernel at which the small one's taps lie.
Taps = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Place:
    """Where a weight lies in a larger one: at which taps, and in how many groups."""

    taps: Taps = ()
    group: int = 1


WHOLE = Place()


@dataclass(frozen=True)
class Geometry:
    """The positions that a convolution or a pool reads; one entry for each spatial axis.

    `extra` is the output_padding of a transposed convolution.
    """

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    begin: tuple[int, ...]
    end: tuple[int, ...]
    extra: tuple[int, ...]
    group: int

    @property
    def growth(self) -> tuple[int, ...]:
        """What the padding adds to a size, less the reach of the kernel; the other way round when
        transposed. With equal growth and stride, result sizes are equal for any input size."""
        return tuple(
            begin + end - (taps - 1) * dilation - extra
            for begin, end, taps, dilation, extra in zip(
                self.begin, self.end, self.kernel, self.dilation, self.extra, strict=True
            )
        )

    def taps_in(self, large: Geometry, *, same_size: bool = False) -> Taps | None:
        """Where this kernel's taps lie among those of `large`; None if one lies on none of them.

        Tap u of output i reads position stride*i - begin + dilation*u (transposed: tap u of
        input i is added to that position). So tap u is tap v of the large kernel where
        dilation'*v = begin' - begin + dilation*u.

        Args:
            same_size: both results are known to have equal sizes; with equal growth they always do.
        """
        if self.stride != large.stride or not (same_size or self.growth == large.growth):
            return None
        found = []
        for axis, taps in enumerate(self.kernel):
            ahead = large.begin[axis] - self.begin[axis]
            step, rest = divmod(self.dilation[axis], large.dilation[axis])
            offset, odd = divmod(ahead, large.dilation[axis])
            if taps == 1:
                step, rest = 1, 0
            if rest or odd or offset < 0 or offset + (taps - 1) * step >= large.kernel[axis]:
                return None
            found.append((offset, step))
        return tuple(found)

    def identity(self, channels: int) -> Geometry:
        """The depthwise 1x1 convolution, on as many axes as this."""
        ones, zeros = (1,) * len(self.kernel), (0,) * len(self.kernel)
        return Geometry(ones, ones, ones, zeros, zeros, zeros, channels)


def geometry(node: ir.Node, view: View) -> Geometry | None:
    """The geometry of a Conv or ConvTranspose with constant weights and fixed pads; None for any
    other node."""
    if node.op_type not in {"Conv", "ConvTranspose"} or node.domain != "":
        return None
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    if view.why_not_constant(node.inputs[1], node, "weight") or (
        bias is not None and view.why_not_constant(bias, node, "bias")
    ):
        return None
    weight = node.inputs[1]
    assert weight is not None
    assert weight.const_value is not None
    kernel = tuple(weight.const_value.shape.numpy()[2:])
    return positions(node, kernel, node.attributes.get_int("group", 1))


def positions(node: ir.Node, kernel: tuple[int, ...], group: int) -> Geometry | None:
    """The geometry by the attributes of a convolution or pool; None if its pads are not fixed."""
    axes = len(kernel)
    given, ones = node.attributes, (1,) * axes
    stride, dilation = (tuple(given.get_ints(name, ones)) for name in ("strides", "dilations"))
    pads = _pads(node, kernel, stride, dilation)
    if pads is None or "output_shape" in given:
        return None
    extra = tuple(given.get_ints("output_padding", (0,) * axes))
    return Geometry(kernel, stride, dilation, pads[:axes], pads[axes:], extra, group)


def _pads(
    node: ir.Node, kernel: tuple[int, ...], stride: tuple[int, ...], dilation: tuple[int, ...]
) -> tuple[int, ...] | None:
    """The pads at the beginnings, then at the ends; None if they depend on the size.

    SAME pads (ceil(n/stride) - 1)*stride + k - n, which is k - 1 for stride 1, and nothing for
    k = 1; of an odd number, the extra one goes to the end (UPPER) or the beginning (LOWER).
    """
    padding = node.attributes.get_string("auto_pad", "NOTSET")
    none = (0,) * len(kernel)
    if padding == "NOTSET":
        return tuple(node.attributes.get_ints("pads", none + none))
    if padding == "VALID" or (set(kernel) <= {1} and node.op_type != "ConvTranspose"):
        return none + none
    if node.op_type != "Conv" or set(stride) | set(dilation) != {1}:
        return None
    less = tuple((taps - 1) // 2 for taps in kernel)
    more = tuple(taps // 2 for taps in kernel)
    return less + more if padding == "SAME_UPPER" else more + less
