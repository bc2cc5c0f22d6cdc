"""Turn trials into measurements: each output on each set of inputs, whole and by parts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from converter.proof.excused import against
from converter.proof.measure import (
    GROSS,
    Measurement,
    framework_allowance,
    from_framework,
    measure,
)
from converter.proof.parts import Outcome, by_parts
from converter.proof.pooling import pool
from converter.proof.trials import Trial


@dataclass(frozen=True)
class Judgement:
    """`measurements` of whole outputs, `parts` of those with numbers of several sizes, and
    `framework`: of the original framework's outputs in the candidate's place."""

    measurements: tuple[Measurement, ...]
    parts: tuple[Measurement, ...]
    framework: tuple[Measurement, ...]

    @property
    def all(self) -> tuple[Measurement, ...]:
        return (*self.measurements, *self.parts, *self.framework)

    @property
    def gross(self) -> bool:
        """Whether something differs by far more than chance explains."""
        return any(
            m.verdict == "differs"
            and not m.scant
            and (m.problem or m.candidate_error > GROSS * m.allowed)
            for m in self.all
        )

    def against(self, certified: bool) -> tuple[Measurement, ...]:
        """The measurements that speak against the candidate (`excused.py`)."""
        return against((*self.measurements, *self.parts), self.framework, certified)

    def final(self, certified: bool) -> bool:
        """Whether no other inputs could change what speaks against it."""
        if certified:
            return any(m.unlike for m in self.against(certified))
        return self.gross

    def coarse(self, outputs: Sequence[str], kind: Sequence[str] | None = None) -> list[str]:
        """Outputs for which no inputs were found on which the original is close to float64.

        Args:
            kind: names of the inputs that count, by default all.
        """
        sharp = {
            m.output
            for m in self.measurements
            if m.verdict == "equal" and m.sharp and (kind is None or m.inputs in kind)
        }
        return [name for name in outputs if name not in sharp]

    def told(self, inputs: str) -> bool:
        """Whether every output was measured on a set of inputs."""
        return all(m.verdict == "equal" for m in self.measurements if m.inputs == inputs)

    def unmeasured(self, outputs: Sequence[str]) -> list[str]:
        """Outputs about which no inputs were informative."""
        told = {m.output for m in self.measurements if not m.unmeasured}
        return [name for name in outputs if name not in told]


def judge(
    trials: Sequence[Trial],
    types: Mapping[str, str],
    random: Mapping[str, str] | None = None,
    certified: bool = False,
) -> Judgement:
    """Measure every trial.

    Args:
        types: numpy's name of each output's type, by the output's name.
        random: outputs that depend on numbers the graph draws itself, and a sentence that says so.
        certified: measure by parts also what only a certificate excuses as a whole.
    """
    measurements = tuple(
        replace(found, unmeasured=True, problem=random[name])
        if random and name in random
        else found
        for trial in trials
        for name in trial.truth
        for found in [
            measure(
                name,
                types.get(name, "float32"),
                trial.case,
                trial.truth[name],
                trial.reference[name],
                trial.candidate[name],
            )
        ]
    )
    kinds = _names_by_kind(trials)
    pooled = pool(measurements, kinds.pop("", ()), tuple(kinds.values()))
    return Judgement(
        pooled,
        _parts(trials, types, pooled, certified),
        tuple(_exported(trials, types, random or {})),
    )


def _exported(
    trials: Sequence[Trial], types: Mapping[str, str], random: Mapping[str, str]
) -> Iterator[Measurement]:
    """What the original framework gave; of an output that is right as a whole, the parts that are
    not."""
    for trial in trials:
        for name, given in (trial.case.framework or {}).items():
            if name in random or name not in trial.truth:
                continue
            dtype, mine = types.get(name, "float32"), outcome(trial, name)
            whole = from_framework(name, dtype, trial.case, mine.truth, mine.reference, given)
            yield whole
            if whole.passed:
                standard = [outcome(t, name) for t in trials if _standard(t) and name in t.truth]
                of_it = replace(mine, candidate=given)
                parts = by_parts(name, dtype, [of_it], standard, framework_allowance)
                yield from (part for part in parts if not part.passed)


def _standard(trial: Trial) -> bool:
    case = trial.case
    return not case.given and not case.kind and case.framework is None


def _names_by_kind(trials: Sequence[Trial]) -> dict[str, list[str]]:
    kinds: dict[str, list[str]] = {}
    for trial in trials:
        if not trial.case.given:
            kinds.setdefault(trial.case.kind, []).append(trial.case.name)
    return kinds


def _parts(
    trials: Sequence[Trial],
    types: Mapping[str, str],
    whole: Sequence[Measurement],
    certified: bool,
) -> tuple[Measurement, ...]:
    """Measure by parts what is right as a whole, separately for each kind of inputs."""
    right = {(m.output, m.inputs) for m in whole if not m.problem}
    wrong = {m.output for m in against(whole, (), certified)}
    found: list[Measurement] = []
    for name in dict.fromkeys(m.output for m in whole):
        if name in wrong:
            continue
        usable = [t for t in trials if (name, t.case.name) in right]
        standard = [outcome(t, name) for t in usable if not t.case.given and not t.case.kind]
        for kind in dict.fromkeys((t.case.given, t.case.kind) for t in usable):
            mine = [outcome(t, name) for t in usable if (t.case.given, t.case.kind) == kind]
            others = standard if kind[0] else ()
            found += by_parts(name, types.get(name, "float32"), mine, others)
    return tuple(found)


def outcome(trial: Trial, name: str) -> Outcome:
    return Outcome(trial.case, trial.truth[name], trial.reference[name], trial.candidate[name])
