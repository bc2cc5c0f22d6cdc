"""A place in a graph that computes a fixed map y = a*x + b."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import onnx_ir as ir

from converter.folding.affine import Affine
from converter.folding.hazards import Hazard
from converter.folding.refusal import Refusal

Kind = Literal["batch-norm", "scale-shift"]


@dataclass(frozen=True, eq=False)
class Site:
    """A batch-norm, or another constant scale and shift.

    Attributes:
        name: its module's name, unique in the graph.
        nodes: the nodes to remove, in order; each reads the one before it.
        source: the value that the first node reads as data.
        channels: the number of channels, None if not known.
        affine: its map, or the refusal that says why it has no fixed map.
        warnings: what is suspicious about its numbers.
        kind: "scale-shift" for a constant Mul, LayerScale, input normalisation, ...
        uniform: it has one number for all channels, so it may lie on any axis.
    """

    name: str
    nodes: tuple[ir.Node, ...]
    source: ir.Value | None
    channels: int | None
    affine: Affine | Refusal
    warnings: tuple[Hazard, ...] = ()
    kind: Kind = "batch-norm"
    uniform: bool = False

    @property
    def node(self) -> ir.Node:
        """The node that computes the result."""
        return self.nodes[-1]

    @property
    def result(self) -> ir.Value:
        return self.nodes[-1].outputs[0]

    @property
    def data(self) -> tuple[int, ...]:
        """For each node, which of its inputs is the data."""
        values = (self.source, *(node.outputs[0] for node in self.nodes))
        return tuple(
            node.inputs.index(value) for node, value in zip(self.nodes, values, strict=False)
        )
