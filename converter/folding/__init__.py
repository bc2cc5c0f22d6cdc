"""Fold frozen batch-norms into the weights around them.

`fold_graph` is the whole engine in one call: find the sites, make a plan, apply it to a copy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import onnx_ir as ir

from converter.files.on_disk import Store, in_memory
from converter.folding.fold import apply_plan
from converter.folding.growth import too_dear
from converter.folding.hazards import Hazard
from converter.folding.options import FoldOptions
from converter.folding.overflow import FoldOverflowError, GivenUp
from converter.folding.plan import Decision, Plan
from converter.folding.planner import make_plan
from converter.folding.refusal import Refusal
from converter.folding.routes import Route
from converter.folding.sites import Site, find_sites, note_untracked
from converter.graph.values import drop_rests

__all__ = [
    "Decision",
    "FoldOptions",
    "Folded",
    "Hazard",
    "Plan",
    "Refusal",
    "Route",
    "Site",
    "fold_graph",
    "note_untracked",
    "plan_graph",
]


Leave = dict[str, Refusal]


@dataclass(frozen=True, eq=False)
class Folded:
    """The folded copy of a graph, the plan that made it, and hazards of the folded weights."""

    model: ir.Model
    plan: Plan
    hazards: tuple[Hazard, ...] = ()


def plan_graph(model: ir.Model, options: FoldOptions = FoldOptions()) -> Plan:
    """Decide for every batch-norm of a normalized graph; the graph is not changed.

    Args:
        model: the graph, as `converter.evaluation.normalize` leaves it.
        options: which batch-norms are meant, and what may be done for them.
    """
    return fold_graph(model, options).plan


def fold_graph(
    model: ir.Model,
    options: FoldOptions = FoldOptions(),
    *,
    store: Store = in_memory,
) -> Folded:
    """Fold a copy of a normalized graph; tensors that do not change are shared with it.

    A fold whose weights would overflow their type is undone, and its batch-norm is kept with that
    reason; `overflow.py` shows that this terminates. The same holds for a fold that would copy more
    than it saves (`growth.py`), if there is no other way. What one round makes possible (a sum that
    has become one convolution, with a batch-norm behind it) is folded in the next; where a later
    round adds up weights that a former one has rounded, all is done again with what the rounding
    took, so that each number is rounded once. Arguments as for
    `plan_graph`; `store` keeps the new weights (default: in memory).
    """
    given_up, again = GivenUp(), False
    while True:
        copy = model.clone()
        sites = find_sites(copy)
        unwanted = _unwanted(sites, options)

        def planned(
            sites: Sequence[Site], copy: ir.Model = copy, unwanted: Leave = unwanted
        ) -> Plan:
            while True:
                leave = {**unwanted, **given_up.sites}
                apart, barred = given_up.apart, given_up.barred
                found = make_plan(
                    copy, sites, leave, apart, barred, through_relu=options.through_relu
                )
                dear = too_dear(copy, found)
                if not any(dear):
                    return found
                given_up.too_dear(*dear)

        plan = step = planned(sites)
        try:
            found = apply_plan(copy, step, store, again=again)
            # Each step removes nodes from the graph, or changes nothing.
            while step.applied or step.merges:
                step = planned(_renamed(find_sites(copy), plan))
                if step.merges and not again:
                    break
                found += apply_plan(copy, step, store, again=again)
                plan = plan.followed_by(step)
            if step.merges and not again:
                again = True
                continue
        except FoldOverflowError as error:
            given_up.because_of(error.overflows, (site.name for site in sites))
            continue
        drop_rests(copy)
        return Folded(copy, plan.without_plain_factors(), tuple(found))


def _renamed(sites: list[Site], plan: Plan) -> list[Site]:
    """The sites of a later round, under their names in the first round."""
    names = {node: d.site.name for d in plan.decisions for node in d.site.nodes}
    return [replace(site, name=names.get(site.node, site.name)) for site in sites]


def _unwanted(sites: Sequence[Site], options: FoldOptions) -> Leave:
    return {
        site.name: Refusal("skipped", "left alone as asked.")
        for site in sites
        if options.leaves(site.name)
    }
