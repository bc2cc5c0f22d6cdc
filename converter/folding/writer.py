"""Write changed constants back: in place where a constant has one reader, otherwise as a copy.

Numbers come in float64 and are rounded once, to the type that they had; names are unique in the
model. A number that does not fit into its type is an error and does not become infinite.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from converter.files.on_disk import Store
from converter.folding.affine import Affine, along_axis
from converter.folding.constants import Constants, Rewrite
from converter.folding.hazards import Hazard, of_rounding
from converter.folding.overflow import DoesNotFitError
from converter.graph.building import Builder
from converter.graph.naming import label
from converter.graph.rewiring import bypass
from converter.graph.rounding import Float64, round_once
from converter.graph.values import keep_rest, numbers


def graphs_of(model: ir.Model) -> Iterator[ir.Graph]:
    """The graph and its subgraphs."""
    yield model.graph
    yield from model.graph.subgraphs()


class Writer:
    """Writes constants back: in place where a constant has one reader, otherwise as a copy."""

    def __init__(self, model: ir.Model, store: Store, *, again: bool = False) -> None:
        """`again`: what is written may be changed by a later round; see `keep_rest`."""
        self._store, self._again = store, again
        self._new = Builder(model)
        self._copies: dict[ir.Value, list[ir.Value]] = {}
        self.hazards: list[Hazard] = []

    def write(self, constants: Constants) -> None:
        """Put the changed constants of one node into the graph.

        Raises:
            DoesNotFitError: one is too large for its type.
        """
        node = constants.node
        if constants.rewrite is not None:
            self._rewrite(node, constants.rewrite)
        for index, values in constants.changed.items():
            old = node.inputs[index] if index < len(node.inputs) else None
            like = old if old is not None else node.inputs[1]
            assert like is not None
            rounded = _rounded(values, like, node)
            if old is not None and index == 1:
                self._look_at(node, old, values, rounded)
            if old is None:
                self._attach(node, index, rounded)
            elif self._alone(old):
                _set(old, rounded, self._store)
            else:
                self._copy(node, index, old, rounded)
            self._keep(node.inputs[index], values)
        for name, value in constants.float_attributes.items():
            node.attributes.add(ir.AttrFloat32(name, value))
        if constants.behind is not None and np.any(constants.behind):
            self._add_behind(node, constants.behind, constants.behind_axis)

    def _rewrite(self, node: ir.Node, rewrite: Rewrite) -> None:
        dtype, graph = node.outputs[0].dtype, node.graph
        assert dtype is not None
        assert graph is not None
        type_ = dtype.numpy()

        def initializer(values: Float64) -> ir.Value:
            rounded = round_once(values, type_)
            lost = np.isinf(rounded) & np.isfinite(values)
            if lost.any() or np.isnan(rounded).any():
                raise DoesNotFitError(node, str(np.dtype(type_)))
            name = f"{node.name or node.outputs[0].name}_threshold"
            return self._new.constant(graph, name, rounded)

        rewrite.write(node, initializer, self._new.name)

    def _look_at(
        self, node: ir.Node, old: ir.Value, values: Float64, rounded: npt.NDArray[Any]
    ) -> None:
        found = of_rounding(lambda: _tensor(old), values, rounded, label(node))
        if found is not None:
            self.hazards.append(found)

    def become(self, nodes: Sequence[ir.Node], source: ir.Value, half: Affine) -> None:
        """Turn the last node of a chain into source + shift, or source * scale.

        Raises:
            DoesNotFitError: the new constant is too large for the type of the chain's constants.
        """
        node = nodes[-1]
        op, values = ("Mul", half.scale) if half.scales else ("Add", half.shift)
        result, graph = node.outputs[0], node.graph
        held = next(
            value
            for link in reversed(nodes)  # a Neg has no constant
            for value in link.inputs
            if value is not None and value.is_initializer()
        )
        assert graph is not None
        assert result.shape is not None
        name = f"{node.name or result.name}_{op.lower()}"
        shaped = along_axis(values, half.axis, len(result.shape))
        constant = self._new.constant(graph, name, _rounded(shaped, held, node))
        self._keep(constant, shaped)
        rest = ir.Node("", op, [source, constant], name=node.name)
        rest.metadata_props.update(node.metadata_props)
        graph.insert_before(node, rest)
        rest.outputs[0].shape, rest.outputs[0].type = result.shape, result.type
        rest.outputs[0].name = self._new.name(f"{result.name}_{op.lower()}")
        bypass(node, rest.outputs[0])

    def _keep(self, value: ir.Value | None, exact: Float64) -> None:
        if self._again and value is not None:
            keep_rest(value, exact, self._store)

    def _alone(self, old: ir.Value) -> bool:
        """Whether this constant has, and had, no other reader."""
        return len(old.uses()) == 1 and not old.is_graph_output() and old not in self._copies

    def _add_behind(self, node: ir.Node, shift: Float64, axis: int) -> None:
        """y -> y + shift along `axis`, by an Add right behind `node`."""
        value, weight = node.outputs[0], _weight(node)
        assert node.graph is not None
        assert value.shape is not None
        assert weight is not None
        rank = len(value.shape)
        if axis != rank - 1:
            shift = along_axis(shift, axis, rank)
        bias = self._bias(node, _rounded(shift, weight, node))
        self._keep(bias, shift)
        total = ir.Node("", "Add", [value, bias], name=f"{node.name or value.name}_bias")
        total.metadata_props.update(node.metadata_props)
        result = total.outputs[0]
        result.name = self._new.name(f"{value.name}_biased")
        result.shape, result.type = value.shape, value.type
        for use in tuple(value.uses()):
            if use.node is not total:
                use.node.replace_input_with(use.idx, result)
        for index, output in enumerate(node.graph.outputs):
            if output is value:
                node.graph.outputs[index] = result
                value.name, result.name = result.name, value.name
        node.graph.insert_after(node, total)

    def _copy(self, node: ir.Node, index: int, old: ir.Value, rounded: npt.NDArray[Any]) -> None:
        """A copy of `old`, whose other readers keep the original. Equal copies are made once, in
        the graph of `old`, where all of its readers can read them; none where nothing changes."""
        if np.array_equal(_tensor(old), rounded):
            return
        for copy in self._copies.setdefault(old, []):
            if np.array_equal(_tensor(copy), rounded):
                node.replace_input_with(index, copy)
                return
        assert isinstance(old.graph, ir.Graph)
        copy = self._new.constant(old.graph, f"{old.name}_folded", rounded, self._store)
        node.replace_input_with(index, copy)
        self._copies[old].append(copy)

    def _attach(self, node: ir.Node, index: int, values: npt.NDArray[Any]) -> None:
        value = self._bias(node, values)
        if index >= len(node.inputs):
            node.resize_inputs(index + 1)
        node.replace_input_with(index, value)

    def _bias(self, node: ir.Node, values: npt.NDArray[Any]) -> ir.Value:
        """A new bias, named after the weight of `node`."""
        weight = _weight(node)
        name = (weight.name if weight is not None else None) or node.name or "linear"
        assert isinstance(node.graph, ir.Graph)
        return self._new.constant(node.graph, _replace_suffix(name, "bias"), values)


def _weight(node: ir.Node) -> ir.Value | None:
    """The weight of a node: input 1, or the constant on the left of a product."""
    right, left = node.inputs[1], node.inputs[0]
    on_the_left = right is not None and right.const_value is None
    return left if on_the_left else right


def _replace_suffix(name: str, what: str) -> str:
    for suffix in ("weight", "kernel"):
        if name.endswith((f".{suffix}", f"/{suffix}")):
            return name[: -len(suffix)] + what
    return f"{name}_{what}"


def _rounded(values: Float64, like: ir.Value, node: ir.Node) -> npt.NDArray[Any]:
    """`values` in the type of `like`: finite numbers stay finite, and no number of a finite
    constant becomes infinite.

    Raises:
        DoesNotFitError: a number would become infinite.
    """
    assert like.const_value is not None
    dtype = like.const_value.dtype.numpy()
    rounded = round_once(values, dtype)
    infinite = ~np.isfinite(rounded)
    if infinite.any() and (np.isfinite(values[infinite]).any() or np.isfinite(numbers(like)).all()):
        raise DoesNotFitError(node, str(np.dtype(dtype)))
    return rounded


def _set(value: ir.Value, values: npt.NDArray[Any], store: Store) -> None:
    value.const_value = store(values, value.name)
    value.shape = ir.Shape(values.shape)


def _tensor(value: ir.Value) -> npt.NDArray[Any]:
    assert value.const_value is not None
    return np.asarray(value.const_value.numpy())
