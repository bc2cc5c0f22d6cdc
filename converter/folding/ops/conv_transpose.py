"""ConvTranspose: W is (Cin, Cout/group, k...), seen as (group, Cin/group, Cout/group, k...).

    behind it:  a*y + b        W[g, :, o] *= a[g, o], c = a*c + b
    before it:  x = a*x' + b   W[i] *= a[i], c[g, o] += the sum over i of W[g, i, o]*b[g, i]

A shift before it is the same for all outputs only with one tap and no stride: elsewhere the
outputs are sums of different numbers of inputs, at the edges and where the kernels overlap.
"""

from __future__ import annotations

from dataclasses import replace

import onnx_ir as ir

from converter.folding.affine import Affine, along_axis
from converter.folding.constants import Constants
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
    """a*(W x + c) + b = (a*W) x + (a*c + b), a laid out by groups."""
    refusal = why_not_behind(node, affine, view, along=1, group=_group(node), weight=1, bias=2)
    formula = "W[:, o] *= a[o] in each group, bias = a*bias + b"
    return refusal or Step(formula, (Absorb(node, affine, AFTER),))


def forward(node: ir.Node, index: int, affine: Affine, view: View) -> Step | Refusal:
    """W(a*x + b) + c = (W*a) x + (c + sum W*b)."""
    refusal = why_not_before(node, index, affine, view, along=0, weight=1, bias=2)
    if refusal:
        return refusal
    if affine.shifts and not _pointwise(node, view):
        return Refusal(
            "padding",
            f"{label(node)} sums a different number of inputs at its edges, so a shift in front "
            "of it does not become a bias behind it.",
        )
    formula = "W[i] *= a[i], bias += sum W*b" if affine.shifts else "W[i] *= a[i]"
    return Step(formula, (Absorb(node, affine, BEFORE),))


def _pointwise(node: ir.Node, view: View) -> bool:
    """Whether each output comes from exactly one input position, and no two from the same."""
    weight, given = node.inputs[1], node.attributes
    kernel = view.shape(weight) if weight is not None else None
    if kernel is None or any(size != 1 for size in kernel[2:]):
        return False
    return (
        given.get_string("auto_pad", "NOTSET") in {"NOTSET", "VALID"}
        and "output_shape" not in given
        and all(step == 1 for step in given.get_ints("strides", ()))
        and not any((*given.get_ints("pads", ()), *given.get_ints("output_padding", ())))
    )


def _group(node: ir.Node) -> int:
    return node.attributes.get_int("group", 1)


def _after(constants: Constants, affine: Affine) -> None:
    weight, group = constants[1], _group(constants.node)
    inputs, outputs, *kernel = weight.shape
    grouped = weight.reshape(group, inputs // group, outputs, *kernel)
    scale = affine.scale.reshape(group, 1, outputs, *[1] * len(kernel))
    constants[1] = (grouped * scale).reshape(weight.shape)
    map_bias(constants, affine)


def _before(constants: Constants, affine: Affine) -> None:
    """The kernel has one tap where there is a shift."""
    weight = constants[1]
    if affine.shifts:
        inputs, outputs = weight.shape[:2]
        taps = weight.reshape(inputs, outputs) * affine.shift[:, None]
        add_bias(constants, taps.reshape(_group(constants.node), -1, outputs).sum(axis=1).ravel())
    constants[1] = weight * along_axis(affine.scale, 0, weight.ndim)


AFTER = Update(
    "after", _after, scaled=(1,), shifted=(2,), reads=("group",),
    grows=new_bias(lambda node: sizes(node)[1] * _group(node), 2),
)  # fmt: skip
BEFORE = replace(AFTER, side="before", apply=_before)

BACKWARD: dict[str, Rule] = {"ConvTranspose": backward}
FORWARD: dict[str, ForwardRule] = {"ConvTranspose": forward}
