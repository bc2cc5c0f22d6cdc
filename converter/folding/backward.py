"""The way of an affine backward: to what computes a value.

The rules (`moves/` and `ops/`) know the ops. Here is what holds for any op: which other nodes read
a value that will change, and what happens where several ways meet.

A value that several ops read may take up a map if all of them need the same one: with a padding
that joins slices of a value to it, y = Concat(x[-1:], x, x[:1]), every input of the Concat needs
the map, and so do all readers of x.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from converter.folding import moves
from converter.folding.affine import Affine
from converter.folding.mode import Mode
from converter.folding.passed import Passed
from converter.folding.refusal import Refusal
from converter.folding.routes import MOST_STEPS, Route, adds_beyond, in_a_merge
from converter.folding.step import Step
from converter.folding.uniform import ask
from converter.folding.view import View
from converter.graph.naming import label


def backward(
    value: ir.Value,
    affine: Affine,
    reader: ir.Node,
    view: View,
    mode: Mode,
) -> Route | Refusal:
    """Place `affine`, which acts on `value` as `reader` sees it, on what computes `value`."""
    search = _Search(view, mode)
    route = search.trace(value, affine, reader)
    if isinstance(route, Refusal) and search.parted:
        # Separate ways may meet again; this is tried only if there is no other.
        again = _Search(view, mode, meets=True).trace(value, affine, reader)
        route = again if isinstance(again, Route) else route
    if isinstance(route, Route) and route.adds > 1:
        dearer = Refusal(
            "dearer", f"{len(route.into)} ops without a bias make it; each would need an Add."
        )
        return dearer.past(*route.steps)
    return route


@dataclass
class _Meeting:
    """The readers of a value that have asked for a map so far, and why those are not enough yet."""

    affine: Affine
    why: Refusal
    come: Counter[ir.Node] = field(default_factory=Counter)


class _Search:
    """A single search for a way."""

    def __init__(self, view: View, mode: Mode, *, meets: bool = False) -> None:
        self._view, self._mode, self._meets = view, mode, meets
        self._left = MOST_STEPS
        # The ops with several inputs that are being passed, the innermost last.
        self._meetings: list[dict[ir.Value, _Meeting]] = []
        # Whether a value had other readers on the way back from such an op.
        self.parted = False

    def trace(self, value: ir.Value, affine: Affine, reader: ir.Node) -> Route | Refusal:
        self._left -= 1
        if self._left < 0:
            return Refusal("dearer", f"more than {MOST_STEPS} paths lead back from it.")
        refusal = self._seen_by_others(value, affine, reader)
        if refusal and refusal.code == "shared-value" and self._meetings:
            self.parted = True
            refusal = self._meet(value, affine, reader, refusal) if self._meets else refusal
            if refusal is None and value in self._meetings[-1]:
                return Route((), (), ())  # the other readers have not asked yet
        if refusal:
            return refusal
        node = self._view.producer(value)
        if node is None:
            what = "constant" if value.is_initializer() else "graph's input"
            return Refusal(
                "graph-input",
                f"nothing stands before it: {label(reader)} reads the {what} {value.name!r}.",
            )
        way: Step | Refusal | None = self._back(node, self._view.origin(value), affine)
        first: Refusal | None = None
        while isinstance(way, Step):
            found = self._follow(way, node, affine)
            if isinstance(found, Route) and found.adds and self._elsewhere(value, node):
                found = adds_beyond(node).past(*found.steps)
            if isinstance(found, Route):
                return found
            first, way = first or found, way.otherwise
        return first or (way.at(node) if way is not None else _no_rule(node))

    def _elsewhere(self, value: ir.Value, node: ir.Node) -> bool:
        return any(reader.graph is not node.graph for reader in self._view.readers(value))

    def _meet(
        self, value: ir.Value, affine: Affine, reader: ir.Node, why: Refusal
    ) -> Refusal | None:
        """Note that one of several readers needs `affine`; a reason if two need different ones."""
        meetings = self._meetings[-1]
        meeting = meetings.setdefault(value, _Meeting(affine, why))
        meeting.come[reader] += 1
        if not _same(meeting.affine, affine):
            return why
        expected = Counter(
            node
            for node, index in self._view.reads(value)
            if node in meeting.come or not self._notices_nothing(node, index, affine)
        )
        if meeting.come == expected:
            del meetings[value]
        return None

    def _back(self, node: ir.Node, value: ir.Value, affine: Affine) -> Step | Refusal:
        """Apply the rule of `node` to a map on `value`, one of its outputs."""
        view = self._view
        if view.is_blocked(node):
            return in_a_merge(node)
        shape = view.shape(value)
        if node.domain == "" and node.op_type in moves.PARTS:
            part, output = moves.PARTS[node.op_type], node.outputs.index(value)
            return ask(lambda map_: part(node, output, map_, view), affine, shape)
        rule = self._mode.backward(node)
        if rule is None:
            return _no_rule(node)
        return ask(lambda map_: rule(node, map_, view), affine, shape)

    def _follow(self, step: Step, node: ir.Node, affine: Affine) -> Route | Refusal:
        """The edits of one step, and of what is left to place after it."""
        if len(step.onward) < 2:
            return self._onward(step, node, affine)
        self._meetings.append({})
        found = self._onward(step, node, affine)
        missed = self._meetings.pop()
        return next((meeting.why for meeting in missed.values()), found)

    def _onward(self, step: Step, node: ir.Node, affine: Affine) -> Route | Refusal:
        onward_maps = tuple(onward for _, onward in step.onward)
        steps = [Passed(label(node), step.formula, affine, onward_maps)]
        into: tuple[str, ...] = () if step.onward else (label(node),)
        route = Route(tuple(steps), into, step.edits, adds=step.adds)
        last = step.beyond or node
        for index, onward in step.onward:
            source = last.inputs[index]
            if source is None:
                missing = Refusal("unsupported-form", f"{label(last)} lacks its input {index}.")
                return missing.past(*steps)
            if not onward.scales and not onward.shifts:
                if step.edits:
                    route = route.joined(Route((), (label(node),), ()))
                continue
            rest = self.trace(source, onward, last)
            if isinstance(rest, Refusal):
                return rest.past(*route.steps)
            route = route.joined(rest)
        return step.reservation.at(node) if step.reservation else route

    def _seen_by_others(self, value: ir.Value, affine: Affine, reader: ir.Node) -> Refusal | None:
        """The numbers of `value` will change: no node but `reader` may read them, except nodes that
        read only channels in which nothing changes."""
        view = self._view
        if view.is_graph_output(value):
            return Refusal(
                "graph-output",
                f"its input {value.name!r} is also an output of the model, which must not change.",
            )
        reads = view.reads(value)
        others = [
            node
            for node, index in reads
            if node is not reader and not self._notices_nothing(node, index, affine)
        ]
        twice = [node for node, _ in reads].count(reader) > 1
        if others or twice:
            who = label(others[0]) if others else f"{label(reader)} twice"
            more = f" and {len(others) - 1} more" if len(others) > 1 else ""
            source = view.producer(value)
            what = label(source) if source is not None else f"the input {value.name!r}"
            return Refusal(
                "shared-value",
                f"{who}{more} also read{'s' if not more else ''} the result of {what}.",
                node=others[0] if others else None,
            )
        return None

    def _notices_nothing(self, node: ir.Node, index: int, affine: Affine) -> bool:
        """Whether a reader picks only channels on which `affine` is the identity."""
        rule = self._mode.forward(node) if node.op_type in moves.SELECTORS else None
        if rule is None:
            return False
        step = rule(node, index, affine, self._view)
        return isinstance(step, Step) and not any(
            onward.scales or onward.shifts for _, onward in step.onward
        )


def _same(one: Affine, other: Affine) -> bool:
    return (
        one.axis == other.axis
        and np.array_equal(one.scale, other.scale)
        and np.array_equal(one.shift, other.shift)
    )


def _no_rule(node: ir.Node) -> Refusal:
    return Refusal(
        "not-linear",
        f"{label(node)} stands before it; a scale and shift cannot be taken through "
        f"{node.op_type}.",
        node=node,
    )
