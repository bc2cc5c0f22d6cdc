"""The three graphs run on sets of inputs: in float64, the original, the folded one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from converter.proof.measure import Case
from converter.proof.oracle import Feeds, OracleError
from converter.proof.recorder import Recorder
from converter.proof.runtime import EmulatedRunner, Runner, RunnerError, runner


class CandidateError(Exception):
    """The folded model does not run where the original does."""


@dataclass(frozen=True)
class Trial:
    """What the three graphs gave for one set of inputs, by output."""

    case: Case
    truth: Feeds
    reference: Feeds
    candidate: Feeds


class Trials:
    """Runs a set of inputs through all three; only the candidate's session stays.

    Args:
        truth: the graph as it was loaded; interpreted in float64.
        reference: the un-folded graph; run without graph optimisations, which fold too.
        candidate: the folded graph; run as it will be served, with all optimisations.
        progress: told what is being done.
    """

    def __init__(
        self,
        truth: ir.Model,
        reference: ir.Model,
        candidate: ir.Model,
        progress: Callable[[str], None],
    ) -> None:
        self._oracle = Recorder(truth)  # Loop and Scan turn by turn
        self._reference, self._candidate = reference, candidate
        self._progress = progress
        self._runner: Runner | None = None
        self.notes: tuple[str, ...] = ()
        self.failed: list[str] = []

    @property
    def candidate(self) -> Runner:
        """The session of the folded graph.

        Raises:
            CandidateError: it cannot be loaded.
        """
        if self._runner is None:
            try:
                self._runner = runner(self._candidate, optimize=True)
            except RunnerError as error:
                raise CandidateError(str(error)) from error
        return self._runner

    def run(self, cases: Sequence[Case], *, optional: bool = False) -> list[Trial]:
        """A trial for each case.

        Args:
            optional: leave out, and name in `failed`, those that the original cannot run.

        Raises:
            OracleError: there is no float64 evaluation.
            RunnerError: the original does not run.
            CandidateError: the folded model does not.
        """
        cases = list(cases)
        kept: list[tuple[Case, Feeds]] = []
        for case in cases:
            self._progress(f"float64 oracle, {case.name}")
            try:
                kept.append((case, self._oracle.run(case.feeds)))
            except OracleError as error:
                if not optional:
                    raise
                self.failed.append(f"{case.name}: {error}")
        self._progress("original in onnxruntime")
        reference = runner(self._reference, optimize=False)
        emulated = isinstance(reference, EmulatedRunner)
        both: list[tuple[Case, Feeds, Feeds]] = []
        for case, truth in kept:
            try:
                both.append((case, truth, reference.run(case.feeds)))
            except RunnerError as error:
                if not optional:
                    raise RunnerError(f"the original fails on {case.name}: {error}") from error
                self.failed.append(f"{case.name}: {error}")
        del reference
        self._progress("folded in onnxruntime")
        found = [Trial(*three, self._fold(three[0])) for three in both]
        if self.candidate.note:
            self.notes = (self.candidate.note,)
        elif emulated:
            self.notes = ("the original was emulated, the folded model ran in onnxruntime.",)
        return found

    def _fold(self, case: Case) -> Feeds:
        try:
            return self.candidate.run(case.feeds)
        except RunnerError as error:
            raise CandidateError(f"the folded model fails on {case.name}: {error}") from error
