"""Apply a plan: write new constants (copy-on-write, unique names) and remove the batch-norms.

The constants of every node are converted to float64, take up all affines in order, and are rounded
once, one node at a time, so the memory needed beyond the model is that of its largest node.
"""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from converter.files.on_disk import Store, in_memory
from converter.folding.affine import Affine
from converter.folding.branches import Merge, merged, rewire
from converter.folding.constants import Constants
from converter.folding.hazards import Hazard
from converter.folding.overflow import DoesNotFitError, FoldOverflowError, Overflow
from converter.folding.plan import Decision, Plan
from converter.folding.sites import Site
from converter.folding.step import Absorb
from converter.folding.view import View
from converter.folding.writer import Writer, graphs_of
from converter.graph.rewiring import bypass

__all__ = ["FoldOverflowError", "apply_plan"]

SUMS = frozenset({"Add", "Sub"})


def apply_plan(
    model: ir.Model, plan: Plan, store: Store = in_memory, *, again: bool = False
) -> list[Hazard]:
    """Carry out `plan` on the model that it was made for, in place.

    `again`: what rounding takes is kept for a later plan (`keep_rest`).

    Returns:
        What is suspicious about the folded weights.

    Raises:
        FoldOverflowError: weights became infinite; it names all of them. Discard the model then.
    """
    writer = _Writes(Writer(model, store, again=again), plan)
    by_node: dict[ir.Node, list[Absorb]] = {}
    for route in plan.routes:
        for edit in route.edits:
            by_node.setdefault(edit.node, []).append(edit)

    def folded(node: ir.Node) -> Constants:
        constants = Constants(node)
        for edit in by_node.get(node, ()):
            edit.apply(constants)
        return constants

    gone = {node for merge in plan.merges for node in merge.gone}
    targets = {merge.target for merge in plan.merges}
    removed = {node for decision in plan.applied for node in decision.site.nodes}
    data = {decision.site: decision.site.data for decision in plan.applied}
    view = View()
    for decision in plan.applied:
        if decision.remainder is None and decision.site.node not in gone:
            view.look_through(*decision.site.nodes, source=decision.site.source)
    biases: dict[ir.Node, Constants] = {}
    # Sums come last: a product in front of an Add may pass its shift on to it.
    for node in sorted(by_node, key=lambda node: node.op_type in SUMS):
        if node in gone or node in targets or node in removed:
            continue
        constants = biases.get(node) or folded(node)
        total = None if constants.behind is None else view.bias_behind(node)
        if total is not None:
            biases.setdefault(total, folded(total)).add_from_behind(constants)
            writer.gives(node, to=total)
        if node not in biases:
            writer.write(constants)
    for constants in biases.values():
        writer.write(constants)
    for merge in plan.merges:
        writer.write_merged(merge, merged(merge, folded))
    for decision in plan.applied:
        if decision.site.node not in gone:
            _remove(decision, data[decision.site], writer)
    rewire(plan.merges)
    for decision in plan.applied:
        _drop_rest(decision.site)
    for graph in graphs_of(model):
        _drop_unused(graph)
    if writer.overflows:
        raise FoldOverflowError(writer.overflows)
    return writer.hazards


class _Writes:
    """A writer that goes on after a constant does not fit, and notes whose maps went into it."""

    def __init__(self, writer: Writer, plan: Plan) -> None:
        self._writer, self._plan = writer, plan
        self._causes: dict[ir.Node, list[Decision]] = {}
        # Writing may change names.
        self._names = {merge.target: merge.target.outputs[0].name for merge in plan.merges}
        of = {decision.outcome: decision for decision in plan.applied}
        for route in plan.routes:
            for edit in route.edits:
                self._causes.setdefault(edit.node, []).append(of[route])
        self.overflows: list[Overflow] = []

    @property
    def hazards(self) -> list[Hazard]:
        return self._writer.hazards

    def gives(self, node: ir.Node, to: ir.Node) -> None:
        """The Add `to` takes up the shift of the product in front of it."""
        self._causes.setdefault(to, []).extend(self._causes.get(node, ()))

    def write(self, constants: Constants) -> None:
        try:
            self._writer.write(constants)
        except DoesNotFitError as error:
            self._note(error, self._causes[constants.node])

    def write_merged(self, merge: Merge, constants: Constants) -> None:
        try:
            self._writer.write(constants)
        except DoesNotFitError as error:
            self._note(error, (), self._names[merge.target])

    def become(self, decision: Decision, source: ir.Value, half: Affine) -> None:
        try:
            self._writer.become(decision.site.nodes, source, half)
        except DoesNotFitError as error:
            self._note(error, (decision,))

    def _note(
        self, error: DoesNotFitError, causes: Sequence[Decision], merge: str | None = None
    ) -> None:
        self.overflows.append(Overflow(str(error), error.dtype, tuple(causes), merge))


def _remove(decision: Decision, data: tuple[int, ...], writer: _Writes) -> None:
    """Remove its nodes; where half of the map stays, the last of them becomes that half.

    `data`: which input of each node is its data; that may now come from an Add behind a product.
    """
    site = decision.site
    if decision.remainder is not None:
        source = site.nodes[0].inputs[data[0]]
        assert source is not None
        writer.become(decision, source, decision.remainder)
        return
    for node, index in zip(site.nodes, data, strict=True):
        source = node.inputs[index]
        assert source is not None
        bypass(node, source)


def _drop_rest(site: Site) -> None:
    """Remove what is left of a chain whose last node was removed by a merge."""
    for node in reversed(site.nodes):
        if node.graph is not None and not any(
            value.uses() or value.is_graph_output() for value in node.outputs
        ):
            node.graph.remove(node, safe=True)


def _drop_unused(graph: ir.Graph) -> None:
    for name, value in list(graph.initializers.items()):
        if not value.uses() and not value.is_graph_input() and not value.is_graph_output():
            del graph.initializers[name]
