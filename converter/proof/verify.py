"""Prove that two graphs compute the same: both are measured against float64.

For each output, on each set of inputs,

    err(candidate, float64) <= 2 * err(reference, float64) + 4 * u * max|y|

with u the unit roundoff of the output's type; max|y| and err(reference) are at least what they
usually are on random inputs (`measure.pool`). Folding may cost about one rounding of each
weight, relative to |W||x| (Higham, "Accuracy and Stability of Numerical Algorithms",
section 3.1), and no more. The reference's own error sets the scale, so that a loose
tolerance cannot hide a wrong fold in a well-conditioned network, nor a tight one condemn a
right fold in an ill-conditioned one. Numbers of other sizes in one output are judged by their
own scale (`parts`). Outputs that are not floating point must be equal, except where the reference
differs from float64 as well.

A candidate that fails by what may be luck is measured on more inputs of that kind, and all of them
count: the largest error of many inputs is no matter of luck. An output on which the original
itself cannot be measured is tried on other kinds of inputs (`draws`); if none tells anything, the
verdict is "unmeasured", which is neither "equal" nor "differs".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import onnx_ir as ir

from converter.proof import examples
from converter.proof.draws import KINDS, STANDARD, Kind, draw, kinds_for
from converter.proof.invariance import Invariance, invariance
from converter.proof.judging import Judgement, judge
from converter.proof.measure import Case, Measurement, Verdict
from converter.proof.oracle import Feeds, OracleError
from converter.proof.runtime import RunnerError
from converter.proof.trials import CandidateError, Trial, Trials
from converter.sources.loaded import Input, Reference

# Samples that are drawn in addition, in this order, while a failure may be luck.
ROWS = (16, 32)
# Samples of a batch in these draws, where the batch may vary.
_BATCH = examples.BATCHES[-1]
# Samples of other kinds of inputs, and of the self-test.
_PAIR = 2


@dataclass(frozen=True)
class Proof:
    """The result of a comparison. `failure` is the sentence that says why there is none.

    `verdict` is "equal", "differs", or "unmeasured": it could not be told. `unmeasured` names the
    outputs on which the original itself is too far from float64 on all inputs.
    """

    measurements: tuple[Measurement, ...] = ()
    # The worst of each part of an output whose numbers are of several sizes.
    parts: tuple[Measurement, ...] = ()
    # The original framework's own outputs in the candidate's place: is the export right?
    framework: tuple[Measurement, ...] = ()
    invariance: Invariance | None = None
    notes: tuple[str, ...] = ()
    failure: str = ""
    # Whether the failure is one of the candidate, or of the measurement.
    failed: Verdict = "unmeasured"
    unmeasured: tuple[str, ...] = ()
    # Inputs of one batch, the oracle's outputs for them, and which of the measurements' inputs
    # they are: what a self-test is made of.
    sample: Feeds = field(default_factory=dict)
    truth: Feeds = field(default_factory=dict)
    sampled: str = ""

    @property
    def verdict(self) -> Verdict:
        if self.failure:
            return self.failed
        if any(m.verdict == "differs" for m in (*self.measurements, *self.parts, *self.framework)):
            return "differs"
        return "equal" if self.measurements and not self.unmeasured else "unmeasured"

    @property
    def passed(self) -> bool:
        return self.verdict == "equal"

    @property
    def batch_invariant(self) -> bool:
        return self.invariance is not None and self.invariance.holds


def verify(
    truth: ir.Model,
    reference: ir.Model,
    candidate: ir.Model,
    inputs: Sequence[Input],
    *,
    dynamic_batch: bool = True,
    data: Feeds | None = None,
    framework: Reference | None = None,
    seed: int = 0,
    progress: Callable[[str], None] = lambda _: None,
) -> Proof:
    """Measure `reference` and `candidate`, run in onnxruntime, against `truth` in float64.

    Args:
        truth: the graph as it was loaded; interpreted in float64.
        reference: the un-folded graph; run without graph optimisations, which fold too.
        candidate: the folded graph; run as it will be served, with all optimisations.
        inputs: how random inputs are drawn.
        dynamic_batch: try batches of 1, 2 and 5, else only the size that the graph fixes.
        data: the user's own inputs, measured as well.
        framework: inputs and what the framework that the model comes from computed for them;
            its kernels sum in another order, so it may be 10 times as far from float64 as
            onnxruntime is, or 64 units in the last place.
        seed: of the random inputs.
        progress: told what is being done.
    """
    problem = _signature_problem(reference, candidate)
    if problem:
        return Proof(failure=problem, failed="differs")
    cases = [draw(STANDARD, inputs, batch, seed) for batch in examples.batches(dynamic_batch)]
    if data is not None:
        cases.append(Case(_name_of(data, inputs), data, given=True))
    if framework is not None:
        cases.append(Case("the export's example", framework.inputs, framework.outputs))
    types = {value.name or "": _type_name(value) for value in reference.graph.outputs}
    try:
        run = Trials(truth, reference, candidate, progress)
        trials = run.run(cases)
        plan = _Plan(inputs, dynamic_batch, seed)
        judged = judge(trials, types)
        while more := plan.next(judged, trials, list(types)):
            trials += run.run(more, optional=True)
            judged = judge(trials, types)
        return _proof(run, trials, judged, inputs, dynamic_batch, list(types), progress)
    except OracleError as error:
        return Proof(failure=f"there is no float64 oracle: {error}")
    except RunnerError as error:
        return Proof(failure=f"onnxruntime: {error}")
    except CandidateError as error:
        return Proof(failure=f"onnxruntime: {error}", failed="differs")


class _Plan:
    """What to draw next, until a verdict is no matter of luck."""

    def __init__(self, inputs: Sequence[Input], dynamic_batch: bool, seed: int) -> None:
        self._inputs, self._dynamic, self._seed = inputs, dynamic_batch, seed
        self._kinds = iter(kinds_for(inputs))
        self._turns: dict[str, int] = {}
        self._rounds: dict[str, Iterator[int]] = {}

    def next(
        self, judged: Judgement, trials: Sequence[Trial], outputs: Sequence[str]
    ) -> list[Case]:
        """The next inputs; none when the verdict stands."""
        if judged.gross:
            return []
        drawn = {t.case.name: t.case.kind for t in trials if not t.case.given}
        for m in judged.all:
            if m.verdict == "differs" and m.inputs in drawn:
                kind = next(k for k in (STANDARD, *KINDS) if k.name == drawn[m.inputs])
                rows = next(self._rounds.setdefault(kind.name, iter(ROWS)), 0)
                return self._draw(kind, rows, _BATCH)
        if any(m.verdict == "differs" for m in judged.all) or not judged.coarse(outputs):
            return []
        other = next(self._kinds, None)
        return self._draw(other, _PAIR, _PAIR) if other else []

    def _draw(self, kind: Kind, rows: int, batch: int) -> list[Case]:
        size = batch if self._dynamic else _fixed_rows(self._inputs)
        first = self._turns.get(kind.name, 1 if kind is STANDARD else 0)
        turns = range(first, first - (-rows // size))
        self._turns[kind.name] = turns.stop
        fixed = batch if self._dynamic else None
        return [draw(kind, self._inputs, fixed, self._seed, turn) for turn in turns]


def _proof(
    run: Trials,
    trials: Sequence[Trial],
    judged: Judgement,
    inputs: Sequence[Input],
    dynamic_batch: bool,
    outputs: Sequence[str],
    progress: Callable[[str], None],
) -> Proof:
    checked = None
    if dynamic_batch:
        progress("batch invariance")
        trial = _telling(trials, judged, range(_BATCH, 1, -1), len(examples.BATCHES) - 1)
        allowed = {
            name: max(m.allowed for m in judged.measurements if m.output == name)
            for name in trial.truth
        }
        checked = invariance(run.candidate, inputs, trial.case, trial.candidate, allowed)
    sample = _telling(trials, judged, (_PAIR,), 1) if dynamic_batch else _telling(trials, judged)
    return Proof(
        judged.measurements,
        judged.parts,
        judged.framework,
        checked,
        (*run.notes, *_notes(judged, outputs)),
        unmeasured=tuple(judged.unmeasured(outputs)),
        sample=sample.case.feeds,
        truth=sample.truth,
        sampled=sample.case.name,
    )


def _telling(
    trials: Sequence[Trial], judged: Judgement, batches: Sequence[int] = (), usual: int = 0
) -> Trial:
    """The trial to build on: that of the usual batch, unless its outputs tell nothing."""
    blunt = {m.inputs for m in judged.measurements if not m.passed or not m.sharp}
    drawn = [t for t in trials if not t.case.given and t.case.framework is None]
    for trial in (drawn[usual], *drawn):
        rows = {len(array) for array in trial.case.feeds.values() if array.ndim}
        if trial.case.name not in blunt and (not batches or rows & set(batches)):
            return trial
    return drawn[usual]


def _notes(judged: Judgement, outputs: Sequence[str]) -> Iterator[str]:
    """What is told of outputs that could be measured only coarsely, or that say nothing."""
    for name in judged.coarse(outputs):
        mine = [m for m in judged.measurements if m.output == name and m.verdict == "equal"]
        if mine and all(m.magnitude == 0.0 for m in mine):
            yield f"output {name!r} is empty or 0 on all inputs: pass inputs with --data."
        elif mine:
            best = min(m.reference_error / m.magnitude for m in mine if m.magnitude)
            yield (
                f"output {name!r} could be measured only coarsely: the original itself is "
                f"{best:.1%} of the largest number away from float64."
            )


def _fixed_rows(inputs: Sequence[Input]) -> int:
    sizes = [item.example[0] for item in inputs if item.example]
    return max(1, max(sizes, default=1))


def _name_of(data: Feeds, inputs: Sequence[Input]) -> str:
    rows = [len(data[item.name]) for item in inputs if examples.batched(item)]
    return f"your data, {rows[0]} rows" if rows else "your data"


def _signature_problem(reference: ir.Model, candidate: ir.Model) -> str:
    for kind in ("inputs", "outputs"):
        names = [[v.name for v in getattr(m.graph, kind)] for m in (reference, candidate)]
        if names[0] != names[1]:
            return f"the {kind} have other names: {names[0]} and {names[1]}"
        types = [[_type_name(v) for v in getattr(m.graph, kind)] for m in (reference, candidate)]
        if types[0] != types[1]:
            return f"the {kind} have other types: {types[0]} and {types[1]}"
    return ""


def _type_name(value: ir.Value) -> str:
    if value.dtype is None:
        return "float32"
    names: dict[str, Literal["float32", "float64"]] = {"FLOAT": "float32", "DOUBLE": "float64"}
    return names.get(value.dtype.name, value.dtype.name.lower())
