"""Values that are the same but for the numbers around them.

A convolution with a padding reads a value that was padded with a number a channel (`padding.py`),
while one without reads the value itself. Both are linear over the wider one of the two.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from converter.certificate.arrays import Array
from converter.certificate.atoms import Atom

# What lies before and behind a value on each spatial axis.
Sides = tuple[tuple[int, ...], tuple[int, ...]]


def _unpadded(atom: Atom) -> tuple[Atom, Sides, Array | None]:
    """The value inside, what lies around it, and the numbers there; None where there is nothing."""
    assert atom.shape is not None
    nothing = (0,) * max(len(atom.shape) - 2, 0)
    if atom.kind != "pad":
        return atom, (nothing, nothing), None
    alive, numbers, *_ = atom.held
    begins, ends = atom.more["begins"], atom.more["ends"]
    # In a channel that is not alive the atom is no value with something around it.
    if any(begins[:2]) or any(ends[:2]) or not np.all(alive):
        return atom, (nothing, nothing), None
    return atom.more["base"], (begins[2:], ends[2:]), numbers


def inside_of(atom: Atom) -> Atom:
    """What was padded, or the atom itself."""
    return _unpadded(atom)[0]


def within(wide: Atom, narrow: Atom) -> Sides | None:
    """How much further `wide` reaches than `narrow`, which is a part of it; None if it is not."""
    if wide is narrow:
        nothing = (0,) * (len(wide.shape or (0, 0)) - 2)
        return nothing, nothing
    (one, outer, numbers), (other, inner, held) = _unpadded(wide), _unpadded(narrow)
    if one is not other or (held is not None and not _same(numbers, held)):
        return None
    begins, ends = (
        tuple(a - b for a, b in zip(*pair, strict=True)) for pair in zip(outer, inner, strict=True)
    )
    return (begins, ends) if min(*begins, *ends) >= 0 else None


def _same(one: Array | None, other: Array) -> bool:
    return one is not None and one.shape == other.shape and np.array_equal(one, other)


def widest(first: Atom, atoms: Iterable[Atom]) -> Atom:
    """Of those that `first` is a part of, the one that reaches furthest."""
    for atom in atoms:
        if within(atom, first) is not None:
            first = atom
    return first
