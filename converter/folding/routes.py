"""Where one affine can go: what `backward.py` and `forward.py` find."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from converter.folding.affine import Affine
from converter.folding.passed import Passed
from converter.folding.refusal import Refusal
from converter.folding.step import Absorb
from converter.graph.naming import label

# A map that spreads to more readers than this is kept: the paths of a dense block multiply.
MOST_STEPS = 256


@dataclass(frozen=True, eq=False)
class Route:
    """The way of one affine: what it passes, what absorbs it, and the necessary edits.

    Attributes:
        steps: each op on the way, from the batch-norm on.
        into: the ops that absorb it ("Conv layer1.0.conv1").
        edits: in the order in which they apply.
        direction: "backward", "forward", "both ways", or "in parallel", as a branch of a sum.
        adds: how many nodes the edits add to the graph.
        remainder: the half of the map that stays where it was, as one node.
        because: why that half stays.
    """

    steps: tuple[Passed, ...]
    into: tuple[str, ...]
    edits: tuple[Absorb, ...]
    direction: str = "backward"
    adds: int = 0
    remainder: Affine | None = None
    because: Refusal | None = None

    @property
    def path(self) -> tuple[str, ...]:
        """A sentence for each op, from the batch-norm on."""
        return tuple(str(step) for step in self.steps)

    def joined(self, other: Route) -> Route:
        """Both routes, one after the other."""
        return Route(
            self.steps + other.steps,
            self.into + other.into,
            self.edits + other.edits,
            self.direction,
            self.adds + other.adds,
        )


def in_a_merge(node: ir.Node) -> Refusal:
    return Refusal("shared-value", f"{label(node)} goes into another op with its branch.")


def adds_beyond(node: ir.Node) -> Refusal:
    """An Add on the other side may run more often than the batch-norm that it replaces."""
    return Refusal(
        "subgraph",
        f"{label(node)} lies on the other side of a subgraph's border, and what takes it up there "
        "has no bias: it would need an Add, which may run more often.",
        node=node,
    )
