"""Linear ops over positions: Conv, ConvTranspose, AveragePool, and x itself as a 1x1 Conv.

One takes up another when all taps of the other lie on its own, and the other has the same
groups or finer ones: a weight of finer groups is a weight of coarser groups with zeros in it, so
the sum has the size of the larger one.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np
import onnx_ir as ir

from converter.folding.affine import Affine, along_axis
from converter.folding.constants import Constants
from converter.folding.geometry import Geometry, Place, geometry, positions
from converter.folding.view import View
from converter.graph.rounding import Float64
from converter.graph.values import Dim


@dataclass(frozen=True, eq=False)
class Window:
    """A linear op over positions, with constant weights.

    Attributes:
        op: "Conv" or "ConvTranspose": how the taps are read, and how the weight is laid out.
        node: None for x itself.
        geometry: where its taps lie.
        inputs, outputs: channels.
        sizes: of its result, as far as known.
    """

    op: str
    node: ir.Node | None
    geometry: Geometry
    inputs: int
    outputs: int
    sizes: tuple[Dim, ...] | None

    axis = 1  # the axis of the result's channels
    biased = True

    @property
    def rank(self) -> int:
        return 2 + len(self.geometry.kernel)

    @property
    def extent(self) -> tuple[int, int]:
        """For choosing a target: the larger of two is more likely to take up the other."""
        return prod(self.geometry.kernel), -self.geometry.group

    def place(self, other: object) -> Place | None:
        """Where `other`, which reads the same value, lies in this; None if it does not fit."""
        if not isinstance(other, Window) or other.op != self.op:
            return None
        if (other.inputs, other.outputs) != (self.inputs, self.outputs):
            return None
        if other.geometry.group % self.geometry.group:
            return None
        fixed = all(isinstance(size, int) for size in self.sizes or (None,))
        known = fixed and self.sizes == other.sizes
        taps = other.geometry.taps_in(self.geometry, same_size=known)
        return None if taps is None else Place(taps, other.geometry.group)

    def identity(self) -> Window | None:
        """x itself as an op of this kind; None if the number of channels changes."""
        if self.inputs != self.outputs:
            return None
        copy = self.geometry.identity(self.inputs)
        return Window(self.op, None, copy, self.inputs, self.inputs, None)

    def weight(self, constants: Constants | None) -> Float64:
        """(Cout, Cin/group, k...), or (Cin, Cout/group, k...) when transposed.

        An AveragePool has 1/k everywhere, x itself 1.
        """
        if constants is not None and self.op == constants.node.op_type:
            return constants[1]
        kernel = self.geometry.kernel
        return np.full((self.inputs, 1, *kernel), 1.0 / prod(kernel))

    def bias(self, constants: Constants | None) -> Float64 | None:
        """(Cout,), None where there is none."""
        has = constants is not None and self.op == constants.node.op_type
        return constants.get(2) if constants is not None and has else None

    def negate(self, target: Constants) -> None:
        """-(W*x + b) = (-W)*x - b."""
        target[1] = -target[1]
        bias = target.get(2)
        if bias is not None:
            target[2] = -bias

    def add(self, target: Constants, weight: Float64, place: Place) -> None:
        """W[..., offset + step*u] += W'[..., u] on each axis."""
        large = target[1].copy()
        places = tuple(
            slice(offset, offset + step * (size - 1) + 1, step)
            for (offset, step), size in zip(place.taps, weight.shape[2:], strict=True)
        )
        coarse = regrouped(weight, place.group, self.geometry.group)
        large[(slice(None), slice(None), *places)] += coarse
        target[1] = large

    def scaled(self, weight: Float64, affine: Affine) -> Float64:
        """a*(W*x) = (a*W)*x for a depthwise op, whose rows are the outputs."""
        return weight * along_axis(affine.scale, 0, weight.ndim)

    def shift(self, target: Constants, values: Float64) -> None:
        """bias += values, a missing bias being zero."""
        before = target.get(2)
        if before is not None or np.any(values):
            target[2] = values if before is None else before + values


def regrouped(weight: Float64, group: int, coarser: int) -> Float64:
    """A weight (rows, columns per group, k...) of `group` groups as one of `coarser` groups.

    Row r is in group r // (rows/group), whose columns lie side by side in its coarser group.
    """
    rows, columns, *kernel = weight.shape
    inside = group // coarser
    if inside == 1:
        return weight
    wide = np.zeros((rows, inside, columns, *kernel))
    row = np.arange(rows)
    wide[row, row // (rows // group) % inside] = weight
    return wide.reshape(rows, inside * columns, *kernel)


def convolution(node: ir.Node, view: View) -> Window | None:
    """A Conv or ConvTranspose with constant weights and fixed pads."""
    shape, weight = geometry(node, view), node.inputs[1]
    if shape is None or weight is None or weight.const_value is None:
        return None
    rows, columns, *_ = weight.const_value.shape.numpy()
    inputs, outputs = columns * shape.group, rows
    if node.op_type == "ConvTranspose":
        inputs, outputs = outputs, inputs
    return Window(node.op_type, node, shape, inputs, outputs, _sizes(node, view))


def average(node: ir.Node, view: View) -> Window | None:
    """An AveragePool that counts padded zeros, or has none: 1/k of each tap, channel by channel."""
    source, kernel = node.inputs[0], node.attributes.get_ints("kernel_shape", None)
    shape = None if source is None else view.shape(source)
    channels = None if shape is None or len(shape) < 3 else shape[1]
    ceil, counted = (node.attributes.get_int(n, 0) for n in ("ceil_mode", "count_include_pad"))
    if kernel is None or not isinstance(channels, int) or ceil:
        return None
    found = positions(node, tuple(kernel), channels)
    if found is None:
        return None
    if any((*found.begin, *found.end)) and not counted:
        return None
    return Window("Conv", node, found, channels, channels, _sizes(node, view))


def _sizes(node: ir.Node, view: View) -> tuple[Dim, ...] | None:
    shape = view.shape(node.outputs[0])
    return None if shape is None else shape[2:]
