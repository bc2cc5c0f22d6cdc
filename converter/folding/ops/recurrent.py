"""RNN, LSTM and GRU: each gate of each direction computes W x + R h + Wb + Rb.

    before it:  x = a*x' + b   W *= a along its last axis, Wb += W b

W is (directions, gates*H, I), the bias [Wb, Rb] is (directions, 2*gates*H); R stays as it is.
Their results have passed a nonlinearity, so they take up no map behind them.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from converter.folding.affine import Affine
from converter.folding.constants import Constants
from converter.folding.ops.linear import new_bias, sizes, why_not_before
from converter.folding.refusal import Refusal
from converter.folding.step import Absorb, ForwardRule, Rule, Step, Update
from converter.folding.view import View


def forward(node: ir.Node, index: int, affine: Affine, view: View) -> Step | Refusal:
    """W(a*x + b) + Wb = (W*a) x + (Wb + W b)."""
    refusal = why_not_before(node, index, affine, view, along=2, axis=2, weight=1, bias=3)
    return refusal or Step("W *= a, Wb += W b", (Absorb(node, affine, BEFORE),))


def _before(constants: Constants, affine: Affine) -> None:
    weight = constants[1]
    if affine.shifts:
        directions, rows, _ = weight.shape
        given = constants.get(3)
        bias = np.zeros((directions, 2 * rows)) if given is None else given.copy()
        bias[:, :rows] += weight @ affine.shift
        constants[3] = bias
    constants[1] = weight * affine.scale


def _biases(node: ir.Node) -> int:
    directions, rows, _ = sizes(node)
    return 2 * directions * rows


BEFORE = Update("before", _before, scaled=(1,), shifted=(3,), grows=new_bias(_biases, 3))

BACKWARD: dict[str, Rule] = {}
FORWARD: dict[str, ForwardRule] = dict.fromkeys(("RNN", "LSTM", "GRU"), forward)
