"""Einsum with one constant operand: a map on one of its axes goes into the constant.

Y[o] = sum over the letters that Y lacks of X[x] W[w], the letters of X, W and Y being x, w and o:

    behind:  a[l]*Y + b[l]       W *= a along l, then + b          l in w
    ahead:   X = a[l]*X' + b[l]  W *= a along l, then + sum of b[l] W[w]

The sum in the last line is over the letters that Y lacks, all of which must be in w. Einsum has no
bias, and no runtime fuses an Add behind it, as for MatMul. So a shift, which is along the one axis
of Y that w shares, goes into an existing Add; otherwise a new Add must replace a batch-norm of the
same size.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from math import prod

import numpy as np
import onnx_ir as ir

from converter.folding.affine import Affine, along_axis
from converter.folding.constants import Constants
from converter.folding.refusal import Refusal
from converter.folding.step import Absorb, ForwardRule, Rule, Step, Update
from converter.folding.view import View
from converter.graph.naming import label

_PLAIN = re.compile(r"([A-Za-z]+),([A-Za-z]+)->([A-Za-z]*)")


@dataclass(frozen=True)
class _Equation:
    """The letters of the computed operand, of the constant one, and of the result."""

    data: str
    weight: str
    result: str
    place: int  # which operand is the constant

    @property
    def shared(self) -> str:
        """The letters of the result that the constant has."""
        return "".join(letter for letter in self.result if letter in self.weight)

    @property
    def bias_axis(self) -> int | None:
        """The axis of a bias per channel, if the constant has one axis of the result."""
        return self.result.index(self.shared) if len(self.shared) == 1 else None


def _letters(node: ir.Node, place: int) -> _Equation | None:
    """The equation; None if it has an ellipsis, a diagonal, or no arrow."""
    found = _PLAIN.fullmatch(node.attributes.get_string("equation", "").replace(" ", ""))
    if found is None or len(node.inputs) != 2:
        return None
    left, right, result = found.groups()
    if any(len(set(term)) != len(term) for term in (left, right, result)):
        return None
    data, weight = (right, left) if place == 0 else (left, right)
    return _Equation(data, weight, result, place)


def _equation(node: ir.Node, view: View) -> _Equation | Refusal:
    constant = [view.why_not_constant(value, node, "operand") is None for value in node.inputs]
    if constant.count(True) != 1:
        return Refusal("computed-weights", f"no one operand of {label(node)} is a constant.")
    found = _letters(node, constant.index(True))
    if found is None:
        return Refusal("unsupported-form", f"the equation of {label(node)} is not a plain product.")
    held = node.inputs[found.place]
    if held is None or view.rank(held) != len(found.weight):
        return Refusal("unknown-shape", f"the rank of the constant of {label(node)} is not known.")
    return found


def _placed(
    node: ir.Node, letter: str, found: _Equation, affine: Affine, view: View
) -> Refusal | None:
    """Whether the constant has that letter, and as many channels there."""
    held = node.inputs[found.place]
    if letter not in found.weight or held is None:
        return Refusal("wrong-axis", f"the constant of {label(node)} lacks the batch-norm's axis.")
    size = (view.shape(held) or ())[found.weight.index(letter)]
    if size == affine.channels:
        return None
    return Refusal(
        "unknown-shape",
        f"{label(node)} has {size} channels where the batch-norm has {affine.channels}.",
    )


def _step(
    node: ir.Node, found: _Equation, edit: Absorb, view: View, *, in_its_place: bool
) -> Step | Refusal:
    """The step: the scale is always taken up, a shift behind only along the one axis of a bias."""
    if not edit.affine.shifts:
        return Step("the constant *= a", (edit,))
    if found.bias_axis is None:
        return Refusal(
            "unsupported-form", f"a shift through {label(node)} would be along several axes."
        )
    adds = 0 if view.bias_behind(node) is not None else 1
    if adds and not in_its_place:
        return Refusal("dearer", f"{label(node)} has no bias: a shift would be an Add behind it.")
    return Step("the constant *= a, then + b", (edit,), adds=adds)


def backward(node: ir.Node, affine: Affine, view: View) -> Step | Refusal:
    """a*(X W) + b = X (W*a) + b."""
    found = _equation(node, view)
    if isinstance(found, Refusal):
        return found
    refusal = _placed(node, found.result[affine.axis], found, affine, view)
    readers = view.readers(node.outputs[0])
    next_ = len(readers) == 1 and readers[0].op_type == "BatchNormalization"
    return refusal or _step(node, found, Absorb(node, affine, AFTER), view, in_its_place=next_)


def forward(node: ir.Node, index: int, affine: Affine, view: View) -> Step | Refusal:
    """(a*X + b) W = X (a*W) + b W."""
    found = _equation(node, view)
    if isinstance(found, Refusal):
        return found
    if index == found.place:
        return Refusal("not-linear", f"it is a parameter of {label(node)}, not its data.")
    refusal = _placed(node, found.data[affine.axis], found, affine, view)
    if refusal:
        return refusal
    if affine.shifts and not _sums_what_the_constant_has(node, found, view):
        return Refusal(
            "unsupported-form", f"{label(node)} sums over an axis that its constant lacks."
        )
    source = node.inputs[index]
    maker = None if source is None else view.producer(source)
    next_ = maker is not None and maker.op_type == "BatchNormalization"
    smaller = next_ and _no_larger(node, found, view)
    return _step(node, found, Absorb(node, affine, BEFORE), view, in_its_place=smaller)


def _sums_what_the_constant_has(node: ir.Node, found: _Equation, view: View) -> bool:
    """Whether all axes of the data that are summed over are axes of the constant, of equal size."""
    data, held = node.inputs[1 - found.place], node.inputs[found.place]
    sizes = None if data is None else view.shape(data)
    others = None if held is None else view.shape(held)
    if sizes is None or others is None:
        return False
    known = dict(zip(found.weight, others, strict=True))
    summed = [(s, size) for s, size in zip(found.data, sizes, strict=True) if s not in found.result]
    return all(isinstance(size, int) and known.get(letter) == size for letter, size in summed)


def _no_larger(node: ir.Node, found: _Equation, view: View) -> bool:
    """Whether the result has no more numbers than the data, apart from their common axes."""
    data, result = node.inputs[1 - found.place], node.outputs[0]
    shapes = None if data is None else view.shape(data), view.shape(result)
    sizes = []
    for letters, others, shape in zip(
        (found.data, found.result), (found.result, found.data), shapes, strict=True
    ):
        if shape is None:
            return False
        own = [n for letter, n in zip(letters, shape, strict=True) if letter not in others]
        known = [n for n in own if isinstance(n, int)]
        if len(known) < len(own):
            return False
        sizes.append(prod(known))
    return sizes[1] <= sizes[0]


def _after(constants: Constants, affine: Affine) -> None:
    """W *= a along the axis of that letter; b is added behind."""
    found = _of(constants)
    axis = found.weight.index(found.result[affine.axis])
    weight = constants[found.place]
    constants[found.place] = weight * along_axis(affine.scale, axis, weight.ndim)
    if constants.behind is not None or affine.shifts:
        earlier = 0.0 if constants.behind is None else constants.behind
        scale = affine.scale if affine.axis == found.bias_axis else 1.0
        constants.behind = scale * earlier + affine.shift
        constants.behind_axis = affine.axis


def _before(constants: Constants, affine: Affine) -> None:
    """The sum of b W over what the result lacks is added behind, then W *= a."""
    found = _of(constants)
    axis = found.weight.index(found.data[affine.axis])
    weight = constants[found.place]
    if affine.shifts and found.bias_axis is not None:
        product = weight * along_axis(affine.shift, axis, weight.ndim)
        lacking = tuple(i for i, letter in enumerate(found.weight) if letter not in found.result)
        earlier = 0.0 if constants.behind is None else constants.behind
        constants.behind = earlier + np.sum(product, axis=lacking)
        constants.behind_axis = found.bias_axis
    constants[found.place] = weight * along_axis(affine.scale, axis, weight.ndim)


def _of(constants: Constants) -> _Equation:
    found = _letters(constants.node, constants.constant_index())
    assert found is not None
    return found


AFTER = Update("after", _after, scaled=(0, 1), reads=("equation",))
BEFORE = replace(AFTER, side="before", apply=_before)

BACKWARD: dict[str, Rule] = {"Einsum": backward}
FORWARD: dict[str, ForwardRule] = {"Einsum": forward}
