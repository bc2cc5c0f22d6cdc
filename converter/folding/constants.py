"""The constants of one node while they are being changed: float64, written back once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import onnx_ir as ir

from converter.folding.affine import along_axis
from converter.graph.rounding import Float64
from converter.graph.values import numbers


class Rewrite(Protocol):
    """A replacement for a node, where more than its constants changes."""

    def write(
        self, node: ir.Node, initializer: Callable[[Float64], ir.Value], name: Callable[[str], str]
    ) -> None:
        """Rewrite `node`; `initializer` makes a constant, `name` makes a unique name."""


class Constants:
    """Float64 copies of a node's constant inputs and attributes, with the changes so far.

    Several affines may be folded into one node, one after the other; nothing is rounded
    before all of them are in. Copies are made on first use, so a node costs memory only
    while it is being folded.
    """

    def __init__(self, node: ir.Node) -> None:
        self.node = node
        self.changed: dict[int, Float64] = {}
        self.float_attributes: dict[str, float] = {}
        # A shift (C,) to be added behind the node along `behind_axis`, when its op has no bias.
        self.behind: Float64 | None = None
        self.behind_axis = -1
        self.rewrite: Rewrite | None = None

    def get(self, index: int) -> Float64 | None:
        """Input `index`, or None when the node has no such input."""
        if index in self.changed:
            return self.changed[index]
        value = self.node.inputs[index] if index < len(self.node.inputs) else None
        return None if value is None else numbers(value)

    def __getitem__(self, index: int) -> Float64:
        values = self.get(index)
        if values is None:
            raise KeyError(f"{self.node.op_type} has no input {index}")
        return values

    def __setitem__(self, index: int, values: Float64) -> None:
        self.changed[index] = values

    def add_from_behind(self, product: Constants) -> None:
        """For the Add of a constant behind `product`: take up the shift that has no bias there."""
        if product.behind is None:
            return
        index = self.constant_index()
        shift = along_axis(product.behind, product.behind_axis, self.output_rank())
        self[index] = self[index] + shift
        product.behind = None

    def constant_index(self) -> int:
        """Which input of a two-operand node is the constant one."""
        return next(
            index
            for index, value in enumerate(self.node.inputs)
            if value is not None and value.is_initializer() and not value.is_graph_input()
        )

    def output_rank(self) -> int:
        shape = self.node.outputs[0].shape
        if shape is None:
            raise ValueError(f"the rank of {self.node.name} is not known")
        return len(shape)

    def real(self, name: str, default: float) -> float:
        if name in self.float_attributes:
            return self.float_attributes[name]
        return self.node.attributes.get_float(name, default)

    def set_real(self, name: str, value: float) -> None:
        self.float_attributes[name] = value
