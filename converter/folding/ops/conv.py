"""Conv: y = W*x + c, in 1, 2 or 3 dimensions; W is (Cout, Cin/group, k...).

    behind it:  a*y + b        W[o] *= a[o], c = a*c + b
    before it:  x = a*x' + b   W[o, i] *= a[i], c[o] += the sum over i and k of W[o, i, k]*b[i]

It takes up any map behind it, and any scale before it. It takes up a shift before it only where the
convolution sees no zero padding: a padded zero is not shifted, so the sum differs at the border.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx_ir as ir

from converter.folding.affine import Affine, along_axis
from converter.folding.constants import Constants
from converter.folding.geometry import geometry
from converter.folding.ops.linear import (
    add_bias,
    map_bias,
    new_bias,
    sizes,
    why_not_before,
    why_not_behind,
)
from converter.folding.refusal import Refusal
from converter.folding.step import Absorb, ForwardRule, Rule, Step, Update
from converter.folding.view import View
from converter.graph.naming import label


def backward(node: ir.Node, affine: Affine, view: View) -> Step | Refusal:
    """a*(W x + c) + b = (a*W) x + (a*c + b): any padding, stride, dilation, group."""
    refusal = why_not_behind(node, affine, view, along=0, weight=1, bias=2)
    return refusal or Step("W[o] *= a[o], bias = a*bias + b", (Absorb(node, affine, AFTER),))


def forward(node: ir.Node, index: int, affine: Affine, view: View) -> Step | Refusal:
    """W(a*x + b) + c = (W*a) x + (c + sum W*b), in any group."""
    group = node.attributes.get_int("group", 1)
    refusal = why_not_before(node, index, affine, view, along=1, group=group, weight=1, bias=2)
    if refusal:
        return refusal
    shape = geometry(node, view)
    if affine.shifts and (shape is None or any((*shape.begin, *shape.end))):
        return Refusal(
            "padding",
            f"{label(node)} pads its input with zeros, which a shift would have to reach, too.",
            "With an unpadded convolution, or one behind an explicit reflect padding, it folds.",
        )
    formula = "W[:, i] *= a[i], bias += sum W*b" if affine.shifts else "W[:, i] *= a[i]"
    return Step(formula, (Absorb(node, affine, BEFORE),))


def _after(constants: Constants, affine: Affine) -> None:
    weight = constants[1]
    weight *= along_axis(affine.scale, 0, weight.ndim)  # a copy; large ones cost memory
    constants[1] = weight
    map_bias(constants, affine)


def _before(constants: Constants, affine: Affine) -> None:
    """Each group of outputs has its own inputs."""
    weight = constants[1]
    outputs, per_group, *kernel = weight.shape
    group = constants.node.attributes.get_int("group", 1)
    shape = (outputs, per_group, *[1] * len(kernel))
    scale, shift = (
        np.repeat(values.reshape(group, per_group), outputs // group, axis=0).reshape(shape)
        for values in (affine.scale, affine.shift)
    )
    add_bias(constants, (weight * shift).sum(axis=tuple(range(1, weight.ndim))))
    constants[1] = weight * scale


AFTER = Update(
    "after", _after, scaled=(1,), shifted=(2,), reads=("group",),
    grows=new_bias(lambda node: sizes(node)[0], 2),
)  # fmt: skip
BEFORE = replace(AFTER, side="before", apply=_before)

BACKWARD: dict[str, Rule] = {"Conv": backward}
FORWARD: dict[str, ForwardRule] = {"Conv": forward}
