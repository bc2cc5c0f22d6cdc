"""Einsum of two values as the matrix product that it is.

    "bhqd,hkd->bhqk": the letters that both have and the result has too are a batch (h), those
    that both have and the result has not are added up (d), the others stay (b, q and k).

So it is the same as a MatMul between transposes, whatever its letters are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import prod

import onnx_ir as ir

from converter.certificate.arrays import Shape
from converter.certificate.context import Context, attributes
from converter.certificate.forms import Form, Known, Value, reshaped, transposed
from converter.certificate.views import rearranged

Matrices = Callable[[Context, Value, Value], Form | None]


@dataclass(frozen=True)
class _Letters:
    """Of both inputs and of the result."""

    inputs: tuple[str, str]
    result: str

    @property
    def batch(self) -> str:
        return "".join(c for c in self.result if c in self.inputs[0] and c in self.inputs[1])

    @property
    def summed(self) -> str:
        return "".join(c for c in self.inputs[0] if c not in self.result)

    def own(self, place: int) -> str:
        """The letters that one input has alone."""
        other = self.inputs[1 - place]
        return "".join(c for c in self.inputs[place] if c not in other)

    def fit(self) -> bool:
        """Whether it is a product: no letter twice in a value, none that one value sums alone."""
        parts = (*self.inputs, self.result)
        if any(len(set(part)) != len(part) for part in parts):
            return False
        return set(self.result) <= set("".join(self.inputs)) and all(
            c in self.inputs[0] and c in self.inputs[1]
            for c in "".join(self.inputs)
            if c not in self.result
        )


def _letters(equation: str, operands: int) -> _Letters | None:
    left, arrow, result = equation.replace(" ", "").partition("->")
    parts = left.split(",")
    if operands != 2 or len(parts) != 2 or not all(c.isalpha() for c in left + result if c != ","):
        return None
    if not arrow:
        result = "".join(sorted(c for c in set(left) - {","} if left.count(c) == 1))
    letters = _Letters((parts[0], parts[1]), result)
    return letters if letters.fit() else None


def einsum(ctx: Context, node: ir.Node, values: Sequence[Value], matrices: Matrices) -> Form | None:
    """None: it is more than one product of matrices."""
    letters = _letters(str(attributes(node, ctx.opset)["equation"]), len(values))
    if letters is None:
        return None
    x, y = values
    if not isinstance(x, Form) and not isinstance(y, Form):
        return None
    if isinstance(x, Known):
        # The constant goes to the right, as a weight stands there.
        x, y = y, x
        letters = replace(letters, inputs=letters.inputs[::-1])
    sizes: dict[str, int] = {}
    for value, named in zip((x, y), letters.inputs, strict=True):
        shape = _shape(value)
        if len(shape) != len(named):
            return None
        for letter, each in zip(named, shape, strict=True):
            if sizes.setdefault(letter, each) != each:
                return None
    batch, summed = letters.batch, letters.summed
    mine, others = letters.own(0), letters.own(1)
    left = _turned(ctx, x, letters.inputs[0], batch + mine + summed)
    right = _turned(ctx, y, letters.inputs[1], batch + summed + others)

    def size(named: str) -> int:
        return prod(sizes[letter] for letter in named)

    lead = tuple(sizes[letter] for letter in batch)
    left = _shaped(ctx, left, (*lead, size(mine), size(summed)))
    right = _shaped(ctx, right, (*lead, size(summed), size(others)))
    done = matrices(ctx, left, right)
    if done is None:
        return None
    wide = [sizes[letter] for letter in batch + mine + others]
    order = [(batch + mine + others).index(letter) for letter in letters.result]
    return rearranged(ctx, done, lambda a: a.reshape(wide).transpose(order))


def _shape(value: Value) -> Shape:
    assert value is not None
    return value.shape


def _turned(ctx: Context, value: Value, letters: str, wanted: str) -> Value:
    order = tuple(letters.index(letter) for letter in wanted)
    if isinstance(value, Form):
        return rearranged(ctx, value, lambda a: a.transpose(order))
    assert isinstance(value, Known)
    return transposed(value, order)


def _shaped(ctx: Context, value: Value, shape: Shape) -> Value:
    if isinstance(value, Form):
        return rearranged(ctx, value, lambda a: a.reshape(shape))
    assert isinstance(value, Known)
    return reshaped(value, shape)
