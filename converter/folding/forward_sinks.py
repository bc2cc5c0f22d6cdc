"""Which linear op absorbs an affine that acts on its input, x' = a*x + b, and when.

The mirror of `sinks.py`: a rule gets the node, the index of the input that carries the affine,
and the affine on that input; the arithmetic is `updates.BEFORE`, under the same op. What reads
x' = a*x + b reads x afterwards.

To add an op: rule, update, both tables, and a case in
`tests/converter/folding/test_forward.py`, which runs every entry.
"""

from __future__ import annotations

import onnx_ir as ir

from converter.folding import contractions
from converter.folding.affine import Affine
from converter.folding.branches import geometry
from converter.folding.moves import matrices
from converter.folding.refusal import Refusal
from converter.folding.sinks import computed, constant_inputs, weight_channels, weight_on_the_left
from converter.folding.step import Absorb, ForwardRule, Step
from converter.folding.view import View
from converter.graph.naming import label


def _conv(node: ir.Node, index: int, affine: Affine, view: View) -> Step | Refusal:
    """W(a*x + b) + c = (W*a) x + (c + sum W*b), in any group: the scale always.

    The shift only where no zero padding reaches the conv: a padded zero is not shifted, so at
    the border the second term would be smaller.
    """
    refusal = (
        _input(0, index, node)
        or _on_axis(1, node, affine)
        or constant_inputs(node, view, weight=1, bias=2)
        or weight_channels(node, affine, view, axis=1, group=_group(node))
    )
    if refusal:
        return refusal
    shape = geometry(node, view)
    if affine.shifts and (shape is None or any((*shape.begin, *shape.end))):
        return Refusal(
            "padding",
            f"{label(node)} pads its input with zeros, which a shift would have to reach, too.",
            "With an unpadded convolution, or one behind an explicit reflect padding, it folds.",
        )
    return Step(
        "W[:, i] *= a[i], bias += sum W*b" if affine.shifts else "W[:, i] *= a[i]",
        (Absorb(node, affine, "before"),),
    )


def _conv_transpose(node: ir.Node, index: int, affine: Affine, view: View) -> Step | Refusal:
    """As Conv for the scale; a shift is not uniform over the outputs (edges, overlap), except
    with one tap and no stride."""
    refusal = (
        _input(0, index, node)
        or _on_axis(1, node, affine)
        or constant_inputs(node, view, weight=1, bias=2)
        or weight_channels(node, affine, view, axis=0, group=1)
    )
    if refusal:
        return refusal
    if affine.shifts and not _pointwise(node, view):
        return Refusal(
            "padding",
            f"{label(node)} sums a different number of inputs at its edges, so a shift in front "
            "of it is no bias behind it.",
        )
    formula = "W[i] *= a[i], bias += sum W*b" if affine.shifts else "W[i] *= a[i]"
    return Step(formula, (Absorb(node, affine, "before"),))


def _pointwise(node: ir.Node, view: View) -> bool:
    """Whether each output of a ConvTranspose comes from one position, and each from one."""
    weight, mode = node.inputs[1], node.attributes.get("auto_pad")
    kernel = view.shape(weight) if weight is not None else None
    if kernel is None or any(size != 1 for size in kernel[2:]):
        return False
    if mode is not None and mode.as_string() not in {"NOTSET", "VALID"}:
        return False
    ones, zeros = node.attributes.get("strides"), ("pads", "output_padding")
    given = [node.attributes[name].as_ints() for name in zeros if name in node.attributes]
    return (
        "output_shape" not in node.attributes
        and (ones is None or all(step == 1 for step in ones.as_ints()))
        and not any(amount for amounts in given for amount in amounts)
    )


def _gemm(node: ir.Node, index: int, affine: Affine, view: View) -> Step | Refusal:
    """alpha*(A*a + b) B' + beta*C = alpha*A (a*B') + (beta*C + alpha*b B')."""
    rows = 1 if _flag(node, "transB") else 0
    refusal = (
        _input(0, index, node)
        or _on_axis(0 if _flag(node, "transA") else 1, node, affine)
        or constant_inputs(node, view, weight=1, bias=2)
        or weight_channels(node, affine, view, axis=rows, group=1)
    )
    return refusal or Step("rows of B' *= a, C += b B'", (Absorb(node, affine, "before"),))


def _matmul(node: ir.Node, index: int, affine: Affine, view: View) -> Step | Refusal:
    """(x*a + b) B = x (a*B) + b B, on the LAST axis of x; A (a*x + b) = (A*a) x + A b on the one
    before. The shift goes into the Add behind, or is a new one."""
    left = weight_on_the_left(node, view)
    if not left and computed(node.inputs[0]) and computed(node.inputs[1]):
        return matrices.forward(node, index, affine, view)
    source, weight = (node.inputs[1], node.inputs[0]) if left else node.inputs[:2]
    rank = None if source is None else view.rank(source)
    matrix = None if weight is None else view.rank(weight)
    if rank is None or matrix is None:
        return Refusal("unknown-shape", f"the ranks around {label(node)} are not known.")
    refusal = (
        _input(1 if left else 0, index, node)
        or _on_axis(rank - (2 if left else 1), node, affine)
        or constant_inputs(node, view, weight=0 if left else 1)
    )
    if refusal:
        return refusal
    flat = matrix == 2 or (matrix > 2 and not left and not affine.shifts)
    if not flat or rank < 2:
        return Refusal("unsupported-form", f"the weight of {label(node)} is not a matrix.")
    rows = 1 if left else matrix - 2
    refusal = weight_channels(node, affine, view, axis=rows, group=1, index=0 if left else 1)
    if refusal:
        return refusal
    total = view.bias_behind(node)
    if affine.shifts and left and total is not None:
        return Refusal(
            "dearer", f"the constant of {label(total)} would be repeated for every channel."
        )
    adds = 1 if affine.shifts and total is None else 0
    formula = "columns of A *= a" if left else "rows of B *= a"
    product = "A b" if left else "b B"
    return Step(
        f"{formula}, then + {product}" if affine.shifts else formula,
        (Absorb(node, affine, "before"),),
        adds=adds,
    )


def _batchnorm(node: ir.Node, index: int, affine: Affine, view: View) -> Step | Refusal:
    """gamma/std*(a*x + b - mean) + beta = (gamma*a)/std*(x - mean)
    + (beta + gamma/std*(a*mean + b - mean)): one that stays, with frozen statistics, takes the map
    of the one in front of it (`forward.py` knows which stay)."""
    frozen = node.attributes.get("training_mode")
    gamma = node.inputs[1]
    refusal = (
        _input(0, index, node)
        or _on_axis(1, node, affine)
        or constant_inputs(node, view, gamma=1, beta=2, mean=3, variance=4)
        or weight_channels(node, affine, view, axis=0, group=1)
    )
    if refusal:
        return refusal
    if (frozen is not None and frozen.as_int()) or len(node.outputs) > 1 or gamma is None:
        return Refusal("training-mode", f"{label(node)} normalises by the statistics of a batch.")
    if view.rank(gamma) != 1:
        return Refusal("unsupported-form", f"{label(node)} has no one weight per channel.")
    formula = "beta += gamma/std*(a*mean + b - mean), gamma *= a"
    return Step(formula, (Absorb(node, affine, "before"),))


def _instance(node: ir.Node, index: int, affine: Affine, view: View) -> Step | Refusal:
    """The mean that InstanceNormalization takes away has the same shift; a scale would meet its
    epsilon, sqrt(a^2*var + eps)."""
    del view
    refusal = _input(0, index, node) or _on_axis(1, node, affine)
    if refusal:
        return refusal
    if affine.scales:
        return Refusal("not-linear", f"{label(node)} reads it; {WHY_NOT[node.op_type]}.")
    return Step("its mean has the same shift, which it takes away")


def _recurrent(node: ir.Node, index: int, affine: Affine, view: View) -> Step | Refusal:
    """W(a*x + b) + Wb = (W*a) x + (Wb + W b) for each gate and direction; R is untouched."""
    refusal = (
        _input(0, index, node) or _on_axis(2, node, affine) or constant_inputs(node, view, weight=1)
    )
    if refusal:
        return refusal
    bias = node.inputs[3] if len(node.inputs) > 3 else None
    if bias is not None:
        refusal = view.why_not_constant(bias, node, "bias")
    return (
        refusal
        or weight_channels(node, affine, view, axis=2, group=1)
        or Step("W *= a, Wb += W b", (Absorb(node, affine, "before"),))
    )


def _input(data: int, index: int, node: ir.Node) -> Refusal | None:
    if index == data:
        return None
    return Refusal("not-linear", f"it is no data but a parameter of {label(node)}.")


def _on_axis(channels: int, node: ir.Node, affine: Affine) -> Refusal | None:
    if affine.axis == channels:
        return None
    return Refusal(
        "wrong-axis",
        f"{label(node)} sums over axis {channels} of its input, but the batch-norm acts on axis "
        f"{affine.axis} of it.",
    )


def _group(node: ir.Node) -> int:
    attribute = node.attributes.get("group")
    return 1 if attribute is None else attribute.as_int()


def _flag(node: ir.Node, name: str) -> bool:
    attribute = node.attributes.get(name)
    return attribute is not None and bool(attribute.as_int())


_EPSILON = "it divides by sqrt(var + epsilon), so a scale in front of it is not the same behind"
# What people expect to take up a map, and why it does not.
WHY_NOT: dict[str, str] = {
    "InstanceNormalization": _EPSILON,
    "LayerNormalization": _EPSILON,
    "GroupNormalization": _EPSILON,
    "LpNormalization": "its norm is one over all channels",
}

BEFORE: dict[str, ForwardRule] = {
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Gemm": _gemm,
    "MatMul": _matmul,
    "Einsum": contractions.before,
    "BatchNormalization": _batchnorm,
    "RNN": _recurrent,
    "LSTM": _recurrent,
    "GRU": _recurrent,
    "InstanceNormalization": _instance,
}
