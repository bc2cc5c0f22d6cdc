"""Relu, Clip, and Max and Min with a constant: y = min(max(x, lo), hi), lo and hi per channel.

    relu: lo = 0, hi = inf        clip: lo = min, hi = max        a maximum: hi = inf

A whole map then passes, whatever its signs, because only the thresholds move:

    behind it:  a*y + b        clip(a*x + b, a*lo + b, a*hi + b)
    before it:  x = a*x' + b   a*clip(x', (lo - b)/a, (hi - b)/a) + b

with lo and hi exchanged in the channels where a < 0. (Positive homogeneity alone, as in Nagel et
al. 2019, arXiv 1906.04721, section 4.1, lets no shift pass.) Thresholds at infinity stay there.

A Relu becomes a maximum with one number per channel. Runtimes are faster with a Relu, so Relu and
Clip are rewritten only when the user asks for it (`Mode.through_relu`); a Max or Min with a
constant remains a Max or Min.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from converter.folding.affine import Affine, along_axis
from converter.folding.constants import Constants
from converter.folding.moves.broadcasting import on_operand
from converter.folding.ops.operands import constant_operand, repeated, repeats
from converter.folding.refusal import Refusal
from converter.folding.step import Absorb, ForwardRule, Rule, Step, Update
from converter.folding.view import View
from converter.graph.naming import label
from converter.graph.rounding import Float64
from converter.graph.values import numbers


@dataclass(frozen=True, eq=False)
class Thresholds:
    """lo <= hi, each of a shape that broadcasts to that of the data and has its rank."""

    low: Float64
    high: Float64

    def after(self, affine: Affine) -> Thresholds:
        """The thresholds of a*clip(x) + b as a function of a*x + b; b, unbounded, if a = 0."""
        rank = self.low.ndim
        scale = along_axis(affine.scale, affine.axis, rank)
        shift = along_axis(affine.shift, affine.axis, rank)
        with np.errstate(invalid="ignore", over="ignore"):
            low, high = (_finite(scale * t + shift, t) for t in (self.low, self.high))
        return _ordered(low, high, scale)

    def before(self, affine: Affine) -> Thresholds:
        """The thresholds of the clip in clip(a*x + b) = a*clip(x) + b; a is not 0."""
        rank = self.low.ndim
        scale = along_axis(affine.scale, affine.axis, rank)
        shift = along_axis(affine.shift, affine.axis, rank)
        with np.errstate(over="ignore"):
            low, high = (_finite((t - shift) / scale, t) for t in (self.low, self.high))
        return _ordered(low, high, scale)

    def values(self) -> tuple[Float64 | None, Float64 | None]:
        """(low, high), None for a threshold that bounds nothing."""
        low = None if np.all(self.low == -np.inf) else self.low
        return low, None if np.all(self.high == np.inf) else self.high

    def write(
        self, node: ir.Node, initializer: Callable[[Float64], ir.Value], name: Callable[[str], str]
    ) -> None:
        """Turn `node` into a maximum with a constant, a minimum with one, or both in turn."""
        low, high = self.values()
        data = next(v for v in node.inputs if v is not None and not v.is_initializer())
        ops = [(op, values) for op, values in (("Max", low), ("Min", high)) if values is not None]
        if not ops:
            ops = [("Max", self.low)]
        (op, values), *more = ops
        node.op_type = op
        node.attributes.clear()
        node.resize_inputs(2)
        node.replace_input_with(0, data)
        node.replace_input_with(1, initializer(values))
        for op, values in more:
            result, graph = node.outputs[0], node.graph
            assert graph is not None
            behind = ir.Node(
                "", op, [result, initializer(values)], name=f"{node.name}_{op.lower()}"
            )
            behind.metadata_props.update(node.metadata_props)
            bounded = behind.outputs[0]
            bounded.name = name(f"{result.name}_{op.lower()}")
            bounded.shape, bounded.type = result.shape, result.type
            for use in tuple(result.uses()):
                if use.node is not behind:
                    use.node.replace_input_with(use.idx, bounded)
            for index, output in enumerate(graph.outputs):
                if output is result:
                    graph.outputs[index] = bounded
                    result.name, bounded.name = bounded.name, result.name
            graph.insert_after(node, behind)


def _finite(moved: Float64, threshold: Float64) -> Float64:
    """NaN where a number has become infinite, which is not a threshold any more."""
    return np.where(np.isinf(moved) & np.isfinite(threshold), np.nan, moved)


def _ordered(low: Float64, high: Float64, scale: Float64) -> Thresholds:
    turned = scale < 0
    constant = scale == 0
    return Thresholds(
        np.where(constant, -np.inf, np.where(turned, high, low)),
        np.where(constant, np.inf, np.where(turned, low, high)),
    )


def thresholds_of(node: ir.Node, rank: int) -> Thresholds:
    """The thresholds of a Relu, Clip, or Max or Min with a constant, for data of `rank` axes."""
    low, high = np.full([1] * rank, -np.inf), np.full([1] * rank, np.inf)
    if node.op_type == "Relu":
        return Thresholds(np.zeros([1] * rank), high)
    if node.op_type == "Clip":
        return Thresholds(_limit(node, 1, "min", low), _limit(node, 2, "max", high))
    held = next(value for value in node.inputs if value is not None and value.is_initializer())
    values = numbers(held)
    values = values.reshape([1] * (rank - values.ndim) + list(values.shape))
    return Thresholds(values, high) if node.op_type == "Max" else Thresholds(low, values)


def _limit(node: ir.Node, index: int, name: str, default: Float64) -> Float64:
    """An attribute before opset 11, then an input."""
    held = node.attributes.get_float(name, None)
    if held is not None:
        return np.full(default.shape, held)
    value = node.inputs[index] if len(node.inputs) > index else None
    return default if value is None else np.full(default.shape, numbers(value).ravel()[0])


def _clip(node: ir.Node, affine: Affine, view: View) -> Refusal:
    """Unless the user has asked for it, no map passes a Clip."""
    del affine
    return _computed_bound(node, view) or Refusal(
        "not-linear", f"{label(node)} lets no scale and no shift pass."
    )


def _clip_forward(node: ir.Node, index: int, affine: Affine, view: View) -> Refusal:
    del index
    return _clip(node, affine, view)


def _computed_bound(node: ir.Node, view: View) -> Refusal | None:
    """The bounds of a Clip must be constants."""
    bounds = node.inputs[1:3] if node.op_type == "Clip" else ()
    refusals = (view.why_not_constant(v, node, "bound") for v in bounds if v is not None)
    return next((refusal for refusal in refusals if refusal is not None), None)


def _extreme(node: ir.Node, affine: Affine, view: View) -> Step | Refusal:
    """a*max(x, c) + b = max(a*x + b, a*c + b), and min where a < 0."""
    return _with_constant(node, affine, view) or backward(node, affine, view)


def _extreme_forward(node: ir.Node, index: int, affine: Affine, view: View) -> Step | Refusal:
    """max(a*x + b, c) = a*max(x, (c - b)/a) + b, and min where a < 0."""
    return _with_constant(node, affine, view) or forward(node, index, affine, view)


def _with_constant(node: ir.Node, affine: Affine, view: View) -> Refusal | None:
    constant = constant_operand(node, view) if len(node.inputs) == 2 else None
    if constant is None:
        return Refusal("not-linear", f"{label(node)} compares values that are computed.")
    held = node.inputs[constant]
    shape = None if held is None else view.shape(held)
    if shape is None or repeats(shape, affine, view.rank(node.outputs[0]) or 0):
        return repeated(node)
    return None


def backward(node: ir.Node, affine: Affine, view: View) -> Step | Refusal:
    """a*clip(x, lo, hi) + b = clip(a*x + b, a*lo + b, a*hi + b)."""
    index = _data(node)
    refusal = _computed_bound(node, view) or _same_channels(node, index, affine, view)
    if refusal:
        return refusal
    edits = (Absorb(node, affine, AFTER),)
    return Step(
        "its thresholds become a*t + b", edits, ((index, affine),), adds=_more(node, affine)
    )


def forward(node: ir.Node, index: int, affine: Affine, view: View) -> Step | Refusal:
    """clip(a*x + b, lo, hi) = a*clip(x, (lo - b)/a, (hi - b)/a) + b."""
    if index != _data(node):
        return Refusal("not-linear", f"it is a bound of {label(node)}, not its data.")
    refusal = _computed_bound(node, view) or _same_channels(node, index, affine, view)
    if refusal:
        return refusal
    if np.any(affine.scale == 0.0):
        return Refusal(
            "not-linear", f"{label(node)} follows, and a scale of 0 in front of it has no inverse."
        )
    edits = (Absorb(node, affine, BEFORE),)
    return Step("its thresholds become (t - b)/a", edits, ((0, affine),), adds=_more(node, affine))


def _data(node: ir.Node) -> int:
    first = node.inputs[0]
    return int(node.op_type in {"Max", "Min"} and first is not None and first.is_initializer())


def _same_channels(node: ir.Node, index: int, affine: Affine, view: View) -> Refusal | None:
    """The data must have the rank and the channels of the result, and both must be known."""
    if not view.broadcasts:
        why = "before opset 8, a maximum or minimum does not repeat its constant"
        return Refusal("unsupported-form", f"{label(node)} keeps its bounds: {why}.")
    value, rank = node.inputs[index], view.rank(node.outputs[0])
    shape = None if value is None else view.shape(value)
    placed = on_operand(affine, shape, rank)
    if placed is None or shape is None or len(shape) != rank or placed.channels != affine.channels:
        return Refusal("unknown-shape", f"the shapes around {label(node)} are not known.")
    if node.outputs[0].dtype is None:
        return Refusal("unknown-shape", f"the type of what {label(node)} gives is not known.")
    return None


def _more(node: ir.Node, affine: Affine) -> int:
    """A maximum in some channels and a minimum in others are two ops, and so are two bounds."""
    mixed = bool(np.any(affine.scale < 0) and np.any(affine.scale > 0))
    return int(mixed or node.op_type == "Clip")


def _after(constants: Constants, affine: Affine) -> None:
    constants.rewrite = _held(constants).after(affine)


def _before(constants: Constants, affine: Affine) -> None:
    constants.rewrite = _held(constants).before(affine)


def _held(constants: Constants) -> Thresholds:
    """The thresholds with the changes so far."""
    if isinstance(constants.rewrite, Thresholds):
        return constants.rewrite
    return thresholds_of(constants.node, constants.output_rank())


AFTER = Update("after", _after)
BEFORE = Update("before", _before)

BACKWARD: dict[str, Rule] = {"Clip": _clip, "Max": _extreme, "Min": _extreme}
FORWARD: dict[str, ForwardRule] = {
    "Clip": _clip_forward,
    "Max": _extreme_forward,
    "Min": _extreme_forward,
}
# The rules that are tried in addition when the user has asked for it.
THROUGH_RELU_BACKWARD: dict[str, Rule] = {"Relu": backward, "Clip": backward}
THROUGH_RELU_FORWARD: dict[str, ForwardRule] = {"Relu": forward, "Clip": forward}
