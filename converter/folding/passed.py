"""What a map passed on its way, for reports: the op, the formula, and the map on each side."""

from __future__ import annotations

from dataclasses import dataclass

from converter.folding.affine import Affine


@dataclass(frozen=True, eq=False)
class Passed:
    """One op on the way of a map.

    Attributes:
        op: the label of the op ("Conv layer1.0.conv1").
        formula: what was done with the map there ("W[o] *= a[o], bias = a*bias + b").
        met: the map as it reached the op, if that is known.
        left: the maps that went on from there; none where the op absorbed it.
        way: "backward", "forward", or "in parallel".
    """

    op: str
    formula: str
    met: Affine | None = None
    left: tuple[Affine, ...] = ()
    way: str = "backward"

    def __str__(self) -> str:
        return f"{self.op}: {self.formula}"
