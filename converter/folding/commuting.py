"""The ops that keep the channels on their axis, and when a map commutes with them.

op(a*x + b) = a*op(x) + b can be read in both directions, so the condition is the same backward and
forward.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from converter.folding.affine import Affine
from converter.folding.refusal import Refusal
from converter.folding.view import View
from converter.graph.naming import label

Condition = Callable[[ir.Node, Affine, View], Refusal | None]


def _always(node: ir.Node, affine: Affine, view: View) -> Refusal | None:
    """op(a*x + b) = a*op(x) + b."""
    del node, affine, view
    return None


def positive(node: ir.Node, affine: Affine, view: View) -> Refusal | None:
    """max(a*x + b) = a*max(x) + b for a >= 0 only; the padding of a MaxPool is never largest."""
    del view
    negative = np.flatnonzero(affine.scale < 0)
    if not negative.size:
        return None
    return Refusal(
        "sign",
        f"{label(node)} lets only positive scales pass, and the scale is negative in "
        f"{negative.size} of {affine.channels} channels (the first is {negative[0]}).",
    )


def _homogeneous(node: ir.Node, affine: Affine, view: View) -> Refusal | None:
    """f(a*x) = a*f(x) for a >= 0; a shift does not pass."""
    if affine.shifts:
        return Refusal("not-linear", f"{label(node)} lets no shift pass.")
    return positive(node, affine, view)


def _average(node: ir.Node, affine: Affine, view: View) -> Refusal | None:
    """The mean of a*x + b is a*mean + b, unless padded zeros are counted into it."""
    del view
    given = node.attributes
    padded = (
        any(given.get_ints("pads", ()))
        or given.get_string("auto_pad", "NOTSET") not in {"NOTSET", "VALID"}
        or given.get_int("ceil_mode", 0) != 0
    )
    if affine.shifts and padded and given.get_int("count_include_pad", 0) != 0:
        return Refusal("padding", f"{label(node)} counts padded zeros, which a shift must reach.")
    return None


def _dropout(node: ir.Node, affine: Affine, view: View) -> Refusal | None:
    """None when Dropout does nothing: no training_mode input, or a constant False."""
    del affine
    training = node.inputs[2] if len(node.inputs) > 2 else None
    if training is not None and (
        view.why_not_constant(training, node, "training_mode") is not None
        or training.const_value is None
        or bool(training.const_value.numpy())
    ):
        return Refusal(
            "training-mode",
            f"{label(node)} drops at random (training_mode).",
            "Export the model in evaluation mode: model.eval().",
        )
    return None


def _resize(node: ir.Node, affine: Affine, view: View) -> Refusal | None:
    """Each result is a weighted mean with weights that sum to 1, unless it lies outside the input;
    the channel axis must not be resized."""
    if node.attributes.get_string("coordinate_transformation_mode", "") == "tf_crop_and_resize":
        return Refusal(
            "padding", f"{label(node)} fills what lies outside of its input with a number."
        )
    source = node.inputs[0]
    old = None if source is None else view.shape(source)
    new = view.shape(node.outputs[0])
    scales = _scales(node, view)
    if old is None or new is None or {old[affine.axis], new[affine.axis]} != {affine.channels}:
        return Refusal("wrong-axis", f"{label(node)} resizes the channels, or its shapes are open.")
    axes = node.attributes.get_ints("axes", range(len(old)))
    resized = [axis % len(old) for axis in axes]
    if affine.axis not in resized:
        return None
    at = resized.index(affine.axis)
    if scales is not None and at < len(scales) and scales[at] == 1.0:
        return None
    sized = len(node.inputs) > 3 and node.inputs[3] is not None
    policy = node.attributes.get_string("keep_aspect_ratio_policy", "stretch")
    if scales is None and sized and policy == "stretch":
        return None
    return Refusal("wrong-axis", f"{label(node)} may resize the channels.")


def _scales(node: ir.Node, view: View) -> list[float] | None:
    """The constant factors of a Resize or Upsample, one per axis; None if it has none."""
    attribute = node.attributes.get("scales")
    if attribute is not None:
        return list(attribute.as_floats())
    position = 1 if node.op_type == "Upsample" or len(node.inputs) == 2 else 2
    value = node.inputs[position] if len(node.inputs) > position else None
    if value is None or value.const_value is None or view.why_not_constant(value, node, "scales"):
        return None
    return [float(factor) for factor in value.const_value.numpy().ravel()] or None


def _cast(node: ir.Node, affine: Affine, view: View) -> Refusal | None:
    """Only casts between floating-point types commute; an integer would be rounded."""
    del affine, view
    source = node.inputs[0]
    types = (None if source is None else source.dtype, node.outputs[0].dtype)
    if all(dtype in _FLOATS for dtype in types):
        return None
    return Refusal("not-linear", f"{label(node)} rounds to whole numbers, or from an unknown type.")


_FLOATS = {ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.FLOAT, ir.DataType.DOUBLE}


SAME_AXIS: dict[str, Condition] = {
    "Identity": _always,
    "Dropout": _dropout,
    "MaxPool": positive,
    "GlobalMaxPool": positive,
    "AveragePool": _average,
    "GlobalAveragePool": _always,
    "Relu": _homogeneous,
    "LeakyRelu": _homogeneous,
    "PRelu": _homogeneous,
    "Abs": _homogeneous,
    "Resize": _resize,
    "Upsample": _resize,
    "Cast": _cast,
}


def refusal_on_axis(node: ir.Node, affine: Affine, view: View) -> Refusal | None:
    """Why `affine` does not commute with `node`, an op of `SAME_AXIS`; None if it does."""
    if len([value for value in node.outputs if value.uses() or value.is_graph_output()]) > 1:
        return Refusal("not-linear", f"{label(node)} gives more than one result.")
    if affine.axis != 1 and node.op_type.endswith("Pool"):
        return Refusal("wrong-axis", f"{label(node)} pools along the batch-norm's axis.")
    return SAME_AXIS[node.op_type](node, affine, view)


def reduced_axes(node: ir.Node, view: View) -> list[int] | None:
    """The axes, from the attribute (before opset 18) or a constant input; None without either."""
    axes = node.attributes.get_ints("axes", None)
    if axes is not None:
        return list(axes)
    value = node.inputs[1] if len(node.inputs) > 1 else None
    if value is None or view.why_not_constant(value, node, "axes") or value.const_value is None:
        return None
    return [int(axis) for axis in value.const_value.numpy().ravel()]
