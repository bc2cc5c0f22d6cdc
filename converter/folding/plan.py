"""A plan: for each batch-norm where it goes, or why it stays; data that can be printed."""

from __future__ import annotations

from dataclasses import dataclass, replace

from converter.folding.affine import Affine
from converter.folding.branches import Merge
from converter.folding.refusal import Refusal
from converter.folding.routes import Route
from converter.folding.sites import Site


@dataclass(frozen=True, eq=False)
class Decision:
    """What happens to one batch-norm: a `Route` if it goes, a `Refusal` if it stays.

    A route with a remainder takes only half of the map away.
    """

    site: Site
    outcome: Route | Refusal

    @property
    def applied(self) -> bool:
        """Whether anything is done."""
        return isinstance(self.outcome, Route)

    @property
    def folded(self) -> bool:
        """Whether nothing is left of it."""
        return self.applied and self.remainder is None

    @property
    def remainder(self) -> Affine | None:
        """The half of the map that stays as one node, if only the other half goes."""
        return self.outcome.remainder if isinstance(self.outcome, Route) else None

    @property
    def stays(self) -> str | None:
        """Which half of the map stays as one node, "scale" or "shift", if only the other goes."""
        if self.remainder is None:
            return None
        return "scale" if self.remainder.scales else "shift"


@dataclass(frozen=True, eq=False)
class Plan:
    """A decision for every batch-norm of the graph, in the order of the nodes, and the parallel
    branches that become one op.

    Attributes:
        decisions: for every site: the batch-norms and the other constant scales and shifts.
        merges: the parallel branches that become one op.
        routes: the ways of those that are folded, in the order in which they apply.
    """

    decisions: tuple[Decision, ...]
    merges: tuple[Merge, ...] = ()
    routes: tuple[Route, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Those of all sites."""
        return tuple(decision.site.name for decision in self.decisions)

    @property
    def batchnorms(self) -> tuple[Decision, ...]:
        return tuple(d for d in self.decisions if d.site.kind == "batch-norm")

    @property
    def scale_shifts(self) -> tuple[Decision, ...]:
        """Those that are no batch-norms: LayerScale, input normalisation, constant factors."""
        return tuple(d for d in self.decisions if d.site.kind == "scale-shift")

    @property
    def folded(self) -> tuple[Decision, ...]:
        """The batch-norms that go."""
        return tuple(decision for decision in self.batchnorms if decision.folded)

    @property
    def kept(self) -> tuple[Decision, ...]:
        """The batch-norms that stay."""
        return tuple(decision for decision in self.batchnorms if not decision.folded)

    @property
    def applied(self) -> tuple[Decision, ...]:
        """All of which at least half goes, batch-norms or not."""
        return tuple(decision for decision in self.decisions if decision.applied)

    def without_plain_factors(self) -> Plan:
        """This plan without the lone factors that stay: activations are full of them."""
        return replace(
            self, decisions=tuple(d for d in self.decisions if d.applied or not d.site.uniform)
        )

    def followed_by(self, later: Plan) -> Plan:
        """This plan and then `later`, made for what this one left, as one report."""
        outcomes = {
            node: decision.outcome for decision in later.decisions for node in decision.site.nodes
        }
        known = {node for decision in self.decisions for node in decision.site.nodes}
        new = (d for d in later.decisions if d.applied and not known.intersection(d.site.nodes))
        return Plan(
            (
                *(
                    replace(decision, outcome=outcomes.get(decision.site.node, decision.outcome))
                    for decision in self.decisions
                ),
                *new,
            ),
            self.merges + later.merges,
            self.routes + later.routes,
        )
