"""Which linear op absorbs an affine that acts on its output, y' = a*y + b, and when.

A rule returns the step that ends the journey, or the sentence that says what forbids it.
The arithmetic is in `updates.py`, under the same op.

To add an op: write the rule here and its update there, each with the formula as its
docstring, put both into the tables, and add a case to
`tests/converter/folding/test_sinks.py`, which runs every entry.
"""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from converter.folding import contractions
from converter.folding.affine import Affine
from converter.folding.moves import matrices
from converter.folding.refusal import Refusal
from converter.folding.step import Absorb, Rule, Step
from converter.folding.view import View
from converter.graph.naming import label


def _conv(node: ir.Node, affine: Affine, view: View) -> Step | Refusal:
    """a*(W x + c) + b = (a*W) x + (a*c + b): any padding, stride, dilation, group."""
    refusal = (
        _on_axis(1, node, affine)
        or constant_inputs(node, view, weight=1, bias=2)
        or weight_channels(node, affine, view, axis=0, group=1)
    )
    return refusal or Step("W[o] *= a[o], bias = a*bias + b", (Absorb(node, affine),))


def _conv_transpose(node: ir.Node, affine: Affine, view: View) -> Step | Refusal:
    """As Conv, but W is (Cin, Cout/group, k...), so a is laid out by groups."""
    group = node.attributes.get("group")
    refusal = (
        _on_axis(1, node, affine)
        or constant_inputs(node, view, weight=1, bias=2)
        or weight_channels(node, affine, view, axis=1, group=1 if group is None else group.as_int())
    )
    return refusal or Step(
        "W[:, o] *= a[o] in each group, bias = a*bias + b", (Absorb(node, affine),)
    )


def _gemm(node: ir.Node, affine: Affine, view: View) -> Step | Refusal:
    """a*(alpha*A'B' + beta*C) + b = alpha*A'(B'*a) + 1*(a*(beta*C) + b)."""
    transposed = node.attributes.get("transB")
    columns = 0 if transposed is not None and transposed.as_int() else 1
    refusal = (
        _on_axis(1, node, affine)
        or constant_inputs(node, view, weight=1, bias=2)
        or weight_channels(node, affine, view, axis=columns, group=1)
    )
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
    return Step("columns of B' *= a, C = a*(beta*C) + b", (Absorb(node, affine),))


def _matmul(node: ir.Node, affine: Affine, view: View) -> Step | Refusal:
    """a*(x B) + b = x (B*a) + b: the columns of B are the LAST axis of y, whatever its rank;
    a*(A x) + b = (a*A) x + b: the rows of A are the one before.

    MatMul has no bias, so a shift becomes an Add behind it, in the batch-norm's stead.
    """
    rank = view.rank(node.outputs[0])
    if rank is None:
        return Refusal("unknown-shape", f"the rank of {label(node)} is not known.")
    left = weight_on_the_left(node, view)
    if not left and computed(node.inputs[1]):
        return matrices.backward(node, affine, view)
    if left:
        refusal = _on_axis(rank - 2, node, affine) or constant_inputs(node, view, weight=0)
    else:
        refusal = _on_axis(rank - 1, node, affine) or constant_inputs(node, view, weight=1)
    if refusal:
        return refusal
    weight = node.inputs[0 if left else 1]
    matrix = None if weight is None else view.rank(weight)
    if matrix is None or matrix < 2 or (left and matrix > 2):
        return Refusal("unsupported-form", f"the weight of {label(node)} is not a matrix.")
    axis = 0 if left else matrix - 1
    refusal = weight_channels(node, affine, view, axis=axis, group=1, index=0 if left else 1)
    if refusal:
        return refusal
    formula = "rows of A *= a" if left else "columns of B *= a"
    adds = 1 if affine.shifts and view.bias_behind(node) is None else 0
    return Step(
        f"{formula}, then + b" if affine.shifts else formula, (Absorb(node, affine),), adds=adds
    )


def computed(value: ir.Value | None) -> bool:
    """Whether a node makes the value; a graph input may still be a weight with a default."""
    return value is not None and value.producer() is not None


def weight_on_the_left(node: ir.Node, view: View) -> bool:
    """Whether the first operand of a product is the constant one."""
    right = view.why_not_constant(node.inputs[1], node, "weight")
    return right is not None and view.why_not_constant(node.inputs[0], node, "weight") is None


def _batchnorm(node: ir.Node, affine: Affine, view: View) -> Step | Refusal:
    """A batch-norm that stays takes the next one: gamma *= a, beta = a*beta + b."""
    gamma = node.inputs[1]
    if gamma is None or view.rank(gamma) != 1:
        return Refusal("unsupported-form", f"{label(node)} has no one weight per channel.")
    refusal = (
        _on_axis(1, node, affine)
        or constant_inputs(node, view, gamma=1, beta=2)
        or weight_channels(node, affine, view, axis=0, group=1)
    )
    return refusal or Step("gamma *= a, beta = a*beta + b", (Absorb(node, affine),))


def _normalisation(node: ir.Node, affine: Affine, view: View) -> Step | Refusal:
    """a*(scale*n + bias) + b = (a*scale)*n + (a*bias + b) for whatever n is computed to be.

    LayerNormalization scales along its last axes, the other two along the channels.
    GroupNormalization does only since opset 21; before, it has one number a group.
    """
    scale = node.inputs[1] if len(node.inputs) > 1 else None
    held = None if scale is None else view.shape(scale)
    rank = view.rank(node.outputs[0]) if node.op_type == "LayerNormalization" else 2
    if rank is None or held is None:
        return Refusal("unknown-shape", f"the shapes around {label(node)} are not known.")
    first = rank - len(held)
    if not first <= affine.axis < rank:
        return _on_axis(rank - 1, node, affine) or Refusal(
            "unsupported-form", f"{label(node)} has no one weight per channel."
        )
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    if bias is not None and view.shape(bias) != held:
        return Refusal("unsupported-form", f"{label(node)} has a scale and a bias of two shapes.")
    inside = affine.along(affine.axis - first)
    refusal = constant_inputs(node, view, weight=1, bias=2) or weight_channels(
        node, inside, view, axis=inside.axis, group=1
    )
    return refusal or Step("scale *= a, bias = a*bias + b", (Absorb(node, inside),))


def _on_axis(channels: int, node: ir.Node, affine: Affine) -> Refusal | None:
    if affine.axis == channels:
        return None
    return Refusal(
        "wrong-axis",
        f"the channels of {label(node)} are axis {channels} of its output, but the batch-norm "
        f"acts on axis {affine.axis} of it.",
    )


def constant_inputs(node: ir.Node, view: View, **inputs: int) -> Refusal | None:
    """All named inputs must be constants; one beyond the node's inputs is absent, not wrong."""
    for what, index in inputs.items():
        optional = what in {"bias"}
        value = node.inputs[index] if index < len(node.inputs) else None
        if value is None and optional:
            continue
        refusal = view.why_not_constant(value, node, what)
        if refusal:
            return refusal
    return None


def weight_channels(
    node: ir.Node, affine: Affine, view: View, *, axis: int, group: int, index: int = 1
) -> Refusal | None:
    """The weight must have as many channels as the affine: annotated shapes can be wrong."""
    weight = node.inputs[index]
    shape: Sequence[object] | None = None if weight is None else view.shape(weight)
    size = shape[axis] if shape is not None and axis < len(shape) else None
    if isinstance(size, int) and size * group == affine.channels:
        return None
    return Refusal(
        "unknown-shape",
        f"{label(node)} has {size} channels where the batch-norm has {affine.channels}.",
    )


AFTER: dict[str, Rule] = {
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Gemm": _gemm,
    "MatMul": _matmul,
    "Einsum": contractions.after,
    "BatchNormalization": _batchnorm,
    "LayerNormalization": _normalisation,
    "InstanceNormalization": _normalisation,
    "GroupNormalization": _normalisation,
}
