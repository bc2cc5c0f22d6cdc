"""Run the three graphs on sets of inputs: the float64 oracle, the original, the folded one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from converter.evaluation.oracle import Feeds, OracleError
from converter.evaluation.runtime import EmulatedRunner, Runner, RunnerError, runner
from converter.proof.measure import Case
from converter.proof.recorder import Recorder


class CandidateError(Exception):
    """The folded model does not run where the original does."""


@dataclass(frozen=True)
class Trial:
    """The results of the three graphs on one set of inputs, by output."""

    case: Case
    truth: Feeds
    reference: Feeds
    candidate: Feeds


class Trials:
    """Runs sets of inputs through all three; only the candidate's session is kept.

    Args:
        truth: the graph as it was loaded; interpreted in float64.
        reference: the un-folded graph; run without graph optimisations, which fold too.
        candidate: the folded graph; run as it will be served, with all optimisations.
        progress: called with what is being done.
        optimize: False when the candidate is not the graph that will be served.
    """

    def __init__(
        self,
        truth: ir.Model,
        reference: ir.Model,
        candidate: ir.Model,
        progress: Callable[[str], None],
        *,
        optimize: bool = True,
    ) -> None:
        self._optimize = optimize
        self._oracle = Recorder(truth)  # Loop and Scan iteration by iteration
        self._reference, self._candidate = reference, candidate
        self._progress = progress
        self._runner: Runner | None = None
        self.note = ""
        self.no_oracle = ""
        self.failed: dict[str, str] = {}

    @property
    def candidate(self) -> Runner:
        """The session of the folded graph.

        Raises:
            CandidateError: it cannot be loaded.
        """
        if self._runner is None:
            try:
                self._runner = runner(self._candidate, optimize=self._optimize)
            except RunnerError as error:
                raise CandidateError(str(error)) from error
        return self._runner

    def run(self, cases: Sequence[Case], *, optional: bool = False) -> list[Trial]:
        """A trial for each case.

        Args:
            optional: leave out, and name in `failed`, those that the original or the oracle cannot
                run; `no_oracle` is the reason for the first one that onnxruntime could run.

        Raises:
            OracleError: there is no float64 evaluation.
            RunnerError: the original does not run.
            CandidateError: the folded model does not.
        """
        self._progress("original in onnxruntime")
        reference = runner(self._reference, optimize=False)
        emulated = isinstance(reference, EmulatedRunner)
        runs: list[tuple[Case, Feeds]] = []
        for case in cases:
            try:
                runs.append((case, reference.run(case.feeds)))
            except (RunnerError, OracleError) as error:
                if not optional:
                    raise RunnerError(f"the original fails on {case.name}: {error}") from error
                self.failed[case.name] = str(error)
        del reference
        both: list[tuple[Case, Feeds, Feeds]] = []
        for case, original in runs:
            self._progress(f"float64 oracle, {case.name}")
            try:
                both.append((case, self._oracle.run(case.feeds), original))
            except OracleError as error:
                if not optional:
                    raise
                self.failed[case.name] = str(error)
                self.no_oracle = self.no_oracle or str(error)
        self._progress("folded in onnxruntime")
        found = [Trial(*three, self._fold(three[0])) for three in both]
        if self.candidate.note:
            self.note = self.candidate.note
        elif emulated:
            self.note = "the original was emulated, the folded model ran in onnxruntime."
        return found

    def _fold(self, case: Case) -> Feeds:
        try:
            return self.candidate.run(case.feeds)
        except RunnerError as error:
            raise CandidateError(f"the folded model fails on {case.name}: {error}") from error
