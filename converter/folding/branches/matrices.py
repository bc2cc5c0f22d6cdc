"""Linear ops on the last axis: MatMul by a constant matrix, Gemm, and x itself.

    x A + x B + x  =  x (A + B + I)

Source: Y = alpha*A'B' + beta*C, ONNX Gemm-13; MatMul-13.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from converter.folding.affine import Affine
from converter.folding.branches.alignment import WHOLE, Place
from converter.folding.constants import Constants
from converter.folding.view import View
from converter.graph.rounding import Float64


@dataclass(frozen=True, eq=False)
class Matrix:
    """A product with a constant matrix.

    Attributes:
        node: a MatMul or a Gemm, None for x itself.
        inputs, outputs: the matrix is (inputs, outputs).
        transposed: a Gemm that reads x transposed.
        rank: of x and of the result.
    """

    node: ir.Node | None
    inputs: int
    outputs: int
    transposed: bool
    rank: int

    @property
    def axis(self) -> int:
        """The axis of the result's channels."""
        return self.rank - 1

    @property
    def biased(self) -> bool:
        """Whether it takes up a bias without a node more."""
        return self.node is not None and self.node.op_type == "Gemm"

    @property
    def extent(self) -> tuple[int, int]:
        """A Gemm has a place for a bias."""
        return int(self.biased), 0

    def place(self, other: object) -> Place | None:
        """All of one lies in the other if the sizes agree."""
        if not isinstance(other, Matrix) or other.transposed != self.transposed:
            return None
        same = (other.inputs, other.outputs) == (self.inputs, self.outputs)
        return WHOLE if same else None

    def identity(self) -> Matrix | None:
        """x itself; x transposed is another value."""
        if self.inputs != self.outputs or self.transposed:
            return None
        return Matrix(None, self.inputs, self.outputs, False, self.rank)

    def weight(self, constants: Constants | None) -> Float64:
        """(inputs, outputs), a Gemm's with its alpha; x itself is the unit matrix."""
        if constants is None:
            return np.eye(self.inputs)
        weight = constants.real("alpha", 1.0) * constants[1] if self.biased else constants[1]
        return weight.T if _turned(constants) else weight

    def bias(self, constants: Constants | None) -> Float64 | None:
        """(outputs,): beta*C of a Gemm; what is to be added behind a MatMul."""
        if constants is None:
            return None
        values = constants.behind
        if self.biased:
            values = constants.get(2)
            values = None if values is None else constants.real("beta", 1.0) * values
        return None if values is None else np.broadcast_to(values.ravel(), (self.outputs,))

    def negate(self, target: Constants) -> None:
        """-(alpha*x W + beta*C) = alpha*x (-W) - beta*C."""
        target[1] = -target[1]
        bias = target.get(2) if self.biased else target.behind
        if bias is not None and self.biased:
            target[2] = -bias
        elif bias is not None:
            target.behind = -bias

    def add(self, target: Constants, weight: Float64, place: Place) -> None:
        """alpha*W + W' under an alpha of 1."""
        del place
        total = self.weight(target) + weight
        target[1] = total.T if _turned(target) else total
        if self.biased:
            target.set_real("alpha", 1.0)

    def scaled(self, weight: Float64, affine: Affine) -> Float64:
        """a*(x W) = x (W*a), a on the columns."""
        return weight * affine.scale

    def shift(self, target: Constants, values: Float64) -> None:
        """C = beta*C + values under a beta of 1, or an Add behind a MatMul."""
        before = self.bias(target)
        if before is None and not np.any(values):
            return
        total = values if before is None else before + values
        if self.biased:
            target[2] = total
            target.set_real("beta", 1.0)
        else:
            target.behind, target.behind_axis = total, self.axis


def _turned(constants: Constants) -> bool:
    return bool(constants.integer("transB", 0))


def matmul(node: ir.Node, view: View) -> Matrix | None:
    """x B with a constant matrix B, x being (.., K)."""
    source, weight = node.inputs[0], node.inputs[1]
    rank = None if source is None else view.rank(source)
    if rank is None or rank < 2 or view.why_not_constant(weight, node, "weight"):
        return None
    size = _size(weight)
    return None if size is None else Matrix(node, *size, False, rank)


def gemm(node: ir.Node, view: View) -> Matrix | None:
    """alpha*A'B' + beta*C with constant B and C, C the same for all rows."""
    weight, bias = node.inputs[1], node.inputs[2] if len(node.inputs) > 2 else None
    size = _size(weight)
    if size is None or view.why_not_constant(weight, node, "weight"):
        return None
    turned, transposed = (
        name in node.attributes and bool(node.attributes[name].as_int())
        for name in ("transB", "transA")
    )
    inputs, outputs = size[::-1] if turned else size
    if bias is not None:
        shape = view.shape(bias)
        if view.why_not_constant(bias, node, "bias") or shape is None:
            return None
        if shape[:-1] not in {(), (1,)} or shape[-1:] not in {(), (1,), (outputs,)}:
            return None
    return Matrix(node, inputs, outputs, transposed, 2)


def _size(weight: ir.Value | None) -> tuple[int, int] | None:
    if weight is None or weight.const_value is None:
        return None
    shape = weight.const_value.shape.numpy()
    return (shape[0], shape[1]) if len(shape) == 2 else None
