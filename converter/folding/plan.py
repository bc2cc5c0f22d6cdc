"""Decide for every batch-norm where it goes, or why it stays. Nothing is changed here.

1. Backward, in the order of the nodes: a batch-norm that is folded is an identity for those
   behind it, so a chain of them ends in the same linear op.
2. In parallel: one on a branch of a sum goes when the branches are merged (`branches.py`).
3. Into a batch-norm in front of it that is still there, which then stands for both.
4. Forward, in reverse order, into all that read it.

The plan is data: the edits in the order in which they apply, and for each batch-norm a
sentence.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import onnx_ir as ir

from converter.folding import routes
from converter.folding.affine import Affine
from converter.folding.branches import Merge, find_merges
from converter.folding.naming import label
from converter.folding.passed import Passed
from converter.folding.refusal import Refusal
from converter.folding.routes import Route
from converter.folding.sites import Site
from converter.folding.view import View


@dataclass(frozen=True, eq=False)
class Decision:
    """What happens to one batch-norm: a `Route` if it is folded, a `Refusal` if it stays."""

    site: Site
    outcome: Route | Refusal

    @property
    def folded(self) -> bool:
        return isinstance(self.outcome, Route)


@dataclass(frozen=True, eq=False)
class Plan:
    """A decision for every batch-norm of the graph, in the order of the nodes, and the parallel
    branches that become one op.

    `routes` are the ways of those that are folded, in the order in which they apply.
    """

    decisions: tuple[Decision, ...]
    merges: tuple[Merge, ...] = ()
    routes: tuple[Route, ...] = ()

    @property
    def folded(self) -> tuple[Decision, ...]:
        return tuple(decision for decision in self.decisions if decision.folded)

    @property
    def kept(self) -> tuple[Decision, ...]:
        return tuple(decision for decision in self.decisions if not decision.folded)

    def followed_by(self, later: Plan) -> Plan:
        """This plan and then `later`, made for what this one left, as one report."""
        decided = {decision.site.node: decision for decision in later.decisions}
        return Plan(
            tuple(decided.get(decision.site.node, decision) for decision in self.decisions),
            self.merges + later.merges,
            self.routes + later.routes,
        )


def make_plan(
    model: ir.Model,
    sites: Sequence[Site],
    leave: Mapping[str, Refusal] | None = None,
    apart: Container[str | None] = (),
) -> Plan:
    """Decide for all `sites` of a model.

    Args:
        model: the graph that the sites were found in.
        sites: its batch-norms.
        leave: batch-norms to keep in any case, by name, each with its reason.
        apart: convolutions, by the name of their result, that are not to take up branches.
    """
    planner = _Planner(sites, leave or {})
    planner.go(_backward, sites)
    merges = tuple(
        merge
        for graph in (model.graph, *model.graph.subgraphs())
        for merge in find_merges(graph, planner.waiting(), planner.view)
        if merge.target.outputs[0].name not in apart
    )
    planner.branches(merges)
    planner.go(partial(_backward, takers=planner.staying(sites)), sites)
    planner.go(_forward, tuple(reversed(sites)))
    decisions = tuple(Decision(site, planner.outcomes[site.node]) for site in sites)
    return Plan(decisions, merges, tuple(planner.routes))


class _Planner:
    """The decisions so far, and the graph as they will leave it."""

    def __init__(self, sites: Sequence[Site], leave: Mapping[str, Refusal]) -> None:
        self.view = View()
        self.routes: list[Route] = []
        self.outcomes: dict[ir.Node, Route | Refusal] = {}
        self._left = frozenset(leave)
        self._open: dict[ir.Node, Site] = {}
        for site in sites:
            if site.name in leave:
                self.outcomes[site.node] = leave[site.name]
            elif isinstance(site.affine, Refusal):
                self.outcomes[site.node] = site.affine
            else:
                self._open[site.node] = site

    def waiting(self) -> Mapping[ir.Node, Site]:
        """The batch-norms that are still in the graph and may be folded."""
        return self._open

    def staying(self, sites: Sequence[Site]) -> Container[ir.Node]:
        """The batch-norms that are not folded, also those that have no fixed map themselves."""
        return {
            site.node
            for site in sites
            if not isinstance(self.outcomes.get(site.node), Route) and site.name not in self._left
        }

    def go(self, way: Callable[[Site, View], Route | Refusal], sites: Sequence[Site]) -> None:
        """Try one way for each that is waiting."""
        for node in [site.node for site in sites]:
            if node not in self._open:
                continue
            outcome = way(self._open[node], self.view)
            if isinstance(outcome, Route):
                self._settle(node, outcome)
                self.view.look_through(node)
            else:
                first = self.outcomes.get(node)
                if isinstance(first, Refusal) and way is _forward:
                    # Neither way is open: both reasons are told.
                    outcome = replace(first, behind=outcome)
                self.outcomes[node] = outcome

    def branches(self, merges: Sequence[Merge]) -> None:
        """Those on a merged branch are settled; they are no identities, their sum goes."""
        for merge in merges:
            for branch in merge.branches:
                if branch.node in self._open:
                    formula = "W[c, c] += a[c] at its centre, bias += b"
                    target = label(merge.target)
                    step = Passed(target, formula, branch.affine, way="in parallel")
                    self._settle(branch.node, Route((step,), (target,), (), "in parallel"))

    def _settle(self, node: ir.Node, route: Route) -> None:
        self.outcomes[node] = route
        self.routes.append(route)
        del self._open[node]
        for edit in route.edits:
            # A batch-norm that has taken up another one stands for both from now on.
            taker = self._open.get(edit.node)
            if taker is not None and isinstance(taker.affine, Affine):
                self._open[edit.node] = replace(taker, affine=taker.affine.then(edit.affine))


def _backward(site: Site, view: View, takers: Container[ir.Node] = ()) -> Route | Refusal:
    source = site.node.inputs[0]
    if source is None or isinstance(site.affine, Refusal):
        return Refusal("unsupported-form", "it has no input.")
    return routes.backward(source, site.affine, site.node, view, takers)


def _forward(site: Site, view: View) -> Route | Refusal:
    if isinstance(site.affine, Refusal):
        return site.affine
    return routes.forward(site.node.outputs[0], site.affine, view)
