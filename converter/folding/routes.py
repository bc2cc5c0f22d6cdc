"""Where one affine can go: backward to what computes a value, or forward to all that read it.

The rules (`moves/`, `sinks.py` and `forward_sinks.py`) know the ops; here is what holds
for any op: who else sees the numbers of a value that will change, and which graph it is in.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass

import onnx_ir as ir

from converter.folding import forward_sinks, moves, sinks
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
    route = _trace(value, affine, reader, view, takers, [MOST_STEPS])
    if isinstance(route, Route) and route.adds > 1:
        dearer = Refusal(
            "dearer", f"{len(route.into)} ops without a bias make it; each would need an Add."
        )
        return dearer.past(*route.steps)
    return route


def _trace(
    value: ir.Value,
    affine: Affine,
    reader: ir.Node,
    view: View,
    takers: Container[ir.Node],
    left: list[int],
) -> Route | Refusal:
    left[0] -= 1
    if left[0] < 0:
        return Refusal("dearer", f"more than {MOST_STEPS} paths lead back from it.")
    refusal = _seen_by_others(value, affine, reader, view)
    if refusal:
        return refusal
    node = view.producer(value)
    if node is None:
        what = "constant" if value.is_initializer() else "graph's input"
        return Refusal(
            "graph-input",
            f"nothing stands before it: {label(reader)} reads the {what} {value.name!r}.",
        )
    way: Step | Refusal | None = _back(node, view.origin(value), affine, view, takers)
    first: Refusal | None = None
    while isinstance(way, Step):
        found = _follow(way, node, affine, view, takers, left)
        if isinstance(found, Route) and found.adds and node.graph is not reader.graph:
            found = _adds_beyond(node).past(*found.steps)
        if isinstance(found, Route):
            return found
        first, way = first or found, way.otherwise
    return first or (way.at(node) if way is not None else _no_rule(node))


def _back(
    node: ir.Node, value: ir.Value, affine: Affine, view: View, takers: Container[ir.Node]
) -> Step | Refusal:
    """What the rule of `node` makes of a map on `value`, one of its outputs."""
    if view.is_blocked(node):
        return _in_a_merge(node)
    shape = view.shape(value)
    if node.domain == "" and node.op_type in moves.PARTS:
        part, output = moves.PARTS[node.op_type], node.outputs.index(value)
        return ask(lambda map_: part(node, output, map_, view), affine, shape)
    rule = None
    if node.domain == "" and (node in takers or node.op_type != "BatchNormalization"):
        rule = sinks.AFTER.get(node.op_type) or moves.BACKWARD.get(node.op_type)
    if rule is None:
        return _no_rule(node)
    return ask(lambda map_: rule(node, map_, view), affine, shape)


def _adds_beyond(node: ir.Node) -> Refusal:
    """An Add on the other side may run more often than the batch-norm that it replaces."""
    return Refusal(
        "subgraph",
        f"{label(node)} lies on the other side of a subgraph's border, and what takes it up there "
        "has no bias: it would need an Add, which may run more often.",
        node=node,
    )


def _no_rule(node: ir.Node) -> Refusal:
    return Refusal(
        "not-linear",
        f"{label(node)} stands before it; a scale and shift cannot be taken through "
        f"{node.op_type}.",
        node=node,
    )


def _follow(
    step: Step,
    node: ir.Node,
    affine: Affine,
    view: View,
    takers: Container[ir.Node],
    left: list[int],
) -> Route | Refusal:
    """The edits of one step, and all that is left to place from there on."""
    onward_maps = tuple(onward for _, onward in step.onward)
    steps = [Passed(label(node), step.formula, affine, onward_maps)]
    into: tuple[str, ...] = () if step.onward else (label(node),)
    edits, adds = list(step.edits), step.adds
    last = step.beyond or node
    for index, onward in step.onward:
        source = last.inputs[index]
        if source is None:
            missing = Refusal("unsupported-form", f"{label(last)} lacks its input {index}.")
            return missing.past(*steps)
        if not onward.scales and not onward.shifts:
            if step.edits:
                into += (label(node),)
            continue
        rest = _trace(source, onward, last, view, takers, left)
        if isinstance(rest, Refusal):
            return rest.past(*steps)
        steps += rest.steps
        into += rest.into
        edits += rest.edits
        adds += rest.adds
    if step.reservation:
        return step.reservation.at(node)
    return Route(tuple(steps), into, tuple(edits), adds=adds)


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
        found = _go_on(step, node, affine, view, left)
        if isinstance(found, Refusal):
            return found.past(*route.steps)
        if found.adds and node.graph is not value.graph and node.graph is not _graph(value):
            return _adds_beyond(node).past(*route.steps)
        route = _join(route, found)
    return route


def _go_on(
    step: Step, node: ir.Node, affine: Affine, view: View, left: list[int]
) -> Route | Refusal:
    """The edits of one step forward, and all that reads what comes out of it."""
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
        rest = _spread(result, onward, view, left)
        if isinstance(rest, Refusal):
            return rest.past(*route.steps)
        route = _join(route, rest)
    return route


def _pass(node: ir.Node, index: int, value: ir.Value, affine: Affine, view: View) -> Step | Refusal:
    """What the rule of `node` makes of a map on `value`, its input `index`."""
    if view.is_blocked(node):
        return _in_a_merge(node)
    rule = None
    if node.domain == "":
        rule = forward_sinks.BEFORE.get(node.op_type) or moves.FORWARD.get(node.op_type)
    if rule is None:
        through = f"a scale and shift cannot be taken through {node.op_type}"
        reason = forward_sinks.WHY_NOT.get(node.op_type, through)
        return Refusal("not-linear", f"{label(node)} reads it; {reason}.")
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


def _seen_by_others(value: ir.Value, affine: Affine, reader: ir.Node, view: View) -> Refusal | None:
    """The numbers of `value` will change: nobody but `reader` may read them, except for those
    who read only channels in which nothing changes."""
    if view.is_graph_output(value):
        return Refusal(
            "graph-output",
            f"its input {value.name!r} is also an output of the model, which must not change.",
        )
    reads = view.reads(value)
    others = [
        node
        for node, index in reads
        if node is not reader and not _notices_nothing(node, index, affine, view)
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


def _notices_nothing(node: ir.Node, index: int, affine: Affine, view: View) -> bool:
    """Whether a reader picks only channels in which `affine` is the identity."""
    if node.domain != "" or node.op_type not in moves.SELECTORS:
        return False
    step = moves.FORWARD[node.op_type](node, index, affine, view)
    return isinstance(step, Step) and not any(
        onward.scales or onward.shifts for _, onward in step.onward
    )
