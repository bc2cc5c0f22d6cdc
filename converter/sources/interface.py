"""The names of a graph's inputs, outputs and axes: what a user of the model sees of it."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

import onnx_ir as ir


class NameOutputsPass(ir.passes.InPlacePass):
    """Give the graph's outputs stable names: exporters name them after the last operator, which
    changes with every version.

    1. They get the names that are given, if there is one for each output and all are different.
    2. Else, or if an input or a constant has one of the names: "output", or output_0, output_1, ..
    3. An output that is also an input, an initializer or another output gets its own Identity:
       one value cannot have two names.
    4. A value inside that has one of the names gets another.

    Args:
        names: in the order of the outputs.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._names = names

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        graph = model.graph
        names = self._fitting(graph)
        before = [value.name for value in graph.outputs]
        seen: set[ir.Value] = set()
        for index, value in enumerate(graph.outputs):
            if value in seen or value.producer() is None:
                graph.outputs[index] = _copy_of(graph, value)  # (3)
            seen.add(graph.outputs[index])
        _make_room(graph, names, seen)
        _rename(graph.outputs, names)
        return ir.passes.PassResult(model, before != list(names))

    def _fitting(self, graph: ir.Graph) -> Sequence[str]:
        names, count = self._names, len(graph.outputs)
        taken = {value.name for value in (*graph.inputs, *graph.initializers.values())}
        if len(names) != count or len(set(names)) != count or taken & set(names):
            names = ["output"] if count == 1 else [f"output_{index}" for index in range(count)]
        while taken & set(names):
            names = [f"{name}_" for name in names]
        return names


class NameInputsPass(ir.passes.InPlacePass):
    """Give the graph's inputs these names.

    1. A value inside that has one of them gets another.
    2. Where a constant has the name, the input's name gets a `_` at its end.

    Args:
        names: as many as there are inputs, in their order, all different.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._names = names

    def requires(self, model: ir.Model) -> None:
        """One name for each input, all different.

        Raises:
            PreconditionError: they are not.
        """
        if not len(set(self._names)) == len(self._names) == len(model.graph.inputs):
            raise ir.passes.PreconditionError(
                f"{self._names} are not names for {len(model.graph.inputs)} inputs"
            )

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        graph = model.graph
        names = [f"{name}_" if name in graph.initializers else name for name in self._names]  # (2)
        before = [value.name for value in graph.inputs]
        _make_room(graph, self._names)
        _rename(graph.inputs, names)
        return ir.passes.PassResult(model, before != names)


class RenameAxisPass(ir.passes.InPlacePass):
    """Rename an axis that may vary, in every shape of the graph: "s40" becomes "batch".

    Names of axes compute nothing, so it is legal for every model that has no other axis called
    `new`. Products and sums of the axis are renamed too: "2*s40" becomes "2*batch".
    """

    def __init__(self, old: str, new: str) -> None:
        self._old, self._new = old, new

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        word, modified = re.compile(rf"\b{re.escape(self._old)}\b"), False
        values = [*model.graph.inputs]
        for node in model.graph.all_nodes():
            values += node.outputs
        for value in values:
            if value.shape is None:
                continue
            old = [dim if isinstance(dim, int) else dim.value for dim in value.shape]
            new = [word.sub(self._new, dim) if isinstance(dim, str) else dim for dim in old]
            if new != old:
                value.shape = ir.Shape(new)
                modified = True
        return ir.passes.PassResult(model, modified)


def _make_room(graph: ir.Graph, names: Sequence[str], but: Collection[ir.Value] = ()) -> None:
    """Rename results of nodes that have one of the names, except for `but`."""
    wanted = set(names)
    for node in graph.all_nodes():
        for value in node.outputs:
            if value.name in wanted and value not in but:
                value.name = f"{value.name}_inner"


def _rename(values: Sequence[ir.Value], names: Sequence[str]) -> None:
    """Rename in two steps: one value may hold the name that another is to get."""
    for index, value in enumerate(values):
        value.name = f"__renamed_{index}"
    for value, name in zip(values, names, strict=True):
        value.name = name


def _copy_of(graph: ir.Graph, value: ir.Value) -> ir.Value:
    copy = ir.tape.Tape(graph).op("Identity", [value])
    copy.type, copy.shape = value.type, value.shape
    return copy
