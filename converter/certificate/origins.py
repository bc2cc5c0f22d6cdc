"""What a graph computes from sizes, as expressions: two sizes do not tell 1 from N / 2.

Every number that depends on sizes has a name: an axis of a value, or an op of named numbers. The
first graph gives the names. The second one may read any axis of a value that is the first one's,
move such numbers about and put constants beside them; what it computes of them, the first one must
compute, too.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from converter.certificate import polynomials
from converter.certificate.arrays import Index, bits
from converter.certificate.polynomials import Polynomial
from converter.certificate.verdict import Doubt

Array = npt.NDArray[Any]

# So many numbers have a name each; more than that have one together.
_MOST = 4096
# The first operand is moved about; the others say how.
_MOVING = frozenset(
    {"Identity", "Gather", "Slice", "Squeeze", "Unsqueeze", "Reshape", "Transpose", "Flatten"}
    | {"Split", "Expand", "Tile"}
)
_EACH = frozenset(
    {"Abs", "Add", "And", "Ceil", "Div", "Equal", "Floor", "Greater", "GreaterOrEqual", "Less"}
    | {"LessOrEqual", "Max", "Min", "Mod", "Mul", "Neg", "Not", "Or", "Pow", "Round", "Sqrt"}
    | {"Sub", "Where"}
)


_WIDE = 4  # bytes of a type that holds every size
# These give at most sizes what they are given, and at others something else.
_BENT = frozenset({"Clip", "Max", "Min", "Mod", "Where"})
# Whole numbers of such a type that are added up and multiplied.
_SUMS: dict[str, Callable[..., Polynomial | None]] = {
    "Add": polynomials.plus,
    "Sub": lambda one, other: polynomials.plus(one, other, -1),
    "Mul": polynomials.times,
    "Neg": lambda one: polynomials.plus({}, one, -1),
}

# What gives the same in the same place, whatever else there is.
_IN_PLACE = (
    _EACH
    | {"Cast", "CastLike", "Identity", "Gather", "Transpose", "Unsqueeze", "Trilu"}
    | {"Cos", "Exp", "Log", "Reciprocal", "Sigmoid", "Sin", "Tanh"}
)


@dataclass(frozen=True, eq=False)
class Sizes:
    """The names of a constant's numbers: of each in its place, or one of all.

    Attributes:
        counted: whether there are always as many of them.
        plain: whether each is a constant in its place: how many there are depends on sizes.
    """

    names: Index
    counted: bool = True
    plain: bool = False


class Operand(NamedTuple):
    """A constant and the names of its numbers, if it has any."""

    array: Array
    sizes: Sizes | None


# Does an op on other arrays in the place of its operands.
Again = Callable[[Sequence[Any]], Sequence[Any]]


def _plain(node: ir.Node, operands: Sequence[Operand | None]) -> bool:
    """Whether an op gives constants, each in its place, as many as sizes say."""
    op = node.op_type
    fixed = [o is None or o.sizes is None for o in operands]
    plain = [ok or (o is not None and o.sizes is not None and o.sizes.plain)
             for ok, o in zip(fixed, operands, strict=True)]  # fmt: skip
    if op in {"ConstantOfShape", "EyeLike"}:
        return True
    if op == "Range":
        return fixed[0] and fixed[2]
    if op == "Expand":
        return plain[0]
    if op == "Einsum":
        letters, _, result = node.attributes.get_string("equation", "").partition("->")
        return all(plain) and set(letters) - {",", " "} == set(result) - {
            " "
        }  # nothing is added up
    if op == "Slice":
        starts, steps = (operands[i] if len(operands) > i else None for i in (1, 4))
        from_begin = starts is not None and np.all(starts.array >= 0)
        onward = steps is None or np.all(steps.array > 0)
        return plain[0] and bool(from_begin and onward) and fixed[1] and all(fixed[4:])
    if op == "Gather" and (operands[1] is None or np.any(operands[1].array < 0)):
        return False  # counted from the end
    return op in _IN_PLACE and all(plain)


@dataclass(eq=False)
class Names:
    """The names of both graphs.

    Attributes:
        strange: ops by which the second graph computes of sizes what the first one does not.
    """

    strange: list[str] = field(default_factory=list)
    _held: dict[Hashable, int] = field(default_factory=dict)
    _constants: set[int] = field(default_factory=set)
    _sums: dict[int, Polynomial] = field(default_factory=dict)
    _lengths: set[int] = field(default_factory=set)
    _bent: set[int] = field(default_factory=set)

    def name(self, op: str, expression: Hashable, *, allowed: bool) -> int:
        """`allowed`: whether the second graph may say it first."""
        key = op, expression
        if key not in self._held:
            self._held[key] = len(self._held)
            if op in {"axis", "Shape"}:
                self._lengths.add(self._held[key])
            if op == "constant":
                self._constants.add(self._held[key])
                if isinstance(expression, tuple) and expression[0] == "whole":
                    self._sums[self._held[key]] = polynomials.number(int(expression[1]))
            if not allowed:
                self.strange.append(op)
        return self._held[key]

    def constant(self, name: int) -> bool:
        """Whether it is the name of a constant."""
        return name in self._constants

    def sum_of(self, name: int) -> Polynomial:
        """The sum of products of names that it is, itself if it is none that is known."""
        return self._sums.get(name, polynomials.named(name))

    def bent(self, name: int) -> bool:
        """Whether it may be another number at most sizes, and the same one at some."""
        return name in self._bent

    def _bend(self, op: str, read: Iterable[int], made: Iterable[int]) -> None:
        if op in _BENT or not self._bent.isdisjoint(read):
            self._bent.update(made)

    def fixed(self, sizes: Sizes) -> bool:
        """Whether all of the numbers are constants, whatever the sizes are."""
        return sizes.counted and self._constants.issuperset(sizes.names.reshape(-1).tolist())

    def of_constant(self, array: Array) -> Index:
        if array.size > _MOST:
            return np.asarray(self.name("constant", bits(array), allowed=True))
        kind = "float" if array.dtype.kind == "f" else "whole"
        found = [
            self.name("constant", (kind, number), allowed=True)
            for number in array.reshape(-1).tolist()
        ]
        return np.array(found, np.int64).reshape(array.shape)

    def of_op(
        self, node: ir.Node, attributes: Hashable, operands: Sequence[Operand | None],
        results: Sequence[Array], again: Again, *, second: bool,
    ) -> list[Sizes]:  # fmt: skip
        """Of the results of an op that reads constants, at least one of which is named."""
        names = [None if o is None else self._names(o) for o in operands]
        op, first = node.op_type, operands[0]
        alone = all(o is None or o.sizes is None for o in operands[1:])
        single = any(
            n is not None and o is not None and n.shape != o.array.shape
            for n, o in zip(names, operands, strict=True)
        )
        counted = all(o is None or o.sizes is None or o.sizes.counted for o in operands)
        plain = _plain(node, operands)
        if first is not None and not single:
            if op == "Cast" or (op == "CastLike" and alone):
                cast = self._cast(names[0], first.array, results[0], second=second)
                return [replace(cast, counted=counted, plain=plain)]
            if op in _MOVING and alone:
                moved = again([names[0], *(None if o is None else o.array for o in operands[1:])])
                return [Sizes(np.asarray(array, np.int64), counted, plain) for array in moved]
            if op == "Concat":
                return [Sizes(np.asarray(again(names)[0], np.int64), counted)]
            if op in _EACH:
                kinds = tuple(o.array.dtype.kind for o in operands if o is not None)
                each = self._each(op, (attributes, kinds), names, results[0], second=second)
                return [replace(each, counted=counted, plain=plain)]
        read = tuple(None if n is None else bits(n) for n in names)
        whole = self.name(op, (attributes, read), allowed=not second)
        items = [self._items(whole, place, array) for place, array in enumerate(results)]
        numbers = {n for part in names if part is not None for n in part.reshape(-1).tolist()}
        for made in items:
            self._bend(op, numbers, made.names.reshape(-1).tolist())
        return [replace(sizes, counted=False, plain=plain) for sizes in items]

    def _names(self, operand: Operand) -> Index:
        if operand.sizes is None:
            return self.of_constant(operand.array)
        return operand.sizes.names

    def _cast(
        self, names: Index | None, before: Array, after: Array,
        *, second: bool,
    ) -> Sizes:  # fmt: skip
        """A whole number stays what it is, and what is of the type already; else it may be cut."""
        assert names is not None
        if before.dtype.kind != "f" and before.dtype == after.dtype:
            return Sizes(names)
        if before.dtype.kind == "i" and after.dtype.kind in "if" and (
            after.dtype.kind == "f" or after.dtype.itemsize >= min(before.dtype.itemsize, _WIDE)
        ):  # fmt: skip
            return Sizes(names)
        kind = str(after.dtype)
        found = [
            self.name("Cast", (kind, number), allowed=not second)
            for number in names.reshape(-1).tolist()
        ]
        narrow = before.dtype.kind in "iu" and after.dtype.kind in "iu"
        for made, number in zip(found, names.reshape(-1).tolist(), strict=True):
            self._bend("Mod" if narrow and not self.constant(number) else "Cast", [number], [made])
        return Sizes(np.array(found, np.int64).reshape(names.shape))

    def _each(
        self, op: str, more: Hashable, names: Sequence[Index | None], result: Array, *, second: bool
    ) -> Sizes:
        arrays = np.broadcast_arrays(*(n for n in names if n is not None))
        if result.size > _MOST:
            read = tuple(bits(n) for n in arrays)
            return Sizes(np.asarray(self.name(op, (more, read), allowed=not second)))
        stays = self.of_constant(result).reshape(-1).tolist()  # where all that it reads does
        follows = op in _SUMS and result.dtype.kind == "i" and result.dtype.itemsize >= _WIDE
        found: list[int] = []
        each = zip(*(a.reshape(-1).tolist() for a in arrays), strict=True)
        for constant, numbers in zip(stays, each, strict=True):
            made = _SUMS[op](*(self.sum_of(number) for number in numbers)) if follows else None
            # N - N is 0 whatever N is.
            fixed = made is not None and not any(made)
            if fixed or self._constants.issuperset(numbers) or self._never(op, numbers):
                found.append(constant)
            elif op == "Where" and (chosen := self._chosen(numbers)) is not None:
                found.append(chosen)
            else:
                found.append(self.name(op, (more, numbers), allowed=not second))
                self._bend(op, numbers, found[-1:])
                if made is not None:
                    self._sums[found[-1]] = made
        return Sizes(np.array(found, np.int64).reshape(arrays[0].shape))

    def _never(self, op: str, numbers: Sequence[int]) -> bool:
        """Whether a length is compared with what none has: exporters ask which are -1."""
        if op != "Equal":
            return False
        for one, other in (tuple(numbers), tuple(numbers)[::-1]):
            length = all(
                count >= 0 and self._lengths.issuperset(names)
                for names, count in self.sum_of(one).items()
            )
            number = self._sums.get(other, {}) if self.constant(other) else {}
            if length and number.get((), 0) < 0:
                return True
        return False

    def _chosen(self, numbers: Sequence[int]) -> int | None:
        """What a Where gives whose condition is a constant."""
        condition, yes, no = numbers
        if not self.constant(condition) or condition not in self._sums:
            return None
        return yes if any(self._sums[condition].values()) else no

    def _items(self, whole: int, place: int, array: Array) -> Sizes:
        if array.size > _MOST:
            return Sizes(np.asarray(self.name("all of", (whole, place), allowed=True)))
        found = [
            self.name("one of", (whole, place, number), allowed=True)
            for number in range(array.size)
        ]
        return Sizes(np.array(found, np.int64).reshape(array.shape))

    def check(self) -> None:
        """
        Raises:
            Doubt: the second graph computed of sizes what the first one does not.
        """
        if self.strange:
            raise Doubt(
                f"the graph computes with sizes by {self.strange[0]} what the original does not"
            )
