"""Atoms: what an op makes of forms, each named once.

The first graph makes atoms. The second one must find them: by a key that is compared exactly (the
op, its attributes, the atoms that it reads, which of its results) and by numbers that are compared
up to their bounds. An atom that the second graph does not find it makes for itself, since two
values of it may add up to one of the first graph's; the first miss is kept, to be told.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from converter.certificate.arrays import Index, Shape
from converter.certificate.budget import Budget
from converter.certificate.origins import Names
from converter.certificate.verdict import Differs, Miss

# Compares the numbers of an atom with those of a new one: (held, new, exactly) -> what was found.
Compare = Callable[[Any, Any, bool], Any]


# A float64 model is compared in arithmetic that is as coarse as its own: so many more roundings.
DOUBLE = 64.0
_DOUBLE = 2.0**-53
_FLOAT = (2.0**-24, 2.0**-150)


@dataclass(eq=False)
class Atom:
    """What an op makes of forms.

    Attributes:
        id: a number of its own.
        kind: which op, in the checker's words.
        shape: of the value; None if it depends on the numbers.
        held: the numbers that tell it from atoms of the same key.
        second: whether the second graph made it.
        more: what rules know of it, by their names.
    """

    id: int
    kind: str
    shape: Shape | None
    held: Any
    second: bool
    more: dict[str, Any] = field(default_factory=dict)


class Space:
    """All atoms of both graphs, at one choice of sizes.

    Attributes:
        k: by how many roundings a number may be moved.
        free: whether sizes are open: then what holds at the sizes that are tried may not at others.
        second: whether the second graph is walked.
        coarsest: one rounding of the coarsest type of the first graph's constants, and half of the
            smallest number of that type; the second graph's are not allowed more.
        names: how what is computed from sizes was computed.
        magnitude: the largest of what was added up in a value of the first graph.
        depth: how many bodies of Loops and Scans are around.
        budget: how much memory the check may take.
    """

    def __init__(self, k: float, *, free: bool = True, budget: Budget | None = None) -> None:
        self.k = k
        self.budget = budget or Budget()
        self.free = free
        self.second = False
        self.coarsest = (0.0, 0.0)
        self.names = Names()
        self.magnitude = 0.0
        self.depth = 0
        self.misses: list[Miss] = []
        self.largest = 0.0
        self.here = ("", "")  # the value that is being looked at, and its op
        self.anchors: dict[tuple[int, ...], list[Any]] = {}  # forms and magnitudes, by their atoms
        self._table: dict[Hashable, list[Atom]] = {}
        self._count = 0
        self._counted: dict[int, Index] = {}

    @property
    def allowance(self) -> tuple[float, float]:
        """What a constant of the second graph may be off by: relative, and near zero."""
        unit, tiny = self.coarsest if self.coarsest[0] else _FLOAT
        return self.k * unit * (DOUBLE if unit == _DOUBLE else 1.0), self.k * tiny

    def counted(self, size: int) -> Index:
        """0, 1, .. up to `size`, not included; one array for all who ask, which is not written."""
        if size not in self._counted:
            self._counted[size] = np.arange(size, dtype=np.int32)
            self._counted[size].flags.writeable = False
        return self._counted[size]

    def fresh(self, kind: str, shape: Shape | None, held: Any = None) -> Atom:
        self._count += 1
        return Atom(self._count, kind, shape, held, self.second)

    def intern(
        self, key: Hashable, shape: Shape | None, held: Any, compare: Compare | None = None
    ) -> tuple[Atom, Any]:
        """The atom of this key and these numbers, and what the comparison gave; None if it is new.

        An atom of the graph that is being walked is only found by numbers that are the same.
        """
        candidates = self._table.setdefault(key, [])
        nearest: Differs | None = None
        for atom in candidates:
            exactly = atom.second == self.second
            if compare is None:
                return atom, None
            before = self.largest
            try:
                found = compare(atom.held, held, exactly)
            except Differs as why:
                self.largest = before
                nearest = nearest or why.alone()
                continue
            return atom, found
        kind = key[0] if isinstance(key, tuple) else key
        atom = self.fresh(str(kind), shape, held)
        candidates.append(atom)
        if self.second:
            self.misses.append(Miss(*self.here, nearest))
        return atom, None

    def moved(self, share: float) -> None:
        """Something was moved by this share of what is allowed."""
        self.largest = max(self.largest, share * self.k)
