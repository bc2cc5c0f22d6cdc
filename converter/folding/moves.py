"""How an affine passes an op backward, from its output to its inputs: one rule an op.

A rule gets the node and the affine that acts on the node's output y, y' = a*y + b, and
returns the affine on its input(s) that has the same effect, or a refusal. Scale and shift
may part: what passes goes `onward`, what does not stays behind in an edit.

To add an op: write a rule with its formula as the docstring, put it into `BACKWARD`, and add
a case to `tests/converter/folding/test_moves.py`, which runs every entry of the table.
"""

from __future__ import annotations

from math import prod

import onnx_ir as ir

from converter.folding.affine import Affine
from converter.folding.axes import carry, flattened, reshaped
from converter.folding.commuting import SAME_AXIS, reduced_axes, refusal_on_axis
from converter.folding.naming import label
from converter.folding.refusal import Refusal
from converter.folding.step import Absorb, Rule, Step
from converter.folding.view import Dim, View


def _same_axis(node: ir.Node, affine: Affine, view: View) -> Step | Refusal:
    """The channels stay where they are; whether the op commutes is `commuting.py`'s to say."""
    refusal = refusal_on_axis(node, affine, view)
    return refusal or Step(f"passes {node.op_type}", onward=((0, affine),))


def _reduce_mean(node: ir.Node, affine: Affine, view: View) -> Step | Refusal:
    """The mean over other axes commutes with the map; their axes are back in its input."""
    source = node.inputs[0]
    rank = None if source is None else view.rank(source)
    axes = reduced_axes(node, view)
    if rank is None or not axes:
        return Refusal("unknown-shape", f"the axes of {label(node)} are not known.")
    reduced = {axis % rank for axis in axes}
    keep = node.attributes.get("keepdims")
    if keep is None or keep.as_int():
        axis = affine.axis
    else:
        axis = [axis for axis in range(rank) if axis not in reduced][affine.axis]
    if axis in reduced:
        return Refusal("wrong-axis", f"{label(node)} averages over the channels.")
    return Step(f"passes {node.op_type}", onward=((0, affine.along(axis)),))


def _concat(node: ir.Node, affine: Affine, view: View) -> Step | Refusal:
    """On the channel axis each input takes its part of the map, on another axis all of it."""
    rank = view.rank(node.outputs[0])
    shapes = [None if value is None else view.shape(value) for value in node.inputs]
    if rank is None or any(shape is None for shape in shapes):
        return Refusal("unknown-shape", f"the shapes that {label(node)} joins are not known.")
    axis = node.attributes["axis"].as_int() % rank
    if axis != affine.axis:
        onward = tuple((index, affine) for index in range(len(shapes)))
        return Step("passes Concat, on each of its inputs", onward=onward)
    sizes = [shape[axis] for shape in shapes if shape is not None]
    known = [size for size in sizes if isinstance(size, int)]
    if len(known) < len(sizes) or sum(known) != affine.channels:
        return Refusal("unknown-shape", f"the sizes that {label(node)} joins are not known.")
    parts: list[tuple[int, Affine]] = []
    start = 0
    for index, size in enumerate(known):
        part = slice(start, start + size)
        parts.append((index, Affine(affine.scale[part], affine.shift[part], axis)))
        start += size
    return Step("passes Concat, a part on each of its inputs", onward=tuple(parts))


def _transpose(node: ir.Node, affine: Affine, view: View) -> Step | Refusal:
    """y = x permuted, y axis k is x axis perm[k]."""
    perm = node.attributes.get("perm")
    if perm is not None:
        axis = perm.as_ints()[affine.axis]
    else:
        rank = view.rank(node.outputs[0])
        if rank is None:
            return Refusal("unknown-shape", f"the rank of {label(node)} is not known.")
        axis = rank - 1 - affine.axis
    return Step(
        f"passes Transpose, axis {affine.axis} is axis {axis}", onward=((0, affine.along(axis)),)
    )


def regrouped(
    node: ir.Node, affine: Affine, here: tuple[Dim, ...] | None, there: tuple[Dim, ...] | None
) -> Step | Refusal:
    """From the axes of one side of `node` to those of the other: same elements, same order, so
    the map is repeated or regrouped (`axes.carry`)."""
    if here is None or there is None:
        return Refusal("unknown-shape", f"the shapes around {label(node)} are not known.")
    carried = carry(affine, here, there)
    if isinstance(carried, str):
        return Refusal("not-per-channel", f"through {label(node)}, {carried}")
    text = f"passes {node.op_type}, axis {affine.axis} is axis {carried.axis}"
    if carried.channels != affine.channels:
        text += f", {affine.channels} values as {carried.channels}"
    return Step(text, onward=((0, carried),))


def _reshape(node: ir.Node, affine: Affine, view: View) -> Step | Refusal:
    """a*Reshape(x) + b = Reshape(a'*x + b') with a', b' laid out on the axes of x."""
    source = node.inputs[0]
    return regrouped(node, affine, reshaped(node, view), view.shape(source) if source else None)


def _flatten(node: ir.Node, affine: Affine, view: View) -> Step | Refusal:
    """As Reshape to (product of the axes before `axis`, product of the rest)."""
    source = node.inputs[0]
    old = view.shape(source) if source else None
    axis = node.attributes.get("axis")
    new = None if old is None else flattened(old, 1 if axis is None else axis.as_int())
    return regrouped(node, affine, new, old)


def _add(node: ir.Node, affine: Affine, view: View) -> Step | Refusal:
    """a*(x + c) + b = a*x + (a*c + b) for a constant c: the Add keeps the shift."""
    return _sum_with_constant(node, affine, view, "c = a*c + b")


def _sub(node: ir.Node, affine: Affine, view: View) -> Step | Refusal:
    """a*(x - c) + b = a*x - (a*c - b);  a*(c - x) + b = (a*c + b) - a*x."""
    return _sum_with_constant(node, affine, view, "c = a*c - b, or a*c + b on the left")


def _sum_with_constant(node: ir.Node, affine: Affine, view: View, formula: str) -> Step | Refusal:
    constant = constant_operand(node, view)
    if constant is None:
        return _sum_of_two(node, affine, view)
    computed, held = node.inputs[1 - constant], node.inputs[constant]
    shape = None if computed is None else view.shape(computed)
    rank = view.rank(node.outputs[0])
    if shape is None or len(shape) != rank or shape[affine.axis] != affine.channels:
        return Refusal(
            "unknown-shape",
            f"{label(node)} broadcasts its input along the channels, or the shape is not known.",
        )
    reservation = None
    if held is not None and _grows(view.shape(held) or (), affine, rank):
        reservation = Refusal(
            "dearer", f"the constant of {label(node)} would be repeated for every channel."
        )
    onward = ((1 - constant, affine.scale_only()),)
    return Step(formula, (Absorb(node, affine),), onward, reservation)


def _sum_of_two(node: ir.Node, affine: Affine, view: View) -> Step | Refusal:
    """a*(x + y) + b = (a*x + b) + a*y, and the same with minus: the shift on one side only."""
    rank = view.rank(node.outputs[0])
    for value in node.inputs:
        shape = None if value is None else view.shape(value)
        if shape is None or len(shape) != rank or shape[affine.axis] != affine.channels:
            return Refusal(
                "unknown-shape",
                f"{label(node)} broadcasts an input along the channels, or a shape is not known.",
            )
    return Step(
        f"passes {node.op_type}, the scale on both sides, the shift on the first",
        onward=((0, affine), (1, affine.scale_only())),
    )


def _grows(held: tuple[Dim, ...], affine: Affine, rank: int) -> bool:
    """Whether a constant of this shape, times (C,), has more numbers than itself and (C,)."""
    position = affine.axis - (rank - len(held))
    repeated = position < 0 or held[position] == 1
    size = prod(dim for dim in held if isinstance(dim, int))
    return repeated and size > 1 and affine.channels > 1


def constant_operand(node: ir.Node, view: View) -> int | None:
    """Which of the two operands is a constant; None if neither or both are."""
    constant = [view.why_not_constant(value, node, "operand") is None for value in node.inputs]
    return constant.index(True) if constant.count(True) == 1 else None


def _by_shape(node: ir.Node, affine: Affine, view: View) -> Step | Refusal:
    """Squeeze and Unsqueeze only add or drop axes of size 1; the annotated shapes tell which."""
    source = node.inputs[0]
    return regrouped(
        node, affine, view.shape(node.outputs[0]), view.shape(source) if source else None
    )


BACKWARD: dict[str, Rule] = {
    **dict.fromkeys(SAME_AXIS, _same_axis),
    "Transpose": _transpose,
    "Reshape": _reshape,
    "Squeeze": _by_shape,
    "Unsqueeze": _by_shape,
    "Flatten": _flatten,
    "ReduceMean": _reduce_mean,
    "Concat": _concat,
    "Add": _add,
    "Sub": _sub,
}
