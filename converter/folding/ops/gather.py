"""Gather: y = x[indices] along an axis.

    behind it:  a*y + b        table = a*table + b, where x is a constant table (an embedding)
    before it:  x = a*x' + b   nothing goes in; the map passes

Along an axis other than that of the indices a map passes unchanged. Along that axis, a channel that
is not picked keeps the identity, and one that is picked twice must need the same map both times.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from converter.folding.affine import Affine, along_axis
from converter.folding.constants import Constants
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
from converter.folding.step import Absorb, ForwardRule, Rule, Step, Update
from converter.folding.view import View
from converter.graph.naming import label


def backward(node: ir.Node, affine: Affine, view: View) -> Step | Refusal:
    """a*x[indices] + b = (a*x + b)[indices], for a table as for a value that is computed."""
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
        return Step("the columns of the table *= a, += b", (Absorb(node, moved, AFTER),))
    return Step(f"passes Gather, axis {affine.axis} is axis {axis}", onward=((0, moved),))


def forward(node: ir.Node, index: int, affine: Affine, view: View) -> Step | Refusal:
    """(a*x + b)[indices]: a and b are picked likewise if the indices pick channels."""
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


def _after(constants: Constants, affine: Affine) -> None:
    table = constants[0]
    scale, shift = (
        along_axis(values, affine.axis, table.ndim) for values in (affine.scale, affine.shift)
    )
    constants[0] = scale * table + shift


AFTER = Update("after", _after, shifted=(0,))

BACKWARD: dict[str, Rule] = {"Gather": backward}
FORWARD: dict[str, ForwardRule] = {"Gather": forward}
