"""What a rule returns: where an affine goes when it is moved one op further.

What an op takes up is an edit, which says how the constants change (`ops/`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import onnx_ir as ir

from converter.folding.affine import Affine
from converter.folding.constants import Constants
from converter.folding.refusal import Refusal
from converter.folding.view import View


def _not_at_all(node: ir.Node, affine: Affine) -> int:
    del node, affine
    return 0


@dataclass(frozen=True)
class Update:
    """How the constants of an op change when they take up a map, and what that costs.

    Attributes:
        side: where the map acts: "after" the op, on its output, or "before" it, on its data.
        apply: changes float64 copies of the constants; nothing is rounded, no graph is touched.
        scaled: the inputs that a scale changes and a shift alone does not. Of these and of
            `shifted` only those that are constants count.
        shifted: the inputs that a shift changes, and a scale as well.
        reads: the attributes that the change depends on.
        grows: how many additional numbers the node gets.
    """

    side: Literal["after", "before"]
    apply: Callable[[Constants, Affine], None]
    scaled: tuple[int, ...] = ()
    shifted: tuple[int, ...] = ()
    reads: tuple[str, ...] = ()
    grows: Callable[[ir.Node, Affine], int] = _not_at_all


@dataclass(frozen=True)
class Absorb:
    """Edit: the constants of `node` take up `affine`, as `update` says."""

    node: ir.Node
    affine: Affine
    update: Update

    def apply(self, constants: Constants) -> None:
        """Change the float64 copies of the node's constants."""
        self.update.apply(constants, self.affine)


@dataclass(frozen=True)
class Step:
    """One op further: the edits made here, and what is left to place on which inputs.

    Nothing left in `onward` means that the affine is absorbed.

    Attributes:
        formula: what was done, for reports ("W[o] *= a[o], bias = a*bias + b").
        edits: in the order in which they apply.
        onward: (index, affine) still to be placed, on an input when going backward, on an
            output when going forward.
        reservation: a refusal that counts only if the rest of the way is free, so that the
            report names the more important obstacle first.
        adds: how many nodes this step adds to the graph.
        otherwise: another step with the same effect, to try when this one is not free.
        back: (index, affine) to be placed backward on other inputs, when going forward.
        beyond: the op whose inputs or outputs `onward` counts, if several were passed at once.
    """

    formula: str
    edits: tuple[Absorb, ...] = ()
    onward: tuple[tuple[int, Affine], ...] = ()
    reservation: Refusal | None = None
    adds: int = 0
    otherwise: Step | None = None
    back: tuple[tuple[int, Affine], ...] = ()
    beyond: ir.Node | None = None


def one_of(*steps: Step) -> Step:
    """The first of `steps` whose way is free."""
    first, *rest = steps
    return replace(first, otherwise=one_of(*rest)) if rest else first


# (node, affine on its output, view)
Rule = Callable[[ir.Node, Affine, View], Step | Refusal]
# (node, which of its inputs carries the affine, affine on that input, view)
ForwardRule = Callable[[ir.Node, int, Affine, View], Step | Refusal]
