"""Prove that two graphs compute the same: both are measured against float64.

For each output, on each set of inputs,

    err(candidate, float64) <= 2 * err(reference, float64) + 4 * u * max|y|

with u the unit roundoff of the output's type; max|y| and err(reference) are at least what they
usually are on random inputs (`measure.pool`). Folding may cost about one rounding of each
weight, relative to |W||x| (Higham, "Accuracy and Stability of Numerical Algorithms",
section 3.1), and no more. The reference's own error sets the scale, so that a loose
tolerance cannot hide a wrong fold in a well-conditioned network, nor a tight one condemn a
right fold in an ill-conditioned one. Outputs that are not floating point must be equal,
except where the reference differs from float64 as well.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import onnx_ir as ir

from converter.proof import examples
from converter.proof.measure import (
    Case,
    Measurement,
    from_framework,
    largest_of,
    measure,
    pool,
    wide,
)
from converter.proof.oracle import Feeds, Oracle, OracleError
from converter.proof.runtime import EmulatedRunner, Runner, RunnerError, runner
from converter.sources.loaded import Input, Reference


@dataclass(frozen=True)
class Invariance:
    """Whether a sample alone gives the same as that sample in a batch.

    `difference` is the largest, `allowed` what rounding explains; `problem` is a sentence
    when it could not be measured or does not hold.
    """

    difference: float
    allowed: float
    problem: str = ""

    @property
    def holds(self) -> bool:
        return not self.problem and self.difference <= self.allowed


@dataclass(frozen=True)
class Proof:
    """The result of a comparison. `failure` is the sentence that says why there is none."""

    measurements: tuple[Measurement, ...] = ()
    # The original framework's own outputs in the candidate's place: is the export right?
    framework: tuple[Measurement, ...] = ()
    invariance: Invariance | None = None
    notes: tuple[str, ...] = ()
    failure: str = ""
    # Inputs of one batch and the oracle's outputs for them: what a self-test is made of.
    sample: Feeds = field(default_factory=dict)
    truth: Feeds = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        return (
            not self.failure
            and bool(self.measurements)
            and all(m.passed for m in (*self.measurements, *self.framework))
        )

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
        return Proof(failure=problem)
    cases = [
        Case(
            "the fixed batch" if batch is None else f"batch {batch}",
            examples.random_feeds(inputs, batch, seed),
        )
        for batch in examples.batches(dynamic_batch)
    ]
    if data is not None:
        cases.append(Case(_name_of(data, inputs), data, given=True))
    if framework is not None:
        cases.append(Case("the export's example", framework.inputs, framework.outputs))
    try:
        return _measure_all(truth, reference, candidate, inputs, cases, dynamic_batch, progress)
    except OracleError as error:
        return Proof(failure=f"there is no float64 oracle: {error}")
    except RunnerError as error:
        return Proof(failure=f"onnxruntime: {error}")


def _measure_all(
    truth: ir.Model,
    reference: ir.Model,
    candidate: ir.Model,
    inputs: Sequence[Input],
    cases: Sequence[Case],
    dynamic_batch: bool,
    progress: Callable[[str], None],
) -> Proof:
    oracle = Oracle(truth)
    truths = []
    for case in cases:
        progress(f"float64 oracle, {case.name}")
        truths.append(oracle.run(case.feeds))
    progress("original in onnxruntime")
    reference_runner = runner(reference, optimize=False)
    originals = _run_cases(reference_runner, cases, "the original")
    exact_reference = isinstance(reference_runner, EmulatedRunner)
    del reference_runner
    progress("folded in onnxruntime")
    candidate_runner = runner(candidate, optimize=True)
    results = _run_cases(candidate_runner, cases, "the folded model")
    types = {value.name: _type_name(value) for value in reference.graph.outputs}
    measurements = tuple(
        measure(name, types.get(name, "float32"), case, expected[name], got[name], found[name])
        for case, expected, got, found in zip(cases, truths, originals, results, strict=True)
        for name in expected
    )
    measurements = pool(measurements, {case.name for case in cases if not case.given})
    by_framework = tuple(
        from_framework(
            name, types.get(name, "float32"), case, expected[name], got[name], case.framework[name]
        )
        for case, expected, got in zip(cases, truths, originals, strict=True)
        for name in case.framework or ()
        if case.framework is not None and name in expected
    )
    invariance = None
    if dynamic_batch:
        progress("batch invariance")
        largest = len(examples.BATCHES) - 1
        invariance = _invariance(
            candidate_runner, inputs, cases[largest], results[largest], measurements
        )
    notes = [candidate_runner.note] if candidate_runner.note else []
    if exact_reference and not notes:
        notes.append("the original was emulated, the folded model ran in onnxruntime.")
    sample = 1 if dynamic_batch else 0  # a batch of two where there is one
    return Proof(
        measurements,
        by_framework,
        invariance,
        tuple(notes),
        sample=cases[sample].feeds,
        truth=truths[sample],
    )


def _name_of(data: Feeds, inputs: Sequence[Input]) -> str:
    rows = [len(data[item.name]) for item in inputs if examples.batched(item)]
    return f"your data, {rows[0]} rows" if rows else "your data"


def _run_cases(run: Runner, cases: Sequence[Case], who: str) -> list[Feeds]:
    found = []
    for case in cases:
        try:
            found.append(run.run(case.feeds))
        except RunnerError as error:
            raise RunnerError(f"{who} fails on {case.name}: {error}") from error
    return found


def _invariance(
    run: Runner,
    inputs: Sequence[Input],
    case: Case,
    together: Feeds,
    measurements: Sequence[Measurement],
) -> Invariance:
    """Each sample of `case` alone, against itself in that batch; the worst output counts."""
    alone = [run.run(feeds) for feeds in examples.rows(case.feeds, inputs)]
    worst = Invariance(0.0, 0.0)
    for name, batch in together.items():
        if batch.ndim == 0 or len(batch) != len(alone):
            return Invariance(
                np.inf, 0.0, f"output {name!r} of shape {batch.shape} has no batch axis"
            )
        if any(single[name].shape != (1, *batch.shape[1:]) for single in alone):
            return Invariance(np.inf, 0.0, f"output {name!r} has another shape alone")
        found = wide(np.concatenate([single[name] for single in alone])), wide(batch)
        both = np.isfinite(found[0]) & np.isfinite(found[1])
        if not np.array_equal(np.isfinite(found[0]), np.isfinite(found[1])):
            return Invariance(np.inf, 0.0, f"output {name!r} is finite only alone or in a batch")
        difference = largest_of(found[0][both] - found[1][both])
        # Both runs are this close to the same truth, so they may be so far apart.
        allowed = max(m.allowed for m in measurements if m.output == name)
        if difference > allowed:
            return Invariance(
                difference,
                allowed,
                "a sample's answer depends on the others in its batch (batch statistics?)",
            )
        if difference >= worst.difference:
            worst = Invariance(difference, allowed)
    return worst


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
