"""A claim: the runs that test it, the numbers in which it shows, and what came of them.

All parts of a claim must hold; of parts with the same `either`, one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from experiments.grid import expand
from experiments.measures import Measure, MissingRunError, Repetition
from experiments.records import Record
from experiments.settings import Settings
from experiments.verdict import Estimate, Verdict, estimate, judge, together


@dataclass(frozen=True)
class Part:
    """One number of a claim, and where it must lie.

    Attributes:
        says: what the number is, and what the claim expects of it.
        measure: gives the number for each seed.
        low, high: the open range in which the mean must lie.
        unit: "%" (a share), "points" (a difference of shares), or "" (a plain number).
        either: parts with the same word here are alternatives.
    """

    says: str
    measure: Measure
    low: float = -math.inf
    high: float = math.inf
    unit: str = "%"
    either: str = ""


@dataclass(frozen=True)
class Claim:
    """A row of the table.

    Attributes:
        name: for the command line.
        sentence: the claim, as it is made.
        source: who makes it.
        common, axes, seeds: the runs, see `grid.expand`.
        parts: what must be so.
        note: what was chosen because the source leaves it open, or for lack of time.
    """

    name: str
    sentence: str
    source: str
    common: Settings
    axes: Mapping[str, Sequence[Any]]
    seeds: int
    parts: tuple[Part, ...]
    note: str = ""

    def runs(self) -> list[Settings]:
        """What must be trained."""
        return expand(self.common, self.axes, self.seeds)


@dataclass(frozen=True)
class Finding:
    """A part, measured; `verdict` and `found` are None when its runs are not there."""

    part: Part
    found: Estimate | None
    verdict: Verdict | None


@dataclass(frozen=True)
class Outcome:
    """A claim, measured; the verdict is None while a part has not been measured."""

    claim: Claim
    findings: tuple[Finding, ...]
    verdict: Verdict | None


def examine(claim: Claim, records: Sequence[Record]) -> Outcome:
    """Hold the claim against the finished runs, which may be fewer than it asks for."""
    wanted = set(claim.runs())
    seeds = sorted({run.seed for run in wanted})
    repetitions = [
        Repetition(
            replace(claim.common, seed=seed),
            [r for r in records if r.settings in wanted and r.settings.seed == seed],
        )
        for seed in seeds
    ]
    findings = tuple(_find(part, repetitions) for part in claim.parts)
    return Outcome(claim, findings, _verdict(findings))


def _find(part: Part, repetitions: Sequence[Repetition]) -> Finding:
    values = []
    for repetition in repetitions:
        try:
            value = part.measure(repetition)
        except MissingRunError:
            continue
        if not math.isnan(value):
            values.append(value)
    if not values:
        return Finding(part, None, None)
    found = estimate(values)
    return Finding(part, found, judge(found, part.low, part.high))


def _verdict(findings: Sequence[Finding]) -> Verdict | None:
    parts: list[Verdict] = []
    alternatives: dict[str, list[Verdict]] = {}
    for finding in findings:
        if finding.verdict is None:
            return None
        if finding.part.either:
            alternatives.setdefault(finding.part.either, []).append(finding.verdict)
        else:
            parts.append(finding.verdict)
    parts += [together(verdicts, either=True) for verdicts in alternatives.values()]
    return together(parts)
