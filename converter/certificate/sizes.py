"""Which sizes are tried where a graph leaves them open.

Twice, with other numbers for each name: an op that holds for one size only does not hold for the
other. Two sizes determine what is made of them by adding and by multiplying with numbers
(`evaluating.py` refuses the rest).

First all names have numbers of their own. Then some are taken as equal, as few as the first graph
needs: two names with the same numbers could stand for each other in the second graph.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import onnx_ir as ir

from converter.certificate.arrays import Shape
from converter.certificate.verdict import Doubt

Pair = tuple[int, int]


@dataclass(frozen=True)
class Pairs:
    """Sizes of the first and of the second run, a pair for each name; no two are the same.

    Attributes:
        first: of the first three names.
        step: between the last of them and what further names have.
    """

    first: tuple[Pair, Pair, Pair]
    step: int

    def of(self, name: int) -> Pair:
        last = len(self.first) - 1
        one, other = self.first[min(name, last)]
        more = max(name - last, 0) * self.step
        return one + more, other + more


# For the names of first axes, and of others (divisible, as pyramids need them; large enough for
# windows).
_BATCH = Pairs(((2, 3), (5, 7), (11, 13)), 4)
_OTHERS = (
    Pairs(((64, 96), (96, 160), (32, 64)), 64),
    Pairs(((224, 256), (256, 224), (160, 224)), 64),
    Pairs(((6, 10), (10, 14), (14, 18)), 4),
)
# What is tried last: a batch that is cut into fours, and sizes of sounds and of genomes.
_FOURS = Pairs(((4, 8), (8, 12), (12, 16)), 4)
_LONG = (
    Pairs(((576, 704), (704, 832), (832, 960)), 128),
    Pairs(((2048, 2304), (2304, 2560), (2560, 2816)), 256),
    Pairs(((12288, 12800), (12800, 13312), (13312, 13824)), 512),
)
_SOME = 4  # names of which some may be equal: there are 15 ways, and of five 52


def given(model: ir.Model) -> list[ir.Value]:
    """The inputs. Before version 4 of the format every constant stands among them, and is one."""
    inputs = list(model.graph.inputs)
    if model.ir_version < 4:
        inputs = [value for value in inputs if value.const_value is None]
    return inputs


def attempts(model: ir.Model) -> Iterator[tuple[dict[str, int], ...]]:
    """Choices of sizes, by the names of `named`; the first that a graph can be walked with counts.

    Raises:
        Doubt: an input has no known rank, or an axis a name that is not to be told from others.
    """
    must_be_names(model)
    first: list[str] = []
    others: list[str] = []
    for value in given(model):
        for axis, name in enumerate(named(value)):
            if isinstance(name, str) and name not in first and name not in others:
                (others if axis else first).append(name)
    if not first and not others:
        yield ({},)
        return
    usual = [(_BATCH, pairs) for pairs in (_OTHERS if others else _OTHERS[:1])]
    last = [(_BATCH, pairs) for pairs in (_LONG if others else ())]
    for one, other in _equal(len(first), len(others)):
        for batches, pairs in (*usual, (_FOURS, _OTHERS[0]), *last):
            yield tuple(
                {name: batches.of(i)[run] for name, i in zip(first, one, strict=True)}
                | {name: pairs.of(i)[run] for name, i in zip(others, other, strict=True)}
                for run in (0, 1)
            )


def _equal(first: int, others: int) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Which names are taken as equal, as the number that they have together: fewest first."""
    ways = product(_ways(first), _ways(others))
    return sorted(ways, key=lambda way: -len(set(way[0])) - len(set(way[1])))


def _ways(count: int) -> list[tuple[int, ...]]:
    if count > _SOME:
        return [tuple(range(count))]
    found: list[tuple[int, ...]] = [()]
    for _ in range(count):
        found = [(*way, n) for way in found for n in range(len(set(way)) + 1)]
    return found


def equal_names(sizes: dict[str, int]) -> tuple[int, ...]:
    """Which names have the same size: of each, the place of the first one that has it."""
    numbers = list(sizes.values())
    return tuple(numbers.index(number) for number in numbers)


def further(model: ir.Model, sizes: dict[str, int]) -> Iterator[dict[str, int]]:
    """What is tried as well: first axes of size 1, as most models are used, and others of odd size.

    What is cut off at 1 is not always what is cut off at 2, and a 1 broadcasts; the half of an even
    size is not rounded.
    """
    first = {named(value)[0] for value in given(model) if value.shape is not None and value.shape}
    for found in (
        {name: 1 if name in first else size for name, size in sizes.items()},
        {name: size if name in first else size + 1 for name, size in sizes.items()},
    ):
        if found != sizes:
            yield found


def named(value: ir.Value) -> list[int | str]:
    """The axes of an input: a size, or a name; an axis without one is named for its place.

    "?" is no name: PaddlePaddle's exporter writes it for every axis that is open. Nor is a negative
    number a size.
    """
    if value.shape is None:
        raise Doubt(f"the input {value.name!r} has no known number of axes")
    found: list[int | str] = []
    for axis, size in enumerate(value.shape):
        if isinstance(size, int) and size >= 0:
            found.append(size)
            continue
        name = None if isinstance(size, int) else size.value
        found.append(name if name and name != "?" else f"{value.name} axis {axis}")
    return found


def must_be_names(model: ir.Model) -> None:
    """
    Raises:
        Doubt: an axis has the name that one without a name is given.
    """
    sizes = [size for value in given(model) for size in value.shape or ()]
    told = {size.value for size in sizes if not isinstance(size, int)} - {None, "", "?"}
    made = {
        name
        for value in given(model)
        for name, size in zip(named(value), value.shape or (), strict=True)
        if isinstance(name, str) and (isinstance(size, int) or size.value != name)
    }
    for name in sorted(made & told):
        raise Doubt(f"an axis of an input is called {name!r}, as one without a name is called")


def shapes_at(model: ir.Model, sizes: dict[str, int]) -> dict[str, Shape]:
    return {
        value.name or "": tuple(n if isinstance(n, int) else sizes[n] for n in named(value))
        for value in given(model)
    }
