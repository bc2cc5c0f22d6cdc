"""MatMul with a constant matrix on one side: y = x B, or y = A x.

    behind it:  a*y + b        the columns of B *= a, or the rows of A *= a; then + b
    before it:  x = a*x' + b   the rows of B *= a, then + b B; or the columns of A *= a, then + A b

The columns of B are the last axis of y, whatever its rank; the rows of A are the one before.
MatMul has no bias: a shift goes into the Add behind it, or an Add replaces the batch-norm.
Where both factors are computed, `moves/matrices.py` says what passes.
"""

from __future__ import annotations

from dataclasses import replace

import onnx_ir as ir

from converter.folding.affine import Affine
from converter.folding.constants import Constants
from converter.folding.moves import matrices
from converter.folding.moves.same_axis import data_only
from converter.folding.ops.linear import (
    constant_inputs,
    new_bias,
    on_input_axis,
    on_output_axis,
    sizes,
    weight_channels,
)
from converter.folding.refusal import Refusal
from converter.folding.step import Absorb, ForwardRule, Rule, Step, Update
from converter.folding.view import View
from converter.graph.naming import label


def backward(node: ir.Node, affine: Affine, view: View) -> Step | Refusal:
    """a*(x B) + b = x (B*a) + b;  a*(A x) + b = (a*A) x + b."""
    rank = view.rank(node.outputs[0])
    if rank is None:
        return Refusal("unknown-shape", f"the rank of {label(node)} is not known.")
    left = _on_the_left(node, view)
    if not left and _computed(node.inputs[1]):
        return matrices.backward(node, affine, view)
    place = 0 if left else 1
    refusal = on_output_axis(rank - (2 if left else 1), node, affine) or constant_inputs(
        node, view, weight=place
    )
    if refusal:
        return refusal
    weight = node.inputs[place]
    matrix = None if weight is None else view.rank(weight)
    if matrix is None or matrix < 2 or (left and matrix > 2):
        return Refusal("unsupported-form", f"the weight of {label(node)} is not a matrix.")
    axis = 0 if left else matrix - 1
    refusal = weight_channels(node, affine, view, axis=axis, index=place)
    if refusal:
        return refusal
    formula = "rows of A *= a" if left else "columns of B *= a"
    if not affine.shifts:
        return Step(formula, (Absorb(node, affine, AFTER),))
    adds = 1 if view.bias_behind(node) is None else 0
    return Step(f"{formula}, then + b", (Absorb(node, affine, AFTER),), adds=adds)


def forward(node: ir.Node, index: int, affine: Affine, view: View) -> Step | Refusal:
    """(x*a + b) B = x (a*B) + b B;  A (a*x + b) = (A*a) x + A b."""
    left = _on_the_left(node, view)
    if not left and _computed(node.inputs[0]) and _computed(node.inputs[1]):
        return matrices.forward(node, index, affine, view)
    place = 0 if left else 1
    source, weight = node.inputs[1 - place], node.inputs[place]
    rank = None if source is None else view.rank(source)
    matrix = None if weight is None else view.rank(weight)
    if rank is None or matrix is None:
        return Refusal("unknown-shape", f"the ranks around {label(node)} are not known.")
    refusal = (
        data_only(node, index, 1 - place)
        or on_input_axis(rank - (2 if left else 1), node, affine)
        or constant_inputs(node, view, weight=place)
    )
    if refusal:
        return refusal
    flat = matrix == 2 or (matrix > 2 and not left and not affine.shifts)
    if not flat or rank < 2:
        return Refusal("unsupported-form", f"the weight of {label(node)} is not a matrix.")
    refusal = weight_channels(node, affine, view, axis=1 if left else matrix - 2, index=place)
    if refusal:
        return refusal
    formula = "columns of A *= a" if left else "rows of B *= a"
    if not affine.shifts:
        return Step(formula, (Absorb(node, affine, BEFORE),))
    total = view.bias_behind(node)
    if left and total is not None:
        return Refusal(
            "dearer", f"the constant of {label(total)} would be repeated for every channel."
        )
    formula += ", then + A b" if left else ", then + b B"
    return Step(formula, (Absorb(node, affine, BEFORE),), adds=1 if total is None else 0)


def _computed(value: ir.Value | None) -> bool:
    """Whether a node computes the value; a graph input may be a weight with a default value."""
    return value is not None and value.producer() is not None


def _on_the_left(node: ir.Node, view: View) -> bool:
    """Whether the first factor is the constant one."""
    right = view.why_not_constant(node.inputs[1], node, "weight")
    return right is not None and view.why_not_constant(node.inputs[0], node, "weight") is None


def _after(constants: Constants, affine: Affine) -> None:
    """B is (.., K, N), A is (M, K)."""
    place = constants.constant_index()
    scale = affine.scale if place == 1 else affine.scale[:, None]
    constants[place] = constants[place] * scale
    if constants.behind is not None or affine.shifts:
        before = 0.0 if constants.behind is None else constants.behind
        constants.behind = affine.scale * before + affine.shift
        constants.behind_axis = affine.axis


def _before(constants: Constants, affine: Affine) -> None:
    place = constants.constant_index()
    weight = constants[place]
    if affine.shifts:
        before = 0.0 if constants.behind is None else constants.behind
        product = affine.shift @ weight if place == 1 else weight @ affine.shift
        constants.behind = before + product
        constants.behind_axis = constants.output_rank() - (1 if place == 1 else 2)
    constants[place] = weight * (affine.scale[:, None] if place == 1 else affine.scale)


def _outputs(node: ir.Node) -> int:
    place = Constants(node).constant_index()
    return sizes(node, place)[-1 if place == 1 else 0]


AFTER = Update("after", _after, scaled=(0, 1), grows=new_bias(_outputs))
BEFORE = replace(AFTER, side="before", apply=_before)

BACKWARD: dict[str, Rule] = {"MatMul": backward}
FORWARD: dict[str, ForwardRule] = {"MatMul": forward}
