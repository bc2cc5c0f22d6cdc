"""Ops that pick along an axis: Slice and Gather; a Gather from a constant table takes a map up."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from converter.folding.affine import Affine
from converter.folding.moves.channels import (
    Indices,
    axis_of,
    constant_ints,
    padded,
    picked,
    size_of,
    unknown,
)
from converter.folding.moves.same_axis import data_only
from converter.folding.refusal import Refusal
from converter.folding.step import Absorb, ForwardRule, Rule, Step
from converter.folding.view import View
from converter.graph.naming import label

# --- Slice --------------------------------------------------------------------------------


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
    """(a*x + b)[start:end:step], and so a and b."""
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
    """Whether a Slice may take only some of `axis`; it does if that cannot be told."""
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
        given = node.attributes.get("axes")
        axes = tuple(range(len(starts))) if given is None else tuple(given.as_ints())
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


# --- Gather -------------------------------------------------------------------------------


def _gather(node: ir.Node, affine: Affine, view: View) -> Step | Refusal:
    """y = x[indices] along an axis. A channel that is not picked keeps the identity, one that is
    picked twice needs one map. A constant table takes the map up: table = a*table + b."""
    table, indices = node.inputs[0], node.inputs[1]
    rank = None if table is None else view.rank(table)
    width = None if indices is None else view.rank(indices)
    if table is None or rank is None or width is None:
        return Refusal("unknown-shape", f"the rank of {label(node)} is not known.")
    at = axis_of(node, rank)
    inside = at <= affine.axis < at + width
    if inside and width != 1:
        return unknown(node)
    axis = affine.axis if affine.axis < at else at if inside else affine.axis - width + 1
    moved = affine.along(axis)
    if inside:
        size, picks = size_of(table, axis, view), _picks(node, view)
        if size is None or picks is None or len(picks) != affine.channels:
            return unknown(node)
        whole = padded(moved, picks % size, size)
        if whole is None:
            return Refusal(
                "not-per-channel", f"{label(node)} repeats a channel, with another map each time."
            )
        moved = whole
    if view.why_not_constant(table, node, "table") is None:
        if size_of(table, axis, view) != moved.channels:
            return unknown(node)
        return Step("the columns of the table *= a, += b", (Absorb(node, moved),))
    return Step(f"passes Gather, axis {affine.axis} is axis {axis}", onward=((0, moved),))


def _gather_forward(node: ir.Node, index: int, affine: Affine, view: View) -> Step | Refusal:
    """(a*x + b)[indices], and so a and b if the channels are picked."""
    table, indices = node.inputs[0], node.inputs[1]
    rank = None if table is None else view.rank(table)
    width = None if indices is None else view.rank(indices)
    if index != 0 or rank is None or width is None:
        return data_only(node, index) or unknown(node)
    at = axis_of(node, rank)
    if at != affine.axis:
        axis = affine.axis if affine.axis < at else affine.axis + width - 1
        text = f"passes Gather, axis {affine.axis} is axis {axis}"
        return Step(text, onward=((0, affine.along(axis)),))
    picks = _picks(node, view)
    if picks is None or width != 1 or not len(picks):
        return unknown(node)
    text = f"passes Gather, {len(picks)} of {affine.channels} channels"
    return Step(text, onward=((0, picked(affine, picks % affine.channels)),))


def _picks(node: ir.Node, view: View) -> Indices | None:
    found = constant_ints(node.inputs[1], node, view)
    return None if found is None else np.asarray(found, dtype=np.int64)


BACKWARD: dict[str, Rule] = {"Slice": _slice, "Gather": _gather}
FORWARD: dict[str, ForwardRule] = {"Slice": _slice_forward, "Gather": _gather_forward}
