"""Large weights that an op only rearranges: they stay where they are, with their axes moved.

Nor are they read where only their shape is asked for, as by the zero biases of torch's exporter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import onnx_ir as ir

from converter.certificate.arrays import Shape
from converter.certificate.context import Context, attributes
from converter.certificate.forms import Known, Value
from converter.certificate.rearranging import given, reshape_target
from converter.certificate.stored import Stored


def moved(ctx: Context, node: ir.Node, values: Sequence[Value]) -> Known | None:
    """What the op makes of a weight that is not held; None: it must be evaluated."""
    x = values[0]
    if not isinstance(x, Known) or not isinstance(x.numbers, Stored):
        return None
    if any(isinstance(value, Known) and value.sized for value in values):
        return None
    attrs, stored = attributes(node, ctx.opset), x.numbers
    rank = len(stored.shape)
    if node.op_type == "Identity":
        return x
    if node.op_type == "Shape":
        part = slice(attrs.get("start", 0), attrs.get("end"))
        return Known(np.asarray(stored.shape[part], np.int64))
    if node.op_type == "Transpose":
        perm = tuple(attrs.get("perm", range(rank)[::-1]))
        if sorted(perm) != list(range(rank)):
            return None
        return replace(x, numbers=stored.transposed(perm))
    shape = _reshaped(node.op_type, stored.shape, attrs, values)
    return None if shape is None else replace(x, numbers=stored.reshaped(shape))


def _reshaped(
    op: str, shape: Shape, attrs: dict[str, object], values: Sequence[Value]
) -> Shape | None:
    if op == "Reshape":
        target = given(values, 1, attrs, "shape") or []
        return tuple(reshape_target(shape, target, bool(attrs.get("allowzero", 0))))
    axes = given(values, 1, attrs, "axes") if op in {"Squeeze", "Unsqueeze"} else None
    if not axes:
        return None
    rank = len(shape) + (len(axes) if op == "Unsqueeze" else 0)
    at = {axis % rank for axis in axes}
    if len(at) != len(axes):
        return None
    if op == "Squeeze":
        if any(shape[axis] != 1 for axis in at):
            return None
        return tuple(n for axis, n in enumerate(shape) if axis not in at)
    rest = iter(shape)
    return tuple(1 if axis in at else next(rest) for axis in range(rank))
