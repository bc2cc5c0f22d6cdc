"""Slice picks along an axis. (So does Gather, which may take a map up: `ops/gather.py`.)"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from converter.folding.affine import Affine
from converter.folding.moves.channels import (
    Indices,
    constant_ints,
    padded,
    picked,
    size_of,
    unknown,
)
from converter.folding.moves.same_axis import data_only
from converter.folding.refusal import Refusal
from converter.folding.step import ForwardRule, Rule, Step
from converter.folding.view import View


def _slice(node: ir.Node, affine: Affine, view: View) -> Step | Refusal:
    """y = x[start:end:step]: on the channel axis the others keep the identity."""
    size = size_of(node.inputs[0], affine.axis, view)
    if not _slices(node, affine.axis, view):
        return Step("passes Slice", onward=((0, affine),))
    indices = _sliced(node, affine.axis, size, view)
    if indices is None or size is None or len(indices) != affine.channels:
        return unknown(node)
    whole = padded(affine, indices, size)
    assert whole is not None
    return Step(f"passes Slice, {len(indices)} of {size} channels", onward=((0, whole),))


def _slice_forward(node: ir.Node, index: int, affine: Affine, view: View) -> Step | Refusal:
    """(a*x + b)[start:end:step]: the same slice of a and b."""
    if index != 0:
        return data_only(node, index) or unknown(node)
    if not _slices(node, affine.axis, view):
        return Step("passes Slice", onward=((0, affine),))
    indices = _sliced(node, affine.axis, affine.channels, view)
    if indices is None or not len(indices):
        return unknown(node)
    text = f"passes Slice, {len(indices)} of {affine.channels} channels"
    return Step(text, onward=((0, picked(affine, indices)),))


def _slices(node: ir.Node, axis: int, view: View) -> bool:
    """Whether a Slice may take only a part of `axis`; True if that is not known."""
    bounds, source = _bounds(node, view), node.inputs[0]
    rank = None if source is None else view.rank(source)
    return bounds is None or rank is None or any(at % rank == axis for at in bounds[2])


def _sliced(node: ir.Node, axis: int, size: int | None, view: View) -> Indices | None:
    """Which indices of `axis` a Slice takes; None if not known."""
    bounds, source = _bounds(node, view), node.inputs[0]
    rank = None if source is None else view.rank(source)
    if bounds is None or rank is None or size is None:
        return None
    found = [limits for limits in zip(*bounds, strict=True) if limits[2] % rank == axis]
    if len(found) != 1:
        return None
    start, end, _, step = found[0]
    if step == 0 or (step < 0 and start < -size):
        return None
    return np.arange(size)[slice(start, end, step)]


def _bounds(node: ir.Node, view: View) -> tuple[tuple[int, ...], ...] | None:
    """(starts, ends, axes, steps): attributes before opset 10, then constant inputs."""
    if "starts" in node.attributes:
        starts = tuple(node.attributes["starts"].as_ints())
        ends = tuple(node.attributes["ends"].as_ints())
        axes = tuple(node.attributes.get_ints("axes", range(len(starts))))
        return starts, ends, axes, (1,) * len(starts)
    inputs = [*node.inputs[1:], *[None] * (5 - len(node.inputs))]
    found = [constant_ints(value, node, view) for value in inputs]
    if any(value is not None and ints is None for value, ints in zip(inputs, found, strict=True)):
        return None
    starts_ends = found[0], found[1]
    if starts_ends[0] is None or starts_ends[1] is None:
        return None
    count = len(starts_ends[0])
    axes = tuple(range(count)) if found[2] is None else found[2]
    return starts_ends[0], starts_ends[1], axes, (1,) * count if found[3] is None else found[3]


BACKWARD: dict[str, Rule] = {"Slice": _slice}
FORWARD: dict[str, ForwardRule] = {"Slice": _slice_forward}
