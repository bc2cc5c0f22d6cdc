"""What the numbers mean that a graph computes from sizes: the size of an axis, or a sum of such.

An axis has a size, the name of an input's axis that it is as long as, a name of its own where
nothing else is known of it, or a name that stands for a sum of products of those.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from converter.certificate import polynomials
from converter.certificate.forms import Known, Value
from converter.certificate.inferring import FEW
from converter.certificate.origins import Names
from converter.certificate.polynomials import Polynomial

Axis = int | str | None


class Quantities:
    """Of one graph at one choice of sizes.

    Args:
        names: of the numbers of both graphs.
    """

    def __init__(self, names: Names) -> None:
        self._names = names
        self._sizes: dict[str, int] = {}
        self._read: dict[int, Polynomial] = {}  # what the name of a number means
        self._unknown: set[str] = set()  # names of axes of which nothing else is known
        self._sums: dict[str, Polynomial] = {}  # names that stand for more than one axis

    def size(self, axis: Axis) -> int | None:
        """Of an axis, at the sizes that are tried."""
        return self._sizes.get(axis) if isinstance(axis, str) else axis

    def give(self, axis: str, size: int) -> None:
        """An axis of an input."""
        self._sizes[axis] = size

    def own(self, axis: str, size: int) -> str | None:
        """A name of its own for an axis of which nothing is known; None if that name is taken."""
        if axis in self._sizes:
            return None
        self._sizes[axis] = size
        self._unknown.add(axis)
        return axis

    def alone(self, axis: Axis) -> bool:
        """Whether nothing is known of it, or it is no single axis of an input."""
        return axis is None or axis in self._sums or axis in self._unknown

    def tells(self, axis: Axis) -> bool:
        """Whether it is known on what the size of an axis depends."""
        found = self.sum_of(axis)
        return found is not None and all(self._unknown.isdisjoint(names) for names in found)

    def read(self, name: int, axis: int | str) -> None:
        """That a number of this name is the size of the axis."""
        found = self.sum_of(axis)
        assert found is not None
        self._read[name] = found

    def sum_of(self, axis: Axis) -> Polynomial | None:
        if axis is None:
            return None
        if isinstance(axis, int):
            return polynomials.number(axis)
        return self._sums.get(axis, polynomials.named(axis))

    def product(self, axes: Sequence[Axis]) -> Polynomial | None:
        found: Polynomial | None = polynomials.number(1)
        for axis in axes:
            factor = self.sum_of(axis)
            if factor is None or found is None:
                return None
            found = polynomials.times(found, factor)
        return found

    def added(self, axes: Sequence[Axis]) -> Axis:
        """An axis that is as long as these together."""
        found: Polynomial | None = {}
        for axis in axes:
            term = self.sum_of(axis)
            if term is None or found is None:
                return None
            found = polynomials.plus(found, term)
        return self.axis(found)

    def axis(self, found: Polynomial | None) -> Axis:
        """An axis of that size."""
        if found is None:
            return None
        if not any(found):
            return found.get((), 0)
        if list(found.values()) == [1] and len(names := next(iter(found))) == 1:
            return str(names[0])
        made = " + ".join(
            " * ".join((str(count), *names)) for names, count in sorted(found.items())
        )
        if made in self._sizes and self._sums.get(made) != found:
            return None  # an input's axis is called that
        self._sums[made] = found
        self._sizes[made] = sum(
            count * prod(self._sizes[name] for name in names) for names, count in found.items()
        )
        return made

    def meaning(self, value: Value) -> list[Axis] | None:
        """Of the numbers of a constant that an op reads as sizes."""
        if not isinstance(value, Known) or value.size > FEW:
            return None
        numbers = value.array.reshape(-1).tolist()
        if value.sized is None:
            return [int(number) for number in numbers]
        names = value.sized.names.reshape(-1).tolist()
        if len(names) != len(numbers):  # they have one name together
            return None
        return [
            int(number)
            if self._names.constant(name)
            else self.axis(polynomials.replaced(self._names.sum_of(name), self._read.get))
            for name, number in zip(names, numbers, strict=True)
        ]
