"""What the report of a comparison says, as plain values; `page` and `markdown` show it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from experiments import figures
from experiments.examining import Claim, Finding, Outcome, examine
from experiments.figures import Picture
from experiments.grid import varied
from experiments.records import Record
from experiments.settings import Settings, phrase
from experiments.summary import Arm, arms
from experiments.verdict import Estimate, Verdict

METHOD = (
    "Accuracies are shares of the validation images. Where a claim needs a decision, it is the "
    "95 % interval of the mean over the seeds (Student's t) that must lie where the claim says: "
    "wholly inside, the claim holds; wholly outside, it does not; else it is undecided. "
    "Differences are taken seed by seed."
)


@dataclass(frozen=True)
class Section:
    """A claim, or a comparison without one.

    Attributes:
        name: for anchors and file names.
        outcome: of the claim; None where there is none.
        settings: what all runs share, in words.
        done, total: how many runs are finished, and how many there are.
        arms, pictures: what was measured, see `summary` and `figures`.
        undrawn: panels that the pictures leave out.
        seeds: the smallest and the largest number of finished runs of an arm.
    """

    name: str
    outcome: Outcome | None
    settings: str
    done: int
    total: int
    arms: tuple[Arm, ...]
    pictures: tuple[Picture, ...]
    undrawn: int
    seeds: tuple[int, int]

    @property
    def images(self) -> str:
        """What was trained on, in words, and whether it is a part."""
        run = self.arms[0].records[0]
        part = "the first " if run.settings.images else "all "
        return f"{part}{run.images:,} training images, {run.validated:,} to validate"


@dataclass(frozen=True)
class Report:
    """All sections, and what they have in common.

    Attributes:
        title, command: of the page, and how to make it again.
        data: what was trained on, as the data set calls itself.
        machine: versions, device and threads.
        method: how verdicts are made.
    """

    title: str
    command: str
    data: str
    machine: str
    sections: tuple[Section, ...]
    method: str = field(default=METHOD)


def of_claims(claims: Sequence[Claim], records: Sequence[Record], command: str) -> Report:
    """A section for each claim. Raises UserError when matplotlib is missing."""
    sections = []
    for claim in claims:
        wanted = set(claim.runs())
        found = [record for record in records if record.settings in wanted]
        if found:
            sections.append(_section(claim.name, claim.runs(), found, examine(claim, found)))
    return _report("Claims about batch normalization, measured", command, sections, records)


def of_grid(runs: Sequence[Settings], records: Sequence[Record], command: str) -> Report:
    """One section with all runs. Raises UserError when matplotlib is missing."""
    sections = [_section("comparison", runs, records, None)] if records else []
    return _report("Trainings compared", command, sections, records)


def _report(
    title: str, command: str, sections: Sequence[Section], records: Sequence[Record]
) -> Report:
    data = sorted({record.data for record in records})
    machines = sorted({tuple(sorted(record.machine.items())) for record in records})
    return Report(
        title=title,
        command=command,
        data="; ".join(data) or "nothing was trained",
        machine="; ".join(", ".join(f"{k} {v}" for k, v in machine) for machine in machines),
        sections=tuple(sections),
    )


def _section(
    name: str, runs: Sequence[Settings], records: Sequence[Record], outcome: Outcome | None
) -> Section:
    order = {settings: place for place, settings in enumerate(runs)}
    found = arms(sorted(records, key=lambda record: order[record.settings]))
    counts = [len(arm.records) for arm in found]
    return Section(
        name=name,
        outcome=outcome,
        settings=shared(runs),
        done=len(records),
        total=len(set(runs)),
        arms=tuple(found),
        pictures=tuple(figures.pictures(found, name)),
        undrawn=figures.left_out(found),
        seeds=(min(counts), max(counts)),
    )


def shared(runs: Sequence[Settings]) -> str:
    """The settings that all runs have, in words."""
    hidden = {"seed", "evaluations", "recalibrate", "images", *varied(runs)}
    default = Settings()
    rarely = ("dropout", "init_scale", "momentum")
    names = [
        name
        for name in vars(default)
        if name not in hidden
        and not (name in rarely and getattr(runs[0], name) == getattr(default, name))
        and not (name == "bn_position" and all(run.norm == "none" for run in runs))
    ]
    return ", ".join(phrase(name, getattr(runs[0], name)) for name in names)


# --- numbers as text ---------------------------------------------------------------------


def percent(found: Estimate) -> str:
    """A share: "97.91 % ± 0.12", the deviation of the seeds in points."""
    if len(found.values) < 2:
        return f"{100 * found.mean:.2f} %"
    return f"{100 * found.mean:.2f} % ± {100 * found.deviation:.2f}"


def extent(found: Estimate) -> str:
    """The smallest and the largest of the seeds, in percent."""
    return f"{100 * min(found.values):.2f} to {100 * max(found.values):.2f}"


def measured(finding: Finding) -> str:
    """The mean of a part with its interval, or that it was not measured."""
    found, unit = finding.found, finding.part.unit
    if found is None:
        return "not measured"
    mean = number(found.mean, unit)
    if len(found.values) < 2:
        return f"{mean} (one run, no spread)"
    within = f"{number(found.low, unit, bare=True)} to {number(found.high, unit, bare=True)}"
    return f"{mean} ({within}, {len(found.values)} seeds)"


def number(value: float, unit: str, *, bare: bool = False) -> str:
    """A share in percent, a difference of shares in points, or a plain number."""
    if not math.isfinite(value):
        return "not finite"
    if unit == "%":
        return f"{100 * value:.2f}" + ("" if bare else " %")
    if unit == "points":
        return f"{100 * value:+.2f}" + ("" if bare else " points")
    return f"{value:.3g}"


def steps(arm: Arm) -> str:
    """How soon the arm is as accurate as its baseline ever is."""
    if arm.reached is None:
        return ""
    if not arm.reached:
        return "never"
    mean = sum(arm.reached) / len(arm.reached)
    some = len(arm.reached) < len(arm.records)
    return f"{mean:,.0f}" + (f" ({len(arm.reached)} of {len(arm.records)} runs)" if some else "")


def share(arm: Arm) -> str:
    """The fraction of the baseline's steps; a lower bound where some runs never got there."""
    if arm.fraction is None:
        return ""
    never = arm.reached is not None and len(arm.reached) < len(arm.records)
    return ("at least " if never else "") + f"{arm.fraction:.2f}"


def seconds(arm: Arm) -> str:
    """Wall time of an epoch."""
    return "" if arm.seconds is None else f"{arm.seconds:.2f}"


def pair(values: tuple[float, float]) -> str:
    """First and last: "0.51 → 0.63"."""
    return " → ".join(f"{value:.3g}" for value in values)


VERDICT_CLASS = {"holds": "good", "does not hold": "bad", "undecided": "open"}


def verdict_of(section: Section) -> str:
    """In words; "unfinished" where runs are missing and those that are there decide nothing."""
    if section.outcome is None:
        return ""
    verdict = section.outcome.verdict
    if verdict is None or (verdict is Verdict.UNDECIDED and section.done < section.total):
        return "unfinished"
    return str(verdict)
