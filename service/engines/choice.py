"""From what was measured of each engine to the one that serves.

    cost = sqrt(lone * row)

`lone` is the time of one row that has the machine to itself, `row` the time for each row when all
CPUs are busy with batches, both as parts of what onnxruntime itself took beside it. An engine is
chosen if

    it is within the budget,
    neither of the two is above 1.1, for nobody asked for a trade of one for the other,
    its cost is the smallest, and below 0.95: closer than that is noise.

Otherwise onnxruntime itself serves.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from service.engines.budget import Budget

_WORTH, _WORST = 0.95, 1.1


@dataclass(frozen=True, slots=True)
class Trial:
    """What is known of an engine.

    `obstacle`: why it could not be measured, "" if it was. `error`, `within_atol`, `changed`: see
    `Budget.objection`. `lone_ms`, `row_ms`: milliseconds, the best of some; `lone`, `row`: as parts
    of what the default took meanwhile. `note`: what else there is to know of it.
    """

    engine: str
    precision: str
    obstacle: str = ""
    error: float = math.inf
    within_atol: bool = False
    changed: int | None = None
    lone_ms: float = math.inf
    row_ms: float = math.inf
    lone: float = math.inf
    row: float = math.inf
    note: str = ""

    @property
    def cost(self) -> float:
        return math.sqrt(self.lone * self.row)


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the table that is shown: a trial, and why it serves or does not."""

    trial: Trial
    chosen: bool
    why: str

    def describe(self) -> dict[str, Any]:
        """Plain JSON types; None for what was not measured."""
        trial = self.trial
        return {
            "engine": trial.engine,
            "precision": trial.precision,
            "lone_ms": _finite(trial.lone_ms),
            "row_ms": _finite(trial.row_ms),
            "error": _finite(trial.error),
            "chosen": self.chosen,
            "why": f"{self.why}; {trial.note}" if trial.note else self.why,
        }


def choose(trials: Sequence[Trial], budget: Budget, *, insist: bool = False) -> list[Row]:
    """The table, in which one row is chosen; none if `insist` and no engine can be.

    Args:
        trials: the default first.
        budget: how far they may be off.
        insist: the default is not wanted, and any other that is within the budget will do.
    """
    default, others = trials[0], trials[1:]
    reasons = {id(t): _objection(t, default, budget, insist=insist) for t in others}
    fitting = [t for t in others if not reasons[id(t)]]
    best = min(fitting, key=lambda t: t.cost, default=None)
    chosen = best or (None if insist else default)
    rows = [
        Row(default, default is chosen, "no other is better" if best is None else "the default")
    ]
    for trial in others:
        part = f"{trial.cost:.2f} of the default's time"
        said = reasons[id(trial)] or (part if trial is best else f"{part}: not the fastest")
        rows.append(Row(trial, trial is best, said))
    return rows


def _objection(trial: Trial, default: Trial, budget: Budget, *, insist: bool) -> str:
    """Why an engine cannot be chosen, whatever the others are."""
    said = trial.obstacle or budget.objection(
        trial.error, default.error, trial.within_atol, trial.changed
    )
    if said or insist:
        return said
    for part, what in ((trial.lone, "a lone request"), (trial.row, "a row of a batch")):
        if part > _WORST:
            return f"{what} takes {part:.2f} of the default's time"
    return f"{trial.cost:.2f} of the default's time: too close" if trial.cost > _WORTH else ""


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
