"""Linear ops on the last axis: MatMul by a constant matrix, Gemm, and x itself.

    x A + x B + x  =  x (A + B + I)

Source: Y = alpha*A'B' + beta*C, ONNX Gemm-13; MatMul-13.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from converter.folding.affine import Affine
from converter.folding.constants import Constants
from converter.folding.geometry import WHOLE, Place
from converter.folding.ops import gemm as gemm_
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
        """Whether it takes up a bias without an additional node."""
        return self.node is not None and self.node.op_type == "Gemm"

    @property
    def extent(self) -> tuple[int, int]:
        """For choosing a target: a Gemm is preferred, because it has a bias."""
        return int(self.biased), 0

    def place(self, other: object) -> Place | None:
        """Each matrix lies in the other as a whole if the sizes agree."""
        if not isinstance(other, Matrix) or other.transposed != self.transposed:
            return None
        same = (other.inputs, other.outputs) == (self.inputs, self.outputs)
        return WHOLE if same else None

    def identity(self) -> Matrix | None:
        """x itself as a matrix; None for x transposed, which is another value."""
        if self.inputs != self.outputs or self.transposed:
            return None
        return Matrix(None, self.inputs, self.outputs, False, self.rank)

    def weight(self, constants: Constants | None) -> Float64:
        """(inputs, outputs), including the alpha of a Gemm; x itself is the identity matrix."""
        if constants is None:
            return np.eye(self.inputs)
        return gemm_.matrix(constants) if self.biased else constants[1]

    def bias(self, constants: Constants | None) -> Float64 | None:
        """(outputs,): beta*C of a Gemm; for a MatMul, what is to be added behind it."""
        if constants is None:
            return None
        values = gemm_.bias(constants) if self.biased else constants.behind
        return None if values is None else np.broadcast_to(values.ravel(), (self.outputs,))

    def negate(self, target: Constants) -> None:
        """-(x W + c) = x (-W) - c."""
        if self.biased:
            gemm_.negate(target)
            return
        target[1] = -target[1]
        if target.behind is not None:
            target.behind = -target.behind

    def add(self, target: Constants, weight: Float64, place: Place) -> None:
        """alpha*W + W' with a new alpha of 1."""
        del place
        total = self.weight(target) + weight
        if self.biased:
            gemm_.set_matrix(target, total)
        else:
            target[1] = total

    def scaled(self, weight: Float64, affine: Affine) -> Float64:
        """a*(x W) = x (W*a), a on the columns."""
        return weight * affine.scale

    def shift(self, target: Constants, values: Float64) -> None:
        """C = beta*C + values with a new beta of 1, or an Add behind a MatMul."""
        before = self.bias(target)
        if before is None and not np.any(values):
            return
        total = values if before is None else before + values
        if self.biased:
            gemm_.set_bias(target, total)
        else:
            target.behind, target.behind_axis = total, self.axis


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
    layout = gemm_.layout(node)
    inputs, outputs = size[layout.rows], size[layout.columns]
    if bias is not None:
        shape = view.shape(bias)
        if view.why_not_constant(bias, node, "bias") or shape is None:
            return None
        if shape[:-1] not in {(), (1,)} or shape[-1:] not in {(), (1,), (outputs,)}:
            return None
    return Matrix(node, inputs, outputs, layout.data, 2)


def _size(weight: ir.Value | None) -> tuple[int, int] | None:
    if weight is None or weight.const_value is None:
        return None
    shape = weight.const_value.shape.numpy()
    return (shape[0], shape[1]) if len(shape) == 2 else None
