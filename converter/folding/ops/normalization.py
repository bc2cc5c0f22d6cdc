"""LayerNormalization, InstanceNormalization and GroupNormalization: y = scale*n + bias.

    behind it:  a*y + b        scale *= a, bias = a*bias + b      whatever n is
    before it:  x = a*x' + b   only a shift before an InstanceNormalization, which its mean removes

LayerNormalization scales along its last axes, the other two along the channels;
GroupNormalization does so only since opset 21: before, it has one number per group. A scale before
them does not pass because of the epsilon in n = (x - mean)/sqrt(var + epsilon).
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from converter.folding.affine import Affine, along_axis
from converter.folding.constants import Constants
from converter.folding.moves.same_axis import data_only
from converter.folding.ops.linear import (
    constant_inputs,
    on_input_axis,
    on_output_axis,
    weight_channels,
)
from converter.folding.refusal import Refusal
from converter.folding.step import Absorb, ForwardRule, Rule, Step, Update
from converter.folding.view import View
from converter.graph.naming import label


def backward(node: ir.Node, affine: Affine, view: View) -> Step | Refusal:
    """a*(scale*n + bias) + b = (a*scale)*n + (a*bias + b)."""
    scale = node.inputs[1] if len(node.inputs) > 1 else None
    held = None if scale is None else view.shape(scale)
    rank = view.rank(node.outputs[0]) if node.op_type == "LayerNormalization" else 2
    if rank is None or held is None:
        return Refusal("unknown-shape", f"the shapes around {label(node)} are not known.")
    first = rank - len(held)
    if not first <= affine.axis < rank:
        return on_output_axis(rank - 1, node, affine) or Refusal(
            "unsupported-form", f"{label(node)} has no one weight per channel."
        )
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    if bias is not None and view.shape(bias) != held:
        return Refusal("unsupported-form", f"{label(node)} has a scale and a bias of two shapes.")
    inside = affine.along(affine.axis - first)
    refusal = constant_inputs(node, view, weight=1, bias=2) or weight_channels(
        node, inside, view, axis=inside.axis
    )
    return refusal or Step("scale *= a, bias = a*bias + b", (Absorb(node, inside, AFTER),))


def forward(node: ir.Node, index: int, affine: Affine, view: View) -> Step | Refusal:
    """The mean that InstanceNormalization subtracts has the same shift."""
    del view
    refusal = data_only(node, index) or on_input_axis(1, node, affine)
    if refusal:
        return refusal
    if affine.scales:
        return Refusal("not-linear", f"{label(node)} reads it; {WHY_NOT[node.op_type]}.")
    return Step("its mean has the same shift, which it subtracts")


def _after(constants: Constants, affine: Affine) -> None:
    """LayerNormalization may lack the bias."""
    scale, bias = constants[1], constants.get(2)
    factor, shift = (
        along_axis(values, affine.axis, scale.ndim) for values in (affine.scale, affine.shift)
    )
    if bias is not None:
        constants[2] = factor * bias + shift
    elif affine.shifts:
        constants[2] = np.broadcast_to(shift, scale.shape)
    constants[1] = factor * scale


AFTER = Update("after", _after, scaled=(1,), shifted=(2,))

_NORMS = ("LayerNormalization", "InstanceNormalization", "GroupNormalization")
# Ops that people expect to take up a map before them, and why they do not.
WHY_NOT: dict[str, str] = {
    **dict.fromkeys(
        _NORMS,
        "it divides by sqrt(var + epsilon), so a scale in front of it is not the same behind",
    ),
    "LpNormalization": "its norm is one over all channels",
}

BACKWARD: dict[str, Rule] = dict.fromkeys(_NORMS, backward)
FORWARD: dict[str, ForwardRule] = {"InstanceNormalization": forward}
