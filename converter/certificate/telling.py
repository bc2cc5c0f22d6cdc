"""Whether two choices of sizes tell what of a graph has other sizes.

All is compared at the sizes that are tried. A number that depends on sizes and is the same in both
runs (the length of what is left behind a stride of 128, a rounded quotient) would be taken for one
that stays, and a graph that has a constant there would be certified against one that has not. So
such sizes do not count: others are tried.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np
import onnx_ir as ir

from converter.certificate.arrays import Index, Mask
from converter.certificate.axes import Symbols
from converter.certificate.forms import Form, Known, Value
from converter.certificate.origins import Array, Names
from converter.certificate.verdict import Doubt

# Of each axis of a value its size, or None where it is fixed, or that of an input's axis.
Axes = tuple[int | None, ...]


@dataclass(frozen=True, eq=False)
class _Numbers:
    """A constant that was computed from sizes.

    Attributes:
        fixed: which of its numbers always stay.
        named: of each number what it is, and whether that may be another at most sizes; () where
            the numbers have no names of their own.
    """

    array: Array
    fixed: Mask
    named: tuple[tuple[Hashable, bool], ...]


@dataclass(eq=False)
class Told:
    """What depends on sizes in one run of one graph.

    Attributes:
        axes: of the values.
        numbers: of what an op with a computed input, or an output, reads: by the reader and place.
    """

    axes: dict[ir.Value, Axes] = field(default_factory=dict)
    numbers: dict[tuple[object, int], _Numbers] = field(default_factory=dict)

    def note(self, reader: object, place: int, known: Known, names: Names) -> None:
        """That a constant is read."""
        assert known.sized is not None
        array, held = known.array, known.sized.names
        fixed = np.full(array.shape, known.sized.plain)
        if not known.sized.plain and held.shape == array.shape:
            fixed = _constants(names, held)
        named: tuple[tuple[Hashable, bool], ...] = ()
        if held.shape == array.shape:
            each = held.reshape(-1).tolist()
            named = tuple((frozenset(names.sum_of(n).items()), names.bent(n)) for n in each)
        self.numbers[reader, place] = _Numbers(array, fixed, named)

    def close(self, values: dict[ir.Value, Value], symbols: Symbols) -> None:
        """All values of the run, at its end."""
        for value, held in values.items():
            grows = isinstance(held, Known) and held.sized is not None and not held.sized.counted
            if not grows and not (isinstance(held, Form) and held.shape != (-1,)):
                continue
            assert held is not None
            known = symbols.of(value, len(held.shape))
            self.axes[value] = tuple(
                None if symbols.tells(axis) else size
                for axis, size in zip(known, held.shape, strict=True)
            )


def _constants(names: Names, held: Index) -> Mask:
    found = [names.constant(name) for name in held.reshape(-1).tolist()]
    return np.array(found, np.bool_).reshape(held.shape)


def must_tell(runs: Sequence[Told]) -> None:
    """
    Raises:
        Doubt: what depends on sizes, as far as is known, was the same in all runs.
    """
    one, *others = runs
    for value, axes in one.axes.items():
        for axis, size in enumerate(axes):
            there = [run.axes.get(value, axes)[axis : axis + 1] for run in others]
            if size is not None and all(sizes == (size,) for sizes in there):
                raise Doubt(
                    f"axis {axis} of {value.name!r} has the size {size} at all sizes that were "
                    "tried, and may have others"
                )
    for key, numbers in one.numbers.items():
        again = [run.numbers[key] for run in others if key in run.numbers]
        pairs = combinations((numbers, *again), 2)
        if again and all(_alike(*pair) for pair in pairs):
            reader = key[0]
            name = next((v.name for v in reader.outputs), "") if isinstance(reader, ir.Node) else ""
            raise Doubt(
                f"what {name or 'an output'!r} reads is computed from sizes, is the same at all "
                "that were tried, and may be another"
            )


def must_not_mix(runs: Sequence[tuple[Told, Told]]) -> None:
    """
    Raises:
        Doubt: what one of the graphs reads is a smallest or largest number, or the like, and was
            in all runs what another number is that one of them reads.
    """
    found: dict[Hashable, dict[Hashable, bool]] = {}
    for graph in (0, 1):
        for key in runs[0][graph].numbers:
            held = [run[graph].numbers[key] for run in runs if key in run[graph].numbers]
            if len(held) < len(runs) or len({len(one.named) for one in held}) > 1:
                continue
            for place in range(len(held[0].named)):
                values = tuple(float(one.array.reshape(-1)[place]) for one in held)
                labels = tuple(one.named[place][0] for one in held)
                bent = any(one.named[place][1] for one in held)
                others = found.setdefault(values, {})
                others[labels] = others.get(labels, False) or bent
    for alike in found.values():
        if len(alike) > 1 and any(alike.values()):
            raise Doubt(
                "a smallest, largest or narrowed number of sizes is another one that is read at "
                "all sizes that were tried, and may differ from it at others"
            )


def _alike(one: _Numbers, other: _Numbers) -> bool:
    """Whether a number that may be another is the same in both, or all that both have are."""
    if one.array.ndim != other.array.ndim:
        return False
    grows = one.array.shape != other.array.shape
    both = tuple(
        slice(min(sizes)) for sizes in zip(one.array.shape, other.array.shape, strict=True)
    )
    same = one.array[both] == other.array[both]
    open_ = ~(one.fixed[both] & other.fixed[both])
    if not open_.any():
        return False
    return bool(same[open_].all() if grows else same[open_].any())
