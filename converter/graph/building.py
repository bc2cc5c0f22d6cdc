"""Add constants to a model, under names that nothing else in it has."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt
import onnx_ir as ir

from converter.files.on_disk import Store, in_memory
from converter.graph.naming import unique


class Builder:
    """Makes constants for one model; nodes are made by `ir.tape.Tape().op` and `ir.node`.

    Args:
        model: its names are taken. While a builder is in use, nothing else may name values.
        store: keeps the numbers of constants.
    """

    def __init__(self, model: ir.Model, store: Store = in_memory) -> None:
        self._store = store
        self._taken = {
            value.name
            for graph in model.graphs()
            for value in (
                *graph.inputs,
                *graph.initializers.values(),
                *(value for node in graph for value in node.outputs),
            )
            if value.name
        }

    def name(self, wanted: str) -> str:
        """`wanted`, or `wanted_2`, `wanted_3`, .. if it is taken; the result is then taken too."""
        return unique(wanted, self._taken)

    def constant(
        self, graph: ir.Graph, name: str, values: npt.NDArray[Any], store: Store | None = None
    ) -> ir.Value:
        """A new initializer of a graph, of `values` in their type.

        Args:
            graph: of the model; nodes in it and in its bodies can read the constant.
            name: made unique in the model.
            values: stored without conversion.
            store: used instead of the builder's own.
        """
        name = self.name(name)
        tensor = (store or self._store)(values, name)
        return ir.tape.Tape(graph).initializer(tensor, name)
