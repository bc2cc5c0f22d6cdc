"""Gemm: Y = alpha*A'B' + beta*C, where A' and B' may be A and B transposed (ONNX Gemm-13).

    behind it:  a*Y + b        the columns of B' *= a, C = a*(beta*C) + b
    before it:  A' = a*X + b   the rows of B' *= a, C = beta*C + alpha*(b B')

alpha is not changed; where C changes, beta becomes 1.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import onnx_ir as ir

from converter.folding.affine import Affine, along_axis
from converter.folding.constants import Constants
from converter.folding.ops.linear import new_bias, sizes, why_not_before, why_not_behind
from converter.folding.refusal import Refusal
from converter.folding.step import Absorb, ForwardRule, Rule, Step, Update
from converter.folding.view import View
from converter.graph.naming import label
from converter.graph.rounding import Float64


@dataclass(frozen=True)
class Layout:
    """Which of the factors are transposed: A by transA, B by transB."""

    data: bool
    weight: bool

    @property
    def summed(self) -> int:
        """The axis of A that is summed over."""
        return 0 if self.data else 1

    @property
    def rows(self) -> int:
        """The axis of B that is summed over: the rows of B'."""
        return 1 if self.weight else 0

    @property
    def columns(self) -> int:
        """The axis of B that is the last of Y: the columns of B'."""
        return 0 if self.weight else 1


def layout(node: ir.Node) -> Layout:
    return Layout(*(bool(node.attributes.get_int(name, 0)) for name in ("transA", "transB")))


def backward(node: ir.Node, affine: Affine, view: View) -> Step | Refusal:
    """a*(alpha*A'B' + beta*C) + b = alpha*A'(B'*a) + 1*(a*(beta*C) + b)."""
    refusal = why_not_behind(node, affine, view, along=layout(node).columns, weight=1, bias=2)
    if refusal:
        return refusal
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    shape = () if bias is None else view.shape(bias) or ()
    if len(shape) == 2 and shape[0] != 1 and shape[1] == 1 and affine.channels > 1:
        return Refusal(
            "dearer",
            f"the bias of {label(node)} differs from row to row; folded, it would grow "
            f"from {shape[0]} to {shape[0]}x{affine.channels} numbers.",
        )
    return Step("columns of B' *= a, C = a*(beta*C) + b", (Absorb(node, affine, AFTER),))


def forward(node: ir.Node, index: int, affine: Affine, view: View) -> Step | Refusal:
    """alpha*(A*a + b) B' + beta*C = alpha*A (a*B') + (beta*C + alpha*b B')."""
    given = layout(node)
    refusal = why_not_before(
        node, index, affine, view, along=given.rows, axis=given.summed, weight=1, bias=2
    )
    return refusal or Step("rows of B' *= a, C += b B'", (Absorb(node, affine, BEFORE),))


def _after(constants: Constants, affine: Affine) -> None:
    scale = along_axis(affine.scale, layout(constants.node).columns, 2)
    constants[1] = constants[1] * scale
    before = bias(constants)
    if before is not None:
        set_bias(constants, affine.scale * before + affine.shift)
    elif affine.shifts:
        set_bias(constants, affine.shift)


def _before(constants: Constants, affine: Affine) -> None:
    if affine.shifts:
        product = constants.real("alpha", 1.0) * (affine.shift @ _turned(constants))
        before = bias(constants)
        set_bias(constants, product if before is None else before + product)
    scale = along_axis(affine.scale, layout(constants.node).rows, 2)
    constants[1] = constants[1] * scale


def _turned(constants: Constants) -> Float64:
    """B', (inputs, outputs)."""
    return constants[1].T if layout(constants.node).weight else constants[1]


def matrix(constants: Constants) -> Float64:
    """alpha*B', (inputs, outputs)."""
    return constants.real("alpha", 1.0) * _turned(constants)


def set_matrix(constants: Constants, values: Float64) -> None:
    """Set alpha*B' = values, with alpha = 1."""
    constants[1] = values.T if layout(constants.node).weight else values
    constants.set_real("alpha", 1.0)


def bias(constants: Constants) -> Float64 | None:
    """beta*C: (), (1,), (N,), (1, N) or (M, N); None where there is no C."""
    values = constants.get(2)
    return None if values is None else constants.real("beta", 1.0) * values


def set_bias(constants: Constants, values: Float64) -> None:
    """Set beta*C = values, with beta = 1."""
    constants[2] = values
    constants.set_real("beta", 1.0)


def negate(constants: Constants) -> None:
    """-(alpha*A'B' + beta*C) = alpha*A'(-B') + beta*(-C)."""
    constants[1] = -constants[1]
    values = constants.get(2)
    if values is not None:
        constants[2] = -values


AFTER = Update(
    "after", _after, scaled=(1,), shifted=(2,), reads=("transA", "transB", "alpha", "beta"),
    grows=new_bias(lambda node: sizes(node)[layout(node).columns], 2),
)  # fmt: skip
BEFORE = replace(AFTER, side="before", apply=_before)

BACKWARD: dict[str, Rule] = {"Gemm": backward}
FORWARD: dict[str, ForwardRule] = {"Gemm": forward}
