"""Where one affine can go: backward to what computes a value, or forward to all that read it.

The rules (`moves.py`, `sinks.py` and their `forward_` mirrors) know the ops; here is what holds
for any op: who else sees the numbers of a value that will change, and which graph it is in.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass

import onnx_ir as ir

from converter.folding import forward_moves, forward_sinks, moves, sinks
from converter.folding.affine import Affine
from converter.folding.naming import label
from converter.folding.passed import Passed
from converter.folding.refusal import Refusal
from converter.folding.step import Absorb, Step
from converter.folding.uniform import ask
from converter.folding.view import View

# A map that spreads to more readers than this is left: the paths of a dense block multiply.
MOST_STEPS = 256


@dataclass(frozen=True, eq=False)
class Route:
    """The way of one affine: what it passes, what absorbs it, and the edits that do it.

    Attributes:
        steps: each op on the way, from the batch-norm on.
        into: the ops that absorb it ("Conv layer1.0.conv1").
        edits: in the order in which they apply.
        direction: "backward", "forward", "both ways", or "in parallel", as a branch of a sum.
        adds: how many nodes the edits add to the graph.
        remainder: the half of the map that stays where it was, as one node.
        because: why that half stays.
    """

    steps: tuple[Passed, ...]
    into: tuple[str, ...]
    edits: tuple[Absorb, ...]
    direction: str = "backward"
    adds: int = 0
    remainder: Affine | None = None
    because: Refusal | None = None

    @property
    def path(self) -> tuple[str, ...]:
        """A sentence for each op, from the batch-norm on."""
        return tuple(str(step) for step in self.steps)


def backward(
    value: ir.Value,
    affine: Affine,
    reader: ir.Node,
    view: View,
    takers: Container[ir.Node] = (),
) -> Route | Refusal:
    """Place `affine`, which acts on `value` as `reader` sees it, on what computes `value`.

    `takers`: the batch-norms that may take it up, because they are still there.
    """
    refusal = _seen_by_others(value, reader, view)
    if refusal:
        return refusal
    node = view.producer(value)
    if node is None:
        what = "constant" if value.is_initializer() else "graph's input"
        return Refusal(
            "graph-input",
            f"nothing stands before it: {label(reader)} reads the {what} {value.name!r}.",
        )
    if node.graph is not reader.graph:
        return Refusal("subgraph", f"{label(node)} lies outside the subgraph of {label(reader)}.")
    rule = None
    if view.is_blocked(node):
        return _in_a_merge(node)
    if node.domain == "" and (node in takers or node.op_type != "BatchNormalization"):
        rule = sinks.AFTER.get(node.op_type) or moves.BACKWARD.get(node.op_type)
    if rule is None:
        return Refusal(
            "not-linear",
            f"{label(node)} stands before it; a scale and shift cannot be taken through "
            f"{node.op_type}.",
            node=node,
        )
    step = ask(lambda map_: rule(node, map_, view), affine, view.shape(node.outputs[0]))
    if isinstance(step, Refusal):
        return step.at(node)
    onward_maps = tuple(onward for _, onward in step.onward)
    steps = [Passed(label(node), step.formula, affine, onward_maps)]
    into: tuple[str, ...] = () if step.onward else (label(node),)
    edits = list(step.edits)
    for index, onward in step.onward:
        source = node.inputs[index]
        if source is None:
            missing = Refusal("unsupported-form", f"{label(node)} lacks its input {index}.")
            return missing.past(*steps)
        if not onward.scales and not onward.shifts:
            into += (label(node),)
            continue
        rest = backward(source, onward, node, view, takers)
        if isinstance(rest, Refusal):
            return rest.past(*steps)
        steps += rest.steps
        into += rest.into
        edits += rest.edits
    if step.reservation:
        return step.reservation.at(node)
    return Route(tuple(steps), into, tuple(edits))


def forward(value: ir.Value, affine: Affine, view: View) -> Route | Refusal:
    """Place `affine`, which acts on `value`, on every op that reads it."""
    route = _spread(value, affine, view, [MOST_STEPS])
    if isinstance(route, Route) and route.adds > 1:
        dearer = Refusal(
            "dearer", f"{len(route.into)} ops without a bias read it; each would need an Add."
        )
        return dearer.past(*route.steps)
    return route


def _spread(value: ir.Value, affine: Affine, view: View, left: list[int]) -> Route | Refusal:
    if view.is_graph_output(value):
        return Refusal("graph-output", f"its result {value.name!r} is an output of the model.")
    reads = view.reads(value)
    if not reads:
        return Refusal("not-linear", "nothing reads its result.")
    route = Route((), (), (), "forward")
    for node, index in reads:
        left[0] -= 1
        if left[0] < 0:
            return Refusal("dearer", f"its result spreads over more than {MOST_STEPS} paths.")
        step = _pass(node, index, value, affine, view)
        if isinstance(step, Refusal):
            return step.at(node).past(*route.steps)
        onward_maps = tuple(onward for _, onward in step.onward)
        passed = Passed(label(node), step.formula, affine, onward_maps, "forward")
        route = _join(route, Route((passed,), (), step.edits, adds=step.adds))
        if not step.onward:
            route = _join(route, Route((), (label(node),), ()))
        for output, onward in step.onward:
            rest = _spread(node.outputs[output], onward, view, left)
            if isinstance(rest, Refusal):
                return rest.past(*route.steps)
            route = _join(route, rest)
    return route


def _pass(node: ir.Node, index: int, value: ir.Value, affine: Affine, view: View) -> Step | Refusal:
    """What the rule of `node` makes of a map on `value`, its input `index`."""
    if node.graph is not value.graph and node.graph is not _graph(value):
        return Refusal("subgraph", f"{label(node)} reads it from inside a subgraph.")
    if view.is_blocked(node):
        return _in_a_merge(node)
    rule = None
    if node.domain == "":
        rule = forward_sinks.BEFORE.get(node.op_type) or forward_moves.FORWARD.get(node.op_type)
    if rule is None:
        return Refusal(
            "not-linear",
            f"{label(node)} reads it; a scale and shift cannot be taken through {node.op_type}.",
        )
    return ask(lambda map_: rule(node, index, map_, view), affine, view.shape(value))


def _in_a_merge(node: ir.Node) -> Refusal:
    return Refusal("shared-value", f"{label(node)} goes into another op with its branch.")


def _graph(value: ir.Value) -> ir.Graph | ir.Function | None:
    producer = value.producer()
    return value.graph if producer is None else producer.graph


def _join(one: Route, other: Route) -> Route:
    return Route(
        one.steps + other.steps,
        one.into + other.into,
        one.edits + other.edits,
        one.direction,
        one.adds + other.adds,
    )


def _seen_by_others(value: ir.Value, reader: ir.Node, view: View) -> Refusal | None:
    """The numbers of `value` will change: nobody but `reader` may read them."""
    if view.is_graph_output(value):
        return Refusal(
            "graph-output",
            f"its input {value.name!r} is also an output of the model, which must not change.",
        )
    readers = view.readers(value)
    if len(readers) > 1:
        others = [node for node in readers if node is not reader]
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
