"""What linear ops with constant weights have in common: what must hold, and their bias."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from converter.folding.affine import Affine
from converter.folding.constants import Constants
from converter.folding.moves.same_axis import data_only
from converter.folding.refusal import Refusal
from converter.folding.view import View
from converter.graph.naming import label
from converter.graph.rounding import Float64


def why_not_behind(
    node: ir.Node,
    affine: Affine,
    view: View,
    *,
    along: int,
    axis: int = 1,
    group: int = 1,
    **inputs: int,
) -> Refusal | None:
    """Why the weight does not take up a map on the op's output; None if it does.

    Args:
        along: the axis of the weight that has the output channels of one group.
        axis: the axis of the output's channels.
        group: how many groups of channels there are.
        inputs: which inputs must be constant, by their names in the sentence.
    """
    return (
        on_output_axis(axis, node, affine)
        or constant_inputs(node, view, **inputs)
        or weight_channels(node, affine, view, axis=along, group=group)
    )


def why_not_before(
    node: ir.Node,
    index: int,
    affine: Affine,
    view: View,
    *,
    along: int,
    axis: int = 1,
    group: int = 1,
    **inputs: int,
) -> Refusal | None:
    """The same for a map on input `index`: `along` and `axis` are those of the input channels."""
    return (
        data_only(node, index)
        or on_input_axis(axis, node, affine)
        or constant_inputs(node, view, **inputs)
        or weight_channels(node, affine, view, axis=along, group=group)
    )


def on_output_axis(channels: int, node: ir.Node, affine: Affine) -> Refusal | None:
    """A map behind the op must act on axis `channels` of its output."""
    if affine.axis == channels:
        return None
    return Refusal(
        "wrong-axis",
        f"the channels of {label(node)} are axis {channels} of its output, but the batch-norm "
        f"acts on axis {affine.axis} of it.",
    )


def on_input_axis(channels: int, node: ir.Node, affine: Affine) -> Refusal | None:
    """A map before the op must act on axis `channels` of its data."""
    if affine.axis == channels:
        return None
    return Refusal(
        "wrong-axis",
        f"{label(node)} sums over axis {channels} of its input, but the batch-norm acts on axis "
        f"{affine.axis} of it.",
    )


def constant_inputs(node: ir.Node, view: View, **inputs: int) -> Refusal | None:
    """All named inputs must be constants; a `bias` may be absent."""
    for what, index in inputs.items():
        value = node.inputs[index] if index < len(node.inputs) else None
        if value is None and what == "bias":
            continue
        refusal = view.why_not_constant(value, node, what)
        if refusal:
            return refusal
    return None


def weight_channels(
    node: ir.Node, affine: Affine, view: View, *, axis: int, group: int = 1, index: int = 1
) -> Refusal | None:
    """The weight must have as many channels as the affine: annotated shapes can be wrong."""
    weight = node.inputs[index]
    shape = None if weight is None else view.shape(weight)
    size = shape[axis] if shape is not None and axis < len(shape) else None
    if isinstance(size, int) and size * group == affine.channels:
        return None
    return Refusal(
        "unknown-shape",
        f"{label(node)} has {size} channels where the batch-norm has {affine.channels}.",
    )


def sizes(node: ir.Node, index: int = 1) -> tuple[int, ...]:
    """The shape of a constant input."""
    weight = node.inputs[index]
    assert weight is not None
    assert weight.const_value is not None
    return tuple(int(size) for size in weight.const_value.shape.numpy())


def map_bias(constants: Constants, affine: Affine) -> None:
    """bias = a*bias + b, a missing bias being zero."""
    bias = constants.get(2)
    if bias is not None:
        constants[2] = affine.scale * bias + affine.shift
    elif affine.shifts:
        constants[2] = affine.shift


def add_bias(constants: Constants, values: Float64) -> None:
    """bias += values, a missing bias being zero."""
    if np.any(values):
        bias = constants.get(2)
        constants[2] = values if bias is None else bias + values


def new_bias(
    outputs: Callable[[ir.Node], int], index: int | None = None
) -> Callable[[ir.Node, Affine], int]:
    """How much an op grows that gets a bias for a shift, as input `index` (None: as an Add)."""

    def grows(node: ir.Node, affine: Affine) -> int:
        has = index is not None and index < len(node.inputs) and node.inputs[index] is not None
        return outputs(node) if affine.shifts and not has else 0

    return grows
