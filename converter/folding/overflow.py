"""Folded weights that do not fit into their type, and what is given up because of them.

Folding is tried in rounds, each on a new copy of the graph. A round succeeds, or ends with
overflows that name their causes: decisions that were applied, or a merge. One cause of each is
given up permanently, so the next round differs:

* A round does not fold a batch-norm that was given up (the planner refuses it by name), and does
  not make a merge that was given up (it is not found again). So the causes of a round are new, and
  each round gives up more.
* There are only as many names as the graph has nodes, so the rounds end. Because a large graph may
  have many, everything is given up after `MOST_ROUNDS`, and then nothing can overflow.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass, field

import onnx_ir as ir

from converter.folding.branches import Merge
from converter.folding.growth import Barred
from converter.folding.plan import Decision
from converter.folding.refusal import Refusal
from converter.graph.naming import label

MOST_ROUNDS = 64

_HINT = "Convert the model to float32, or fold before converting."


class DoesNotFitError(Exception):
    """A constant of `node` is too large for `dtype`."""

    def __init__(self, node: ir.Node, dtype: str) -> None:
        super().__init__(f"the folded weights of {label(node)} do not fit into {dtype}")
        self.node = node
        self.dtype = dtype


@dataclass(frozen=True, eq=False)
class Overflow:
    """Weights that do not fit.

    Attributes:
        sentence: says which weights.
        dtype: the type that is too small.
        decisions: the batch-norms that were folded into them, in that order.
        merge: the name of the result of the op that was to take up branches, for a merge.
    """

    sentence: str
    dtype: str
    decisions: tuple[Decision, ...]
    merge: str | None = None


class FoldOverflowError(Exception):
    """Folded weights exceed their type; the model is half edited.

    `overflows`: at least one, and each has a decision or a merge.
    """

    def __init__(self, overflows: Sequence[Overflow]) -> None:
        super().__init__("; ".join(overflow.sentence for overflow in overflows))
        self.overflows = tuple(overflows)


class _Everything(Container[object]):
    def __contains__(self, _: object) -> bool:
        return True


@dataclass
class GivenUp:
    """What the rounds so far have decided not to do.

    Attributes:
        sites: batch-norms, by name, with the reason.
        merges: ops that must not take up branches, by the name of their result.
        barred: constants that must not be changed for a batch-norm, with the reason.
    """

    sites: dict[str, Refusal] = field(default_factory=dict)
    merges: set[str] = field(default_factory=set)
    barred: Barred = field(default_factory=dict)
    _rounds: int = 0
    _plans: int = 0
    _all: bool = False

    @property
    def apart(self) -> Container[object]:
        """The merges that must not be made."""
        return _Everything() if self._all else self.merges

    def too_dear(self, barred: Barred, merges: Iterable[Merge]) -> None:
        """Give up what is not worth its bytes. What is barred was not barred before, so there are
        at most as many new plans as pairs of a constant and a batch-norm; after `MOST_ROUNDS`,
        at most as many as constants."""
        self._plans += 1
        self.merges.update(merge.target.outputs[0].name or "" for merge in merges)
        for (constant, site), why in barred.items():
            self.barred[constant, site if self._plans < MOST_ROUNDS else None] = why

    def because_of(self, overflows: Iterable[Overflow], names: Iterable[str]) -> None:
        """Give up the cause of each overflow: the merge, otherwise the last map, since those before
        it may fit without it. `names`: those of all batch-norms of the graph."""
        self._rounds += 1
        for overflow in overflows:
            if overflow.merge is not None:
                self.merges.add(overflow.merge)
            elif overflow.decisions:
                name = overflow.decisions[-1].site.name
                self.sites[name] = Refusal("overflow", f"{overflow.sentence}.", _HINT)
        if self._rounds >= MOST_ROUNDS:
            self._all = True
            why = Refusal(
                "overflow",
                f"in {MOST_ROUNDS} attempts, each without what did not fit in the one before, some "
                "folded weights still did not fit into their type, so all is left as it was.",
                _HINT,
            )
            self.sites = {**dict.fromkeys(names, why), **self.sites}
