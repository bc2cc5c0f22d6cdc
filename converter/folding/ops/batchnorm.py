"""A BatchNormalization that stays, with fixed statistics: y = gamma/std*(x - mean) + beta.

    behind it:  a*y + b        gamma *= a, beta = a*beta + b
    before it:  x = a*x' + b   beta += gamma/std*(a*mean + b - mean), then gamma *= a

The planner knows which of them stay, and uses these rules only for those (`Mode.takers`).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx_ir as ir

from converter.folding.affine import Affine
from converter.folding.constants import Constants
from converter.folding.ops.linear import why_not_before, why_not_behind
from converter.folding.refusal import Refusal
from converter.folding.step import Absorb, ForwardRule, Rule, Step, Update
from converter.folding.view import View
from converter.graph.naming import label
from converter.graph.values import EPSILON


def backward(node: ir.Node, affine: Affine, view: View) -> Step | Refusal:
    """a*(gamma*n + beta) + b = (a*gamma)*n + (a*beta + b), also with batch statistics."""
    refusal = _one_a_channel(node, view) or why_not_behind(
        node, affine, view, along=0, gamma=1, beta=2
    )
    return refusal or Step("gamma *= a, beta = a*beta + b", (Absorb(node, affine, AFTER),))


def forward(node: ir.Node, index: int, affine: Affine, view: View) -> Step | Refusal:
    """gamma/std*(a*x + b - mean) + beta = (gamma*a)/std*(x - mean)
    + (beta + gamma/std*(a*mean + b - mean))."""
    refusal = why_not_before(
        node, index, affine, view, along=0, gamma=1, beta=2, mean=3, variance=4
    )
    if refusal:
        return refusal
    if node.attributes.get_int("training_mode", 0) or len(node.outputs) > 1:
        return Refusal("training-mode", f"{label(node)} normalises by the statistics of a batch.")
    formula = "beta += gamma/std*(a*mean + b - mean), gamma *= a"
    return _one_a_channel(node, view) or Step(formula, (Absorb(node, affine, BEFORE),))


def _one_a_channel(node: ir.Node, view: View) -> Refusal | None:
    gamma = node.inputs[1]
    if gamma is None or view.rank(gamma) != 1:
        return Refusal("unsupported-form", f"{label(node)} has no one weight per channel.")
    return None


def _after(constants: Constants, affine: Affine) -> None:
    constants[1] = affine.scale * constants[1]
    constants[2] = affine.scale * constants[2] + affine.shift


def _before(constants: Constants, affine: Affine) -> None:
    gamma, mean, var = constants[1], constants[3], constants[4]
    slope = gamma / np.sqrt(var + constants.real("epsilon", EPSILON))
    constants[2] = constants[2] + slope * (affine.scale * mean + affine.shift - mean)
    constants[1] = gamma * affine.scale


AFTER = Update("after", _after, scaled=(1,), shifted=(2,), reads=("epsilon",))
BEFORE = replace(AFTER, side="before", apply=_before)

BACKWARD: dict[str, Rule] = {"BatchNormalization": backward}
FORWARD: dict[str, ForwardRule] = {"BatchNormalization": forward}
