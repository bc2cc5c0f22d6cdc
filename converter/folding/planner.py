"""Decide for every batch-norm where it is folded, or why it stays. Nothing is changed here.

1. Backward, in the order of the nodes: a batch-norm that is folded is an identity for those
   behind it, so a chain of them ends in the same linear op.
2. In parallel: one on a branch of a sum is folded when the branches are merged (`branches/`).
3. Into a batch-norm in front of it that is still there, which then represents both.
4. Forward, in reverse order, into everything that reads it.
5. Parted: the scale one way and the shift the other (`parting.py`).
6. Forward past sums whose other terms can be divided by the scale (`moves/leveling.py`), and
   into batch-norms behind it that stay.

The plan is data: the edits in the order in which they apply, and for each batch-norm a
sentence.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import replace

import onnx_ir as ir

from converter.folding.affine import Affine
from converter.folding.backward import backward
from converter.folding.branches import Merge, find_merges
from converter.folding.forward import forward
from converter.folding.growth import Barred, why_barred
from converter.folding.mode import Mode
from converter.folding.parting import parted
from converter.folding.passed import Passed
from converter.folding.plan import Decision, Plan
from converter.folding.refusal import Refusal
from converter.folding.routes import Route
from converter.folding.sites import Site
from converter.folding.view import View
from converter.graph.naming import label


def make_plan(
    model: ir.Model,
    sites: Sequence[Site],
    leave: Mapping[str, Refusal] | None = None,
    apart: Container[object] = (),
    barred: Barred | None = None,
    *,
    through_relu: bool = False,
) -> Plan:
    """Decide for all `sites` of a model.

    Args:
        model: the graph that the sites were found in.
        sites: its batch-norms.
        leave: batch-norms to keep in any case, by name, each with its reason.
        apart: convolutions, by the name of their result, that must not take up branches.
        barred: constants that must not be changed for a batch-norm (`growth.py`).
        through_relu: a Relu or Clip may become a maximum with one number per channel.
    """
    view = View(broadcasts=model.graph.opset_imports.get("", 8) >= 8)
    planner = _Planner(sites, leave or {}, barred or {}, view)
    planner.go(_backward, sites)
    merges = tuple(
        merge
        for graph in (model.graph, *model.graph.subgraphs())
        for merge in find_merges(graph, planner.waiting(), planner.view)
        if merge.target.outputs[0].name not in apart
    )
    planner.branches(merges)
    planner.go(_backward, sites, Mode(planner.staying(sites)))
    planner.go(_forward, tuple(reversed(sites)))
    planner.go(parted, sites)
    norms = [site for site in sites if site.kind == "batch-norm"]
    if through_relu:
        planner.bend(norms)
    planner.level(norms, through_relu=through_relu)
    if not through_relu:
        planner.advise(norms)
    decisions = tuple(Decision(site, planner.outcomes[site.node]) for site in sites)
    return Plan(decisions, merges, tuple(planner.routes))


_THROUGH_RELU = (
    "With --through-relu it folds: the Relu becomes a maximum with one number a channel, which "
    "some runtimes compute more slowly."
)


_Way = Callable[[Site, View, Mode], Route | Refusal]
_PLAIN, _THROUGH = Mode(), Mode(through_relu=True)


class _Planner:
    """The decisions so far, and the graph as it will be after them."""

    def __init__(
        self, sites: Sequence[Site], leave: Mapping[str, Refusal], barred: Barred, view: View
    ) -> None:
        self.view = view
        self._barred = barred
        self.routes: list[Route] = []
        self.outcomes: dict[ir.Node, Route | Refusal] = {}
        self._left = frozenset(leave)
        self._open: dict[ir.Node, Site] = {}
        self._last = {node: site.node for site in sites for node in site.nodes}
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

    def staying(self, sites: Sequence[Site]) -> frozenset[ir.Node]:
        """The batch-norms that are not folded, including those without a fixed map."""
        return frozenset(
            site.node
            for site in sites
            if not isinstance(self.outcomes.get(site.node), Route) and site.name not in self._left
        )

    def go(self, way: _Way, sites: Sequence[Site], mode: Mode = _PLAIN) -> None:
        """Try one way for each batch-norm that is waiting."""
        for node in [site.node for site in sites]:
            if node not in self._open:
                continue
            site = self._open[node]
            outcome = way(site, self.view, mode)
            if isinstance(outcome, Route):
                outcome = why_barred(outcome, site, self._barred) or outcome
            if isinstance(outcome, Route):
                self._settle(node, outcome)
                if outcome.remainder is None:
                    self.view.look_through(*site.nodes, source=site.source)
                else:  # half of it is still there: others may pass it in a later round
                    self.view.block(*site.nodes)
            else:
                first = self.outcomes.get(node)
                if isinstance(first, Refusal) and way is _forward:
                    # Neither way is open: both reasons are reported.
                    outcome = replace(first, behind=outcome)
                if way is not parted:
                    self.outcomes[node] = outcome

    def level(self, sites: Sequence[Site], *, through_relu: bool) -> None:
        """Try again for the batch-norms that are waiting: forward, past sums whose other terms can
        be divided by their scale."""
        told = dict(self.outcomes)
        takers = self.staying(sites).intersection(self._open)
        mode = Mode(takers, through_relu=through_relu, levels=True)
        self.go(_forward, tuple(reversed(sites)), mode)
        self.outcomes |= {node: told[node] for node in self._open if node in told}

    def bend(self, sites: Sequence[Site]) -> None:
        """Try again for the batch-norms that are waiting, with thresholds that may move."""
        told = dict(self.outcomes)
        self.go(_backward, sites, _THROUGH)
        self.go(_forward, tuple(reversed(sites)), _THROUGH)
        self.outcomes |= {node: told[node] for node in self._open if node in told}

    def advise(self, sites: Sequence[Site]) -> None:
        """Note on the batch-norms that are waiting if `bend` would be a way."""
        for site in sites:
            refusal = self.outcomes.get(site.node)
            if site.node not in self._open or not isinstance(refusal, Refusal) or refusal.hint:
                continue
            open_ = self._open[site.node]
            ways = (way(open_, self.view, _THROUGH) for way in (_backward, _forward))
            if any(
                isinstance(way, Route) and why_barred(way, site, self._barred) is None
                for way in ways
            ):
                self.outcomes[site.node] = replace(refusal, hint=_THROUGH_RELU)

    def branches(self, merges: Sequence[Merge]) -> None:
        """Settle the batch-norms on merged branches; they are not looked through."""
        for merge in merges:
            target = label(merge.target)
            for branch in merge.branches:
                if branch.site is not None and branch.site.node in self._open:
                    self.view.block(*branch.site.nodes)
                    step = Passed(target, branch.formula, branch.affine, way="in parallel")
                    self._settle(branch.site.node, Route((step,), (target,), (), "in parallel"))

    def _settle(self, node: ir.Node, route: Route) -> None:
        self.outcomes[node] = route
        self.routes.append(route)
        del self._open[node]
        for edit in route.edits:
            # A batch-norm that has taken up another one represents both from now on.
            taker = self._open.get(self._last.get(edit.node, edit.node))
            if taker is None:
                continue
            if len(taker.nodes) == 1 and edit.node.op_type == "BatchNormalization":
                assert isinstance(taker.affine, Affine)
                maps = (taker.affine, edit.affine)
                first, last = maps if edit.update.side == "after" else maps[::-1]
                self._open[edit.node] = replace(taker, affine=first.then(last))
            else:
                self._withdraw(taker)

    def _withdraw(self, site: Site) -> None:
        """A constant of a chain changes: its map is determined again in the next round."""
        self.outcomes[site.node] = Refusal("dearer", "its constants take up another map.")
        del self._open[site.node]


def _backward(site: Site, view: View, mode: Mode) -> Route | Refusal:
    if site.source is None or isinstance(site.affine, Refusal):
        return Refusal("unsupported-form", "it has no input.")
    return backward(site.source, site.affine, site.nodes[0], view, mode)


def _forward(site: Site, view: View, mode: Mode) -> Route | Refusal:
    if isinstance(site.affine, Refusal):
        return site.affine
    if site.uniform and not _starts(site.source):
        return Refusal(
            "dearer",
            "a lone factor may be part of an activation that runtimes replace by one op "
            "(Gelu, attention), so it is not moved on.",
        )
    mode = replace(mode, takers=mode.takers - {site.node})
    return forward(site.result, site.affine, view, mode)


def _starts(value: ir.Value | None) -> bool:
    """Whether `value` is an input of the graph, or one that was only cast or rearranged."""
    while value is not None and (node := value.producer()) is not None:
        if node.op_type not in {"Cast", "Transpose", "Reshape", "Unsqueeze", "Squeeze", "Identity"}:
            return False
        value = node.inputs[0]
    return value is not None
