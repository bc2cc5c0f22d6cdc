"""The way of an affine forward: to everything that reads a value.

The rules (`moves/` and `ops/`) know the ops. Some ops let a map on one input pass only if the other
inputs carry it too (`moves/joins.py`). The search then waits until they all do: the map may have
spread to them on other ways.
"""

from __future__ import annotations

import onnx_ir as ir

from converter.folding import moves, ops
from converter.folding.affine import Affine
from converter.folding.backward import backward
from converter.folding.mode import Mode
from converter.folding.passed import Passed
from converter.folding.refusal import Refusal
from converter.folding.routes import MOST_STEPS, Route, adds_beyond, in_a_merge
from converter.folding.step import Step
from converter.folding.uniform import ask
from converter.folding.view import View
from converter.graph.naming import label


def forward(value: ir.Value, affine: Affine, view: View, mode: Mode) -> Route | Refusal:
    """Place `affine`, which acts on `value`, on every op that reads it."""
    search = _Search(view, mode)
    route = search.spread(value, affine)
    # An op that still waits was the first in the way.
    route = next((why for why in search.waits.values()), route)
    if isinstance(route, Route) and route.adds > 1:
        dearer = Refusal(
            "dearer", f"{len(route.into)} ops without a bias read it; each would need an Add."
        )
        return dearer.past(*route.steps)
    return route


class _Search:
    """A single search for a way."""

    def __init__(self, view: View, mode: Mode) -> None:
        self._view, self._mode = view, mode
        self._left = MOST_STEPS
        # The maps that have reached an op with several inputs, and why they are not enough yet.
        self._come: dict[ir.Node, dict[int, Affine]] = {}
        self.waits: dict[ir.Node, Refusal] = {}

    def spread(self, value: ir.Value, affine: Affine) -> Route | Refusal:
        view = self._view
        if view.is_graph_output(value):
            return Refusal("graph-output", f"its result {value.name!r} is an output of the model.")
        reads = view.reads(value)
        if not reads:
            return Refusal("not-linear", "nothing reads its result.")
        route = Route((), (), (), "forward")
        for node, index in reads:
            self._left -= 1
            if self._left < 0:
                return Refusal("dearer", f"its result spreads over more than {MOST_STEPS} paths.")
            step: Step | Refusal | None = self._pass(node, index, value, affine)
            others = self._level(step, node) if isinstance(step, Step) else step
            if isinstance(others, Route):
                route = route.joined(others)
            else:
                step = others
            if isinstance(step, Refusal):
                step = self._joined(node, index, affine, step.at(node).past(*route.steps))
            if step is None:
                continue
            found = step if isinstance(step, Refusal) else self._go_on(step, node, affine)
            if isinstance(found, Refusal):
                return found if step is found else found.past(*route.steps)
            if found.adds and node.graph is not value.graph and node.graph is not _graph(value):
                return adds_beyond(node).past(*route.steps)
            route = route.joined(found)
        return route

    def _level(self, step: Step, node: ir.Node) -> Route | Refusal:
        """Place what belongs on other inputs of the op, backward."""
        route = Route((), (), (), "forward")
        for index, inverse in step.back:
            value = node.inputs[index]
            assert value is not None
            found = backward(value, inverse, node, self._view, self._mode)
            if isinstance(found, Refusal):
                return found
            route = route.joined(found)
        return route

    def _joined(
        self, node: ir.Node, index: int, affine: Affine, why: Refusal
    ) -> Step | Refusal | None:
        """The step past an op whose inputs all carry a map; None while some do not yet."""
        rule = moves.JOINS.get(node.op_type) if node.domain == "" else None
        if rule is None or self._view.is_blocked(node):
            return why
        come = self._come.setdefault(node, {})
        if index in come or any(one.axis != affine.axis for one in come.values()):
            return why
        come[index] = affine
        if len(come) < len(node.inputs):
            self.waits.setdefault(node, why)
            return None
        step = rule(node, come, self._view)
        if isinstance(step, Step):
            self.waits.pop(node, None)
            return step
        return why

    def _go_on(self, step: Step, node: ir.Node, affine: Affine) -> Route | Refusal:
        """The edits of one step, and the way on from its results."""
        view = self._view
        onward_maps = tuple(onward for _, onward in step.onward)
        passed = Passed(label(node), step.formula, affine, onward_maps, "forward")
        into = () if step.onward else (label(node),)
        route = Route((passed,), into, step.edits, "forward", step.adds)
        last = step.beyond or node
        for output, onward in step.onward:
            result = last.outputs[output]
            idle = not onward.scales and not onward.shifts
            if idle or not (view.reads(result) or view.is_graph_output(result)):
                continue
            rest = self.spread(result, onward)
            if isinstance(rest, Refusal):
                return rest.past(*route.steps)
            route = route.joined(rest)
        return route

    def _pass(self, node: ir.Node, index: int, value: ir.Value, affine: Affine) -> Step | Refusal:
        """Apply the rule of `node` to a map on `value`, its input `index`."""
        view = self._view
        if view.is_blocked(node):
            return in_a_merge(node)
        rule = self._mode.forward(node)
        if rule is None:
            through = f"a scale and shift cannot be taken through {node.op_type}"
            reason = ops.WHY_NOT.get(node.op_type, through)
            return Refusal("not-linear", f"{label(node)} reads it; {reason}.")
        return ask(lambda map_: rule(node, index, map_, view), affine, view.shape(value))


def _graph(value: ir.Value) -> ir.Graph | ir.Function | None:
    producer = value.producer()
    return value.graph if producer is None else producer.graph
