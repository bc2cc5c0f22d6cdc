"""Relu and its kin as y = min(max(x, lo), hi), with thresholds that differ from channel to channel.

    relu: lo = 0, hi = inf        clip: lo = min, hi = max        a maximum: hi = inf

A whole affine then passes, whatever its signs, because only the thresholds move:

    a*clip(x, lo, hi) + b = clip(a*x + b, a*lo + b, a*hi + b)
    clip(a*x + b, lo, hi) = a*clip(x, (lo - b)/a, (hi - b)/a) + b

with lo and hi exchanged in the channels where a < 0. (Positive homogeneity alone, as in Nagel et
al. 2019, arXiv 1906.04721, section 4.1, lets no shift pass.) Thresholds at infinity stay there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from converter.folding.affine import Affine, along_axis
from converter.graph.naming import unique
from converter.graph.rounding import Float64
from converter.graph.values import numbers


@dataclass(frozen=True, eq=False)
class Thresholds:
    """lo <= hi, each of a shape that broadcasts to that of the data and has its rank."""

    low: Float64
    high: Float64

    def after(self, affine: Affine) -> Thresholds:
        """Those of a*clip(x) + b as a function of a*x + b; where a = 0, that is b, unbounded."""
        rank = self.low.ndim
        scale = along_axis(affine.scale, affine.axis, rank)
        shift = along_axis(affine.shift, affine.axis, rank)
        with np.errstate(invalid="ignore", over="ignore"):
            low, high = (_finite(scale * t + shift, t) for t in (self.low, self.high))
        return _ordered(low, high, scale)

    def before(self, affine: Affine) -> Thresholds:
        """Those of clip(a*x + b) as a*clip(x) + b; a is not 0."""
        rank = self.low.ndim
        scale = along_axis(affine.scale, affine.axis, rank)
        shift = along_axis(affine.shift, affine.axis, rank)
        with np.errstate(over="ignore"):
            low, high = (_finite((t - shift) / scale, t) for t in (self.low, self.high))
        return _ordered(low, high, scale)

    def values(self) -> tuple[Float64 | None, Float64 | None]:
        """(low, high), None for one that bounds nothing."""
        low = None if np.all(self.low == -np.inf) else self.low
        return low, None if np.all(self.high == np.inf) else self.high


def _finite(moved: Float64, threshold: Float64) -> Float64:
    """NaN where a number has become infinite: that is no threshold any more."""
    return np.where(np.isinf(moved) & np.isfinite(threshold), np.nan, moved)


def _ordered(low: Float64, high: Float64, scale: Float64) -> Thresholds:
    turned = scale < 0
    constant = scale == 0
    return Thresholds(
        np.where(constant, -np.inf, np.where(turned, high, low)),
        np.where(constant, np.inf, np.where(turned, low, high)),
    )


def thresholds_of(node: ir.Node, rank: int) -> Thresholds:
    """Those of a Relu, a Clip, or a Max or Min with a constant, for data of `rank` axes."""
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
    attribute = node.attributes.get(name)
    if attribute is not None:
        return np.full(default.shape, attribute.as_float())
    value = node.inputs[index] if len(node.inputs) > index else None
    return default if value is None else np.full(default.shape, numbers(value).ravel()[0])


def write_thresholds(
    node: ir.Node,
    found: Thresholds,
    initializer: Callable[[Float64], ir.Value],
    names: set[str],
) -> None:
    """Make `node` the maximum with one constant, the minimum with one, or one behind the other."""
    low, high = found.values()
    data = next(v for v in node.inputs if v is not None and not v.is_initializer())
    ops = [(op, values) for op, values in (("Max", low), ("Min", high)) if values is not None]
    if not ops:
        ops = [("Max", found.low)]
    (op, values), *more = ops
    node.op_type = op
    node.attributes.clear()
    node.resize_inputs(2)
    node.replace_input_with(0, data)
    node.replace_input_with(1, initializer(values))
    for op, values in more:
        result, graph = node.outputs[0], node.graph
        assert graph is not None
        behind = ir.Node("", op, [result, initializer(values)], name=f"{node.name}_{op.lower()}")
        behind.metadata_props.update(node.metadata_props)
        bounded = behind.outputs[0]
        bounded.name = unique(f"{result.name}_{op.lower()}", names)
        bounded.shape, bounded.type = result.shape, result.type
        for use in tuple(result.uses()):
            if use.node is not behind:
                use.node.replace_input_with(use.idx, bounded)
        for index, output in enumerate(graph.outputs):
            if output is result:
                graph.outputs[index] = bounded
                result.name, bounded.name = bounded.name, result.name
        graph.insert_after(node, behind)
