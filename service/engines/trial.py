"""What is measured of one engine: how far off it is, and how long it takes beside the default.

    error     on the self-test as it is, and on its first row alone: another size is another kernel
    lone      one row, on a machine that has nothing else to do
    row       batches of 8 rows, or single ones, in as many threads as the engine has runners

Runs of the engine and of the default take turns, so that whatever else the machine does hits both,
and the best of each counts.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from service.batching.batch import Run
from service.engines.choice import Trial
from service.models.selftest import SelfTestData
from service.signature import Tensors

_ROWS = 8
_PAIRS, _BUDGET_S = 10, 0.6
_LONGEST_BATCH_S = 0.5


@dataclass(frozen=True, slots=True)
class Subject:
    """An engine that is loaded. `runners`: runs at a time. `alone`: its run for a lone request."""

    run: Run
    runners: int
    alone: Run

    def together(self, threads: Executor, inputs: Tensors) -> None:
        """A run in each of its runners, at the same time."""
        for done in [threads.submit(self.run, inputs) for _ in range(self.runners)]:
            done.result()


@dataclass(frozen=True, slots=True)
class Accuracy:
    """As `Budget.objection` takes it. `each`: absolute, by output, of the whole self-test."""

    error: float = math.inf
    within_atol: bool = False
    changed: int | None = None
    each: dict[str, float] = field(default_factory=dict)


def accuracy(run: Run, test: SelfTestData, scores: str | None, *, by_rows: bool) -> Accuracy:
    """How far off an engine is on a self-test.

    Args:
        run: of the engine; may raise.
        test: its outputs are the truth, in float64 or as the graph has them.
        scores: the output whose largest column is the label; None without labels.
        by_rows: axis 0 counts rows, so that the first one may be asked alone.
    """
    asked = [test]
    if by_rows and any(len(array) > 1 for array in test.inputs.values()):
        inputs, outputs = (
            {name: array[:1] for name, array in each.items()}
            for each in (test.inputs, test.outputs)
        )
        asked.append(SelfTestData(inputs, outputs, test.atol))
    found = [_once(run, each, scores) for each in asked]
    changed = None if scores is None else found[0].changed
    worst = max(each.error if math.isfinite(each.error) else math.inf for each in found)
    return Accuracy(worst, all(each.within_atol for each in found), changed, found[0].each)


def _once(run: Run, test: SelfTestData, scores: str | None) -> Accuracy:
    got = run(test.inputs)
    worst, within, changed = 0.0, True, 0
    each = {}
    for name, truth in test.outputs.items():
        answer = got[name]
        if answer.shape != truth.shape:
            return Accuracy()
        if truth.dtype.kind != "f" and answer.dtype.kind != "f":
            if not np.array_equal(answer, truth):
                return Accuracy()
            each[name] = 0.0
            continue
        finite = np.isfinite(truth)
        expected = truth[finite].astype(np.float64)
        off = float(np.abs(answer[finite].astype(np.float64) - expected).max(initial=0.0))
        largest = float(np.abs(expected).max(initial=0.0))
        each[name] = off
        # NaN is no larger than anything: it must not pass for 0.
        worst = math.inf if math.isnan(off) else max(worst, _ratio(off, largest))
        within = within and off <= test.atol.get(name, 0.0)
        if name == scores and truth.ndim == 2:
            changed = int((answer.argmax(1) != truth.argmax(1)).sum())
    return Accuracy(worst, within, changed, each)


def timed(
    name: str,
    precision: str,
    how: Accuracy,
    subject: Subject,
    default: Subject,
    row: Tensors,
    *,
    batched: bool,
    note: str = "",
) -> Trial:
    """An engine's times, and the default's meanwhile.

    Args:
        name, precision, how, note: of the engine, for its line of the table.
        subject, default: the two that run in turn.
        row: inputs of one row, or all of them where rows are not counted.
        batched: whether rows may be joined.

    Raises:
        Exception: whatever a run raises.
    """
    lone, lone_default = _in_turn(lambda: subject.alone(row), lambda: default.alone(row))
    rows = _ROWS if batched and lone_default * _ROWS <= _LONGEST_BATCH_S else 1
    many = {key: np.repeat(array, rows, axis=0) for key, array in row.items()} if rows > 1 else row
    with (
        ThreadPoolExecutor(subject.runners) as threads,
        ThreadPoolExecutor(default.runners) as others,
    ):
        each, each_default = _in_turn(
            lambda: subject.together(threads, many), lambda: default.together(others, many)
        )
    each /= rows * subject.runners
    each_default /= rows * default.runners
    return Trial(
        name,
        precision,
        "",
        how.error,
        how.within_atol,
        how.changed,
        lone * 1000,
        each * 1000,
        lone / lone_default,
        each / each_default,
        note,
    )


def _in_turn(one: Callable[[], object], other: Callable[[], object]) -> tuple[float, float]:
    """Seconds of the fastest run of each."""
    one(), other()
    best = [math.inf, math.inf]
    end = time.perf_counter() + _BUDGET_S
    for pair in range(_PAIRS):
        for index, run in enumerate((one, other)):
            started = time.perf_counter()
            run()
            best[index] = min(best[index], time.perf_counter() - started)
        if pair and time.perf_counter() > end:
            break
    return best[0], best[1]


def _ratio(off: float, largest: float) -> float:
    return off / largest if largest else math.inf if off else 0.0
