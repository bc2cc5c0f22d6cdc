"""The path of one batch-norm step by step, as plain data: what `--explain` shows.

Its numbers, each op that its map passed with the map on either side, and what absorbed it; or what
stopped it, in both directions, with the steps that succeeded before.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from converter.folding import Decision, Plan, Refusal, Route, names
from converter.folding.affine import Affine
from converter.folding.passed import Passed
from converter.graph.naming import label, module_name
from converter.report.neighbourhood import neighbourhood


def select(plan: Plan, patterns: Sequence[str]) -> list[Decision]:
    """The decisions whose names match a pattern, in the order of the nodes.

    Raises:
        UserError: a pattern matches nothing; the message offers the closest names.
    """
    names.check(patterns, plan.names)
    return [d for d in plan.decisions if names.matches(d.site.name, patterns)]


class Explainer:
    """Explains the decisions of a plan, with the graph as it was before the fold."""

    def __init__(self, original: ir.Model, plan: Plan) -> None:
        self._before = {n.name: n for n in ir.traversal.RecursiveGraphIterator(original.graph)}
        self._plan = plan

    def explain(self, decision: Decision) -> dict[str, Any]:
        """`numbers` of the map, `attempts` to place it, what `absorbed` it, or what is around."""
        site, outcome = decision.site, decision.outcome
        return {
            "name": site.name,
            "kind": site.kind,
            "ops": [node.op_type for node in site.nodes],
            "channels": site.channels,
            "folded": decision.folded,
            "numbers": None if isinstance(site.affine, Refusal) else _numbers(site.affine),
            "warnings": [str(warning) for warning in site.warnings],
            "attempts": [_route(outcome)]
            if isinstance(outcome, Route)
            else list(self._attempts(outcome, tried=isinstance(site.affine, Affine))),
            "remainder": None if decision.remainder is None else _map(decision.remainder),
            "because": _because(outcome),
            "absorbed": [self._absorbed(node) for node in self._takers(decision)],
            "neighbourhood": self._around(decision),
        }

    def _label(self, node: ir.Node) -> str:
        """The label in the plan: a folded graph has lost the names that the exporter noted."""
        return label(self._before.get(node.name, node))

    def _around(self, decision: Decision) -> dict[str, Any] | None:
        if not isinstance(decision.outcome, Refusal):
            return None
        back, on = decision.outcome, decision.outcome.behind
        return neighbourhood(
            decision.site.nodes,
            [stop.node for stop in (back, on) if stop is not None and stop.node is not None],
            self._name,
            at_input=back.code == "graph-input",
            at_output=on is not None and on.code == "graph-output",
        )

    def _name(self, node: ir.Node) -> str:
        return module_name(self._before.get(node.name, node))

    def _attempts(self, refusal: Refusal, *, tried: bool) -> Iterator[dict[str, Any]]:
        """The attempts backward and forward; or the one reason why neither was made."""
        tried = tried and refusal.code not in {"skipped", "overflow"}
        ways = (("backward", refusal), ("forward", refusal.behind))
        for way, stop in ways if tried else (("", refusal),):
            if stop is not None:
                yield {
                    "direction": way or None,
                    "succeeded": False,
                    "steps": _steps(stop.steps),
                    "stopped_at": None if stop.node is None else self._label(stop.node),
                    "code": stop.code,
                    "reason": stop.sentence,
                    "hint": stop.hint,
                }

    def _takers(self, decision: Decision) -> list[ir.Node]:
        """The ops whose constants changed for it, in order."""
        if not isinstance(decision.outcome, Route):
            return []
        nodes = [edit.node for edit in decision.outcome.edits]
        nodes += [
            merge.target
            for merge in self._plan.merges
            if not merge.gone.isdisjoint(decision.site.nodes)
        ]
        return list(dict.fromkeys(nodes))

    def _absorbed(self, node: ir.Node) -> dict[str, Any]:
        """The constants of an op before and after; a later step may have merged it as a branch."""
        then = [self._label(merge.target) for merge in self._plan.merges if node in merge.gone]
        return {
            "op": self._label(node),
            "constants": [] if then else list(self._constants(node)),
            "merged_into": then[0] if then else None,
        }

    def _constants(self, node: ir.Node) -> Iterator[dict[str, Any]]:
        old = self._before.get(node.name)
        was = [] if old is None else list(old.inputs)
        for index, now in enumerate(node.inputs):
            if now is None or now.const_value is None:
                continue
            before = was[index] if index < len(was) else None
            yield _constant(now, before)
        for total in (use.node for value in node.outputs for use in value.uses()):
            if total.op_type == "Add" and total.name not in self._before:
                yield from (_constant(v, None) for v in total.inputs if v and v.const_value)


def _constant(now: ir.Value, before: ir.Value | None) -> dict[str, Any]:
    assert now.const_value is not None
    was = None if before is None else before.const_value
    if was is None:
        change = "made"
    elif was is now.const_value:
        change = "unchanged"
    else:
        change = "changed"
    return {
        "name": now.name,
        "change": change,
        "before": None if was is None else list(was.shape.numpy()),
        "after": list(now.const_value.shape.numpy()),
    }


def _numbers(affine: Affine) -> dict[str, Any]:
    """How many scales have which sign (that of gamma), and the ranges of scale and shift."""
    return {
        "positive": int(np.count_nonzero(affine.scale > 0)),
        "negative": int(np.count_nonzero(affine.scale < 0)),
        "zero": int(np.count_nonzero(affine.scale == 0)),
        **_map(affine),
    }


def _map(affine: Affine) -> dict[str, Any]:
    return {
        "channels": affine.channels,
        "axis": affine.axis,
        "scale": _range(affine.scale) if affine.scales else None,
        "shift": _range(affine.shift) if affine.shifts else None,
    }


def _range(values: Any) -> list[float]:
    return [float(values.min()), float(values.max())] if values.size else []


def _steps(steps: Sequence[Passed]) -> list[dict[str, Any]]:
    return [
        {
            "op": step.op,
            "formula": step.formula,
            "way": step.way,
            "met": None if step.met is None else _map(step.met),
            "left": [_map(left) for left in step.left],
        }
        for step in steps
    ]


def _because(outcome: Route | Refusal) -> str | None:
    """Why the remainder stays."""
    found = outcome.because if isinstance(outcome, Route) else None
    return None if found is None else str(found)


def _route(route: Route) -> dict[str, Any]:
    return {
        "direction": route.direction,
        "succeeded": True,
        "steps": _steps(route.steps),
        "into": list(route.into),
    }
