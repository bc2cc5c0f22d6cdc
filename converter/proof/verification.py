"""Prove that two graphs compute the same: both are measured against float64.

For each output, on each set of inputs,

    err(candidate, float64) <= 2 * err(reference, float64) + 4 * u * max|y|

with u the unit roundoff of the output's type, or of a half type in which it was computed
(`precision`); max|y| and err(reference) are taken as at least their usual size on random inputs
(`pooling`). Folding may cost about one rounding of each weight, relative to |W||x| (Higham,
"Accuracy and Stability of Numerical Algorithms", section 3.1), and no more. The reference's own
error sets the scale, so that a loose tolerance cannot hide a wrong fold in a well-conditioned
network, and a tight one cannot reject a right fold in an ill-conditioned one. Numbers of different
sizes in one output are judged by their own scale (`parts`). Outputs that are not floating point
must be equal, except where the reference differs from float64 as well.

A candidate whose failure may be due to chance is measured on more inputs of that kind, and all of
them count: the largest error over many inputs hardly depends on chance. An output on which the
original itself cannot be measured is tried on other kinds of inputs (`draws`); if none is
informative, the verdict is "unmeasured", which is neither "equal" nor "differs".

That is the rule where the measurement is all that is known. A certificate
(`converter.certificate`) says that the weights are right for every input, and less speaks against a
candidate that has one (`excused`); what could not be measured, or never ran, then rests on it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
import onnx_ir as ir

from converter.certificate import Certified, NotCertified
from converter.evaluation.oracle import Array, Feeds, OracleError
from converter.evaluation.runtime import RunnerError
from converter.graph.naming import label
from converter.proof import examples
from converter.proof.broken import broken_weights
from converter.proof.conclusion import excuses
from converter.proof.control import random_outputs
from converter.proof.coverage import Coverage, Ran
from converter.proof.draws import STANDARD, Kind, draw
from converter.proof.elsewhere import others
from converter.proof.invariance import Invariance, invariance
from converter.proof.judging import Judgement, judge, outcome
from converter.proof.measure import BY, Case, Measurement, wide
from converter.proof.parts import by_parts
from converter.proof.plan import Plan
from converter.proof.precision import narrower
from converter.proof.signature import problem_of, type_name
from converter.proof.telling import given, notes, telling
from converter.proof.trials import CandidateError, Trial, Trials
from converter.proof.verdict import Proof
from converter.sources.loaded import Input, Reference

# The size of the largest batch that is drawn, and of the self-test.
_LARGEST, _PAIR = examples.BATCHES[-1], 2


def verify(
    truth: ir.Model,
    reference: ir.Model,
    candidate: ir.Model,
    inputs: Sequence[Input],
    *,
    dynamic_batch: bool = True,
    data: Feeds | None = None,
    framework: Reference | None = None,
    certificate: Certified | NotCertified | None = None,
    seed: int = 0,
    progress: Callable[[str], None] = lambda _: None,
) -> Proof:
    """Measure `reference` and `candidate`, run in onnxruntime, against `truth` in float64.

    Args:
        truth: the graph as it was loaded; interpreted in float64.
        reference: the un-folded graph; run without graph optimisations, which fold too.
        candidate: the folded graph; run as it will be served, with all optimisations.
        inputs: how random inputs are drawn.
        dynamic_batch: try batches of 1, 2 and 5; otherwise only the size that the graph fixes.
        data: the user's own inputs, measured as well.
        framework: inputs, and what the model's original framework computed for them; its kernels
            sum in another order, so it may be 10 times as far from float64 as onnxruntime is, or
            64 units in the last place.
        certificate: what is known of `truth` and `candidate` for every input; None if that was not
            looked for.
        seed: of the random inputs.
        progress: called with what is being done.
    """
    problem = problem_of(reference, candidate)
    if problem:
        return Proof(failure=problem, failed="differs", certificate=certificate)
    given = []
    if data is not None:
        given.append(Case(_name_of(data, inputs), data, given=True))
    if framework is not None:
        given.append(Case("the export's example", framework.inputs, framework.outputs))
    types = {value.name or "": type_name(value) for value in reference.graph.outputs}
    narrow = narrower(reference)
    types |= {name: f"{types[name]}{BY}{narrow[name]}" for name in narrow}
    session = _Session(
        truth, reference, candidate, inputs, dynamic_batch, bool(certificate), seed, progress
    )
    proof = replace(_attempt(session, types, given), certificate=certificate)
    proof = replace(proof, notes=(*proof.notes, *excuses(proof.excused)))
    broken = broken_weights(reference)
    if broken and proof.passed:
        told = (
            f"weights of the original hold NaN, and what depends on them is NaN in both: {broken}."
        )
        return replace(proof, notes=(*proof.notes, told))
    return replace(proof, broken=broken)


def _attempt(session: _Session, types: Mapping[str, str], given: Sequence[Case]) -> Proof:
    try:
        return session.prove(types, given)
    except OracleError as error:
        return Proof(failure=f"there is no float64 oracle: {error}")
    except RunnerError as error:
        return Proof(failure=f"onnxruntime: {error}")
    except CandidateError as error:
        return Proof(failure=f"onnxruntime: {error}", failed="differs")


class _Session:
    """One proof: inputs are drawn, measured, and drawn again."""

    def __init__(
        self,
        truth: ir.Model,
        reference: ir.Model,
        candidate: ir.Model,
        inputs: Sequence[Input],
        dynamic_batch: bool,
        certified: bool,
        seed: int,
        progress: Callable[[str], None],
    ) -> None:
        self._run = Trials(truth, reference, candidate, progress)
        self._certified = certified
        self._inputs, self._dynamic, self._seed = inputs, dynamic_batch, seed
        self._progress = progress
        self._first = examples.batches(dynamic_batch)[0]
        self._batches: list[int | None] = []
        self._random = _drawn_by(reference, candidate)
        self._coverage = (
            Coverage(reference, candidate, inputs, self._first, seed)
            if Coverage.needed(reference, candidate)
            else None
        )

    def prove(self, types: Mapping[str, str], given: Sequence[Case]) -> Proof:
        """Measure on random inputs and on `given`, until the verdict does not depend on chance."""
        kinds = [STANDARD]
        if self._coverage is not None:
            self._progress("branches and loops")
            kinds = self._coverage.kinds()
        trials, kinds[0] = self._drawn(kinds[0])
        self._usual = len(trials)
        trials += self._run.run(given)
        if not trials:
            return self._nothing_runs()
        more = [draw(kind, self._inputs, self._first, self._seed) for kind in kinds[1:]]
        if more:
            trials += self._run.run(more, optional=True)
        judged = self._settle(self._run, trials, types, kinds)
        ran, by_force = self._ran(trials, judged, types, kinds)
        judged = replace(
            judged,
            measurements=(*judged.measurements, *(m for j in by_force for m in j.measurements)),
            parts=(*judged.parts, *(m for j in by_force for m in j.parts)),
        )
        return self._proof(trials, judged, types, ran)

    def _drawn(self, kind: Kind) -> tuple[list[Trial], Kind]:
        """Trials of the usual batches; if the model runs on none, of other batches and sizes."""
        usual = examples.batches(self._dynamic)
        found = self._try(kind, usual)
        if not found:
            for setting, batches in others(self._inputs, kind.setting, self._dynamic):
                kind = replace(kind, setting=setting, says=setting.name)
                # One batch first: without any oracle, the others need not be tried.
                found = self._try(kind, batches[:1])
                if found:
                    return found + self._try(kind, batches[1:]), kind
        return found, kind

    def _try(self, kind: Kind, batches: Sequence[int | None]) -> list[Trial]:
        cases = {b: draw(kind, self._inputs, b, self._seed) for b in batches}
        found = self._run.run(list(cases.values()), optional=True) if cases else []
        ran = {trial.case.name for trial in found}
        self._batches += [b for b, case in cases.items() if case.name in ran]
        if self._batches:
            self._first = self._batches[0]
        return found

    def _nothing_runs(self) -> Proof:
        """The proof when the model runs neither on random inputs nor on the user's data."""
        if self._run.no_oracle:
            raise OracleError(self._run.no_oracle)
        case, why = next(iter(self._run.failed.items()))
        return Proof(
            failure=f"the original model itself does not run on random inputs ({case}: {why}). Say "
            "sizes that it takes with --input-shape, or give inputs with --data."
        )

    def _settle(
        self, run: Trials, trials: list[Trial], types: Mapping[str, str], kinds: Sequence[Kind]
    ) -> Judgement:
        """Draw more while the verdict may be chance, or is undecided; `trials` grows."""
        plan = Plan(self._inputs, self._dynamic, self._seed, kinds, self._batches, self._certified)
        outputs = [name for name in types if name not in self._random]
        judged = judge(trials, types, self._random, self._certified)
        while more := plan.next(judged, trials, outputs):
            trials += run.run(more, optional=True)
            judged = judge(trials, types, self._random, self._certified)
        return judged

    def _ran(
        self,
        trials: Sequence[Trial],
        judged: Judgement,
        types: Mapping[str, str],
        kinds: Sequence[Kind],
    ) -> tuple[tuple[Ran, ...], list[Judgement]]:
        """What ran on measured inputs; what did not is forced to run."""
        if self._coverage is None:
            return (), []
        self._progress("branches and loops")
        for index, trial in enumerate(trials):
            if judged.told(trial.case.name) and (not index or not self._coverage.content()):
                self._coverage.watch(trial.case)
        found = []
        for name, reference, candidate, done in self._coverage.to_force():
            # A constant condition makes onnxruntime's optimizer inline the branch, which may crash
            # the process; and the graph of a forced branch will not be served anyway.
            run = Trials(reference, reference, candidate, self._progress, optimize=False)
            forced = self._force(name, run, types, kinds)
            if forced is not None:
                found.append(forced)
                if not forced.unmeasured([n for n in types if n not in self._random]):
                    done()
        for reference, candidate, cases, done in self._coverage.to_run_alone():
            if self._equal_alone(Trials(reference, reference, candidate, self._progress), cases):
                done()
        return self._coverage.told(), found

    def _force(
        self, name: str, run: Trials, types: Mapping[str, str], kinds: Sequence[Kind]
    ) -> Judgement | None:
        """Measure graphs with a body forced to run, on the first kind of inputs they run on."""
        for kind in kinds:
            says = ", ".join(filter(None, (kind.name or kind.says, f"{name} forced")))
            kind = replace(kind, name="", says=says)
            try:
                trials = run.run([draw(kind, self._inputs, self._first, self._seed)], optional=True)
                if trials:
                    return self._settle(run, trials, types, [kind])
            except (OracleError, RunnerError, CandidateError):
                continue
        return None

    @staticmethod
    def _equal_alone(run: Trials, cases: Sequence[Case]) -> bool:
        try:
            trials = run.run(cases, optional=True)
        except (OracleError, RunnerError, CandidateError):
            return False
        found = [
            judge([trial], {name: y.dtype.name for name, y in trial.reference.items()})
            for trial in trials
        ]
        return any(all(m.verdict == "equal" for m in judged.all) for judged in found) and not any(
            m.verdict == "differs" for judged in found for m in judged.all
        )

    def _proof(
        self,
        trials: Sequence[Trial],
        judged: Judgement,
        types: Mapping[str, str],
        ran: tuple[Ran, ...],
    ) -> Proof:
        checked = None
        if self._dynamic and self._usual:
            checked = self._invariance(trials, judged, types)
        second = min(1, max(0, self._usual - 1))
        sample = telling(trials, judged, (_PAIR,) if self._dynamic else (), second)
        unmeasured = judged.unmeasured(list(types))
        measured = [name for name in types if name not in self._random]
        return Proof(
            judged.measurements,
            judged.parts,
            judged.framework,
            checked,
            (*filter(None, [self._run.note]), *self._refused(), *notes(judged, measured)),
            unmeasured=tuple(unmeasured),
            ran=ran,
            random=tuple(self._random[name] for name in unmeasured if name in self._random),
            sample=sample.case.feeds,
            truth=given(sample),
            sampled=sample.case.name,
        )

    def _invariance(
        self, trials: Sequence[Trial], judged: Judgement, types: Mapping[str, str]
    ) -> Invariance:
        """Whether a sample alone equals itself in a batch."""
        self._progress("batch invariance")
        trial = telling(trials, judged, range(_LARGEST, 1, -1), self._usual - 1)
        allowed = {
            name: max(_apart(m) for m in judged.measurements if m.output == name)
            for name in trial.truth
        }
        standard = [t for t in trials if not t.case.given and not t.case.kind]

        def parts(name: str, alone: Array, batch: Array) -> Sequence[Measurement]:
            mine = outcome(trial, name)
            with np.errstate(invalid="ignore"):
                moved = mine.truth + (wide(alone) - wide(batch))
            others = [outcome(t, name) for t in standard]
            return by_parts(name, types[name], [replace(mine, candidate=moved)], others)

        checked = invariance(
            self._run.candidate, self._inputs, trial.case, trial.candidate, allowed, parts
        )
        if not checked.holds:
            return checked
        if blind := judged.unmeasured(list(trial.truth)):
            why = f"it could not be measured at {', '.join(map(repr, blind))}"
            return replace(checked, problem=why)
        refused = [b for b in examples.BATCHES if b not in self._batches]
        if refused:
            sizes = " and ".join(map(str, refused))
            checked = replace(checked, problem=f"the model does not run on {sizes} samples")
        return checked

    def _refused(self) -> Iterator[str]:
        """A note on the usual inputs that the original does not run on."""
        usual = [draw(STANDARD, self._inputs, b, self._seed).name
                 for b in examples.batches(self._dynamic)]  # fmt: skip
        failed = [name for name in usual if name in self._run.failed]
        if failed:
            why = self._run.failed[failed[0]]
            yield (
                f"these random inputs could not be used: {', '.join(failed)}: "
                f"{why[:160]}{' ..' if len(why) > 160 else ''}"
            )


def _apart(m: Measurement) -> float:
    """How far a sample alone may be from itself in a batch: as far as both are from the truth."""
    return max(m.allowed, 2.0 * m.candidate_error if m.verdict == "differs" else 0.0)


def _drawn_by(*models: ir.Model) -> dict[str, str]:
    """Outputs that depend on numbers a graph draws itself, and a sentence that says so."""
    found = {}
    for model in models:
        for name, nodes in random_outputs(model.graph).items():
            who = ", ".join(label(node) for node in nodes[:3])
            more = f" and {len(nodes) - 3} more" if len(nodes) > 3 else ""
            found[name] = (
                f"output {name!r} depends on numbers that the graph draws itself ({who}{more}), "
                "which are others in each run"
            )
    return found


def _name_of(data: Feeds, inputs: Sequence[Input]) -> str:
    rows = [len(data[item.name]) for item in inputs if examples.batched(item)]
    return f"your data, {rows[0]} rows" if rows else "your data"
