"""A plan: where each batch-norm is folded, or why it stays; plain data that can be printed."""

from __future__ import annotations

from dataclasses import dataclass, replace

from converter.folding.affine import Affine
from converter.folding.branches import Merge
from converter.folding.refusal import Refusal
from converter.folding.routes import Route
from converter.folding.sites import Site


@dataclass(frozen=True, eq=False)
class Decision:
    """What happens to one batch-norm: a `Route` if it is folded, a `Refusal` if it stays.

    A route with a remainder moves only half of the map.
    """

    site: Site
    outcome: Route | Refusal

    @property
    def applied(self) -> bool:
        """Whether at least half of the map is folded."""
        return isinstance(self.outcome, Route)

    @property
    def folded(self) -> bool:
        """Whether the whole map is folded."""
        return self.applied and self.remainder is None

    @property
    def remainder(self) -> Affine | None:
        """The half of the map that stays as one node, if only the other half is folded."""
        return self.outcome.remainder if isinstance(self.outcome, Route) else None

    @property
    def stays(self) -> str | None:
        """Which half of the map stays as one node, "scale" or "shift", if only one is folded."""
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
        """The names of all sites."""
        return tuple(decision.site.name for decision in self.decisions)

    @property
    def batchnorms(self) -> tuple[Decision, ...]:
        return tuple(d for d in self.decisions if d.site.kind == "batch-norm")

    @property
    def scale_shifts(self) -> tuple[Decision, ...]:
        """The sites that are not batch-norms: LayerScale, input normalisation, constant factors."""
        return tuple(d for d in self.decisions if d.site.kind == "scale-shift")

    @property
    def folded(self) -> tuple[Decision, ...]:
        """The batch-norms that are folded."""
        return tuple(decision for decision in self.batchnorms if decision.folded)

    @property
    def kept(self) -> tuple[Decision, ...]:
        """The batch-norms that stay."""
        return tuple(decision for decision in self.batchnorms if not decision.folded)

    @property
    def applied(self) -> tuple[Decision, ...]:
        """All sites of which at least half is folded, batch-norms or not."""
        return tuple(decision for decision in self.decisions if decision.applied)

    def without_plain_factors(self) -> Plan:
        """This plan without single factors that stay, which are common in activations."""
        return replace(
            self, decisions=tuple(d for d in self.decisions if d.applied or not d.site.uniform)
        )

    def followed_by(self, later: Plan) -> Plan:
        """This plan and then `later`, which was made for what this one left, as one plan."""
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
