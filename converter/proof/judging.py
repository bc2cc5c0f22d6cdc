"""Turn trials into measurements: each output on each set of inputs, whole and by parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from converter.proof.measure import Measurement, from_framework, measure, pool
from converter.proof.parts import Outcome, by_parts
from converter.proof.trials import Trial

# A candidate this many times beyond what is allowed is not off by chance: nothing more is drawn.
GROSS = 16.0


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
    trials: Sequence[Trial], types: Mapping[str, str], random: Mapping[str, str] | None = None
) -> Judgement:
    """Measure every trial.

    Args:
        types: numpy's name of each output's type, by the output's name.
        random: outputs that depend on numbers the graph draws itself, and a sentence that says so.
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
        _parts(trials, types, pooled),
        tuple(
            from_framework(
                name,
                types.get(name, "float32"),
                trial.case,
                trial.truth[name],
                trial.reference[name],
                trial.case.framework[name],
            )
            for trial in trials
            for name in trial.case.framework or ()
            if name not in (random or {})
            if trial.case.framework is not None and name in trial.truth
        ),
    )


def _names_by_kind(trials: Sequence[Trial]) -> dict[str, list[str]]:
    kinds: dict[str, list[str]] = {}
    for trial in trials:
        if not trial.case.given:
            kinds.setdefault(trial.case.kind, []).append(trial.case.name)
    return kinds


def _parts(
    trials: Sequence[Trial], types: Mapping[str, str], whole: Sequence[Measurement]
) -> tuple[Measurement, ...]:
    """Measure by parts what is right as a whole, separately for each kind of inputs."""
    right = {(m.output, m.inputs) for m in whole if m.passed}
    wrong = {m.output for m in whole if m.verdict == "differs"}
    found: list[Measurement] = []
    for name in dict.fromkeys(m.output for m in whole):
        if name in wrong:
            continue
        usable = [t for t in trials if (name, t.case.name) in right]
        standard = [_outcome(t, name) for t in usable if not t.case.given and not t.case.kind]
        for kind in dict.fromkeys((t.case.given, t.case.kind) for t in usable):
            mine = [_outcome(t, name) for t in usable if (t.case.given, t.case.kind) == kind]
            others = standard if kind[0] else ()
            found += by_parts(name, types.get(name, "float32"), mine, others)
    return tuple(found)


def _outcome(trial: Trial, name: str) -> Outcome:
    return Outcome(trial.case, trial.truth[name], trial.reference[name], trial.candidate[name])
