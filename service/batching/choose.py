"""How a model's requests are run, chosen from what its warm-up measures.

    event loop   a run is shorter than the way to a thread and back, and always takes the same;
                 what one turn of the loop brings beyond 0.25 ms of work is shared by the runners
    runners      N threads share one session of one thread each: the most answers per second
    one runner   all threads in each run: CUDA, or --threads says so

t(b) is the fastest of a few runs on b rows; the overhead h is what a run costs besides.

    max_batch_rows  the smallest b with (t(b) + h) / b <= 1.03 * min over all b measured
    inline_rows     the largest b with t(b) <= 1 ms, provided t(1) is short enough
    alone           a second session that uses all threads, for a request that has the machine to
                    itself, if it takes at most 0.85 t(1) there and the weights are not large

Measured on two cores, a ResNet-18: 69 requests/s by two runners of one thread, 60 by one runner
of two in batches of 8, 64 by two runners that share two threads; a lone request took 1.2 times as
long on one thread as on two. A row took 22.7 ms of a core by itself, 21.4 in batches of 4. Small
gains like this are taken: what the fifth of a second of the warm-up has no time for is no choice,
so no batch is longer than that.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from service.batching.batch import Run
from service.batching.limits import Limits
from service.signature import Signature, Tensors

_SIZES = (1, 2, 4, 8, 16, 32)
_ROUNDS = 3
_BUDGET_S = 0.2
_GOOD_ENOUGH = 1.03
_OVERHEAD_S = 50e-6
_INLINE_S = 0.25e-3
_INLINE_BATCH_S = 1e-3
_ALONE_GAIN = 0.85


@dataclass(frozen=True, slots=True)
class RunSettings:
    """How the operator wants a model to be run; None leaves it to the measurement.

    `runners`: threads that run the model, which then never runs on the event loop. `threads`: of
    each run.
    """

    runners: int | None = None
    threads: int | None = None
    max_batch_rows: int | None = None
    max_wait_s: float = 0.0

    @property
    def threads_per_run(self) -> int:
        return self.threads or 1


@dataclass(frozen=True, slots=True)
class Running:
    """The choice, for GET /models/<name>; `measured_s` is {rows: t(rows)}."""

    limits: Limits
    threads_per_run: int
    threads_alone: int
    measured_s: dict[int, float] = field(default_factory=dict)
    why: tuple[str, ...] = ()

    def describe(self) -> dict[str, Any]:
        """Plain JSON types."""
        limits = self.limits
        inline = limits.inline_rows > 0
        return {
            "where": "event loop" if inline else "runners" if limits.runners > 1 else "one runner",
            "runners": limits.runners,
            "threads_per_run": self.threads_per_run,
            "threads_alone": self.threads_alone,
            "max_batch_size": limits.max_batch_rows,
            "max_wait_us": round(limits.max_wait_s * 1e6),
            "measured_ms": {str(rows): s * 1000 for rows, s in self.measured_s.items()},
            "why": list(self.why),
        }


def measure(run: Run, example: Tensors, sizes: tuple[int, ...] = _SIZES) -> dict[int, float]:
    """t(b) in seconds for as many of `sizes`, in turn, as a fifth of a second allows.

    Args:
        run: may raise; sizes from there on are left out.
        example: one row of each input.
    """
    fastest: dict[int, float] = {}
    end = time.perf_counter() + _BUDGET_S
    batches: dict[int, Tensors] = {}
    for round_ in range(_ROUNDS):
        for rows in sizes if round_ == 0 else tuple(fastest):
            # Twice the rows take at most about twice the time: stop before it is too long.
            expected = fastest.get(rows, 2 * max(fastest.values(), default=0.0))
            if fastest and time.perf_counter() + expected > end:
                break
            if rows not in batches:
                batches[rows] = {k: np.repeat(a, rows, axis=0) for k, a in example.items()}
            try:
                took = _timed(run, batches[rows])
            except Exception:  # noqa: BLE001  whatever it is, this size cannot be used
                return {b: s for b, s in fastest.items() if b < rows}
            fastest[rows] = min(took, fastest.get(rows, took))
    return fastest


def _timed(run: Run, inputs: Tensors) -> float:
    started = time.perf_counter()
    run(inputs)
    return time.perf_counter() - started


def best_batch(measured_s: dict[int, float]) -> int:
    """The smallest number of rows that is about as cheap by the row as the best."""
    cost = {rows: (s + _OVERHEAD_S) / rows for rows, s in measured_s.items()}
    limit = _GOOD_ENOUGH * min(cost.values())
    return min(rows for rows, c in cost.items() if c <= limit)


def why_not_batched(
    run: Run, signature: Signature, invariant: bool | None, example: Tensors | None
) -> str:
    """Why the rows of different requests must not be joined; empty when they may be.

    Args:
        invariant: what the manifest says of it; None for a model that came without one.
        example: one row, None when none is known.
    """
    if not signature.batched:
        return "not batched: not all of its inputs and outputs have an open batch axis"
    if invariant is None:
        return "not batched: a model without model.json has no proof that rows are independent"
    if not invariant:
        return "not batched: model.json does not say batch_invariant"
    if example is None:
        return "not batched: no example to try it on"
    try:
        outputs = run({name: np.repeat(array, 3, axis=0) for name, array in example.items()})
    except Exception as error:  # noqa: BLE001  whatever it is, it cannot be batched
        return f"not batched: three rows failed where one worked ({type(error).__name__})"
    for name, array in outputs.items():
        if array.ndim == 0 or len(array) != 3:
            return f"not batched: output {name!r} has shape {array.shape} for a batch of 3 rows"
    return ""


def running(
    run: Run,
    signature: Signature,
    example: Tensors | None,
    *,
    settings: RunSettings,
    cpus: int,
    invariant: bool | None,
    on_cpu: bool,
    steady: bool,
    make_alone: Callable[[], Run] | None,
) -> tuple[Running, Run | None]:
    """The choice, and the run for requests that are alone, if one was made and is faster.

    Args:
        run: of a session with `settings.threads_per_run` threads.
        settings: of the operator.
        invariant: see `why_not_batched`.
        cpus: how many may be busy at a time.
        steady: the time of a run depends on the shapes alone.
        make_alone: makes a session of `cpus` threads, None where that is out of question.
    """
    runners = settings.runners or (max(1, cpus // settings.threads_per_run) if on_cpu else 1)
    one_shape = _one_shape(signature)
    obstacle = why_not_batched(run, signature, invariant, example)
    why = [obstacle] if obstacle else []
    if example is None:
        limits = Limits(runners=runners, one_shape=one_shape)
        threads = settings.threads_per_run
        return Running(limits, threads, threads, {}, tuple(why)), None

    measured = measure(run, example, (1,) if obstacle else _SIZES)
    if not measured:
        measured = {1: _timed(run, example)}
    if obstacle:
        batch = 1
    elif settings.max_batch_rows is not None:
        batch = settings.max_batch_rows
    else:
        batch = best_batch(measured)
        if batch == 1 and settings.max_wait_s:
            batch = max(measured)
            why.append("batched as max_wait_us asks, though it measured no faster by the row")
        elif batch == 1:
            why.append("not batched: it measured no faster by the row in batches")

    inline = 0
    free = not (settings.runners or settings.max_wait_s)
    if free and on_cpu and one_shape and steady and signature.batched:
        fitting = [rows for rows, s in measured.items() if s <= _INLINE_BATCH_S]
        if measured[1] <= _INLINE_S:
            inline = max(fitting, default=0)
            why.append("on the event loop: a run is shorter than the way to a thread and back")

    alone: Run | None = None
    if not inline and make_alone is not None and settings.threads is None and cpus > 1:
        candidate = make_alone()
        took = min(measure(candidate, example, (1,)).values(), default=float("inf"))
        if took <= _ALONE_GAIN * measured[1]:
            alone = candidate
            why.append(f"a lone request takes {took / measured[1]:.2f} of the time on all threads")
    row_s = min(s / rows for rows, s in measured.items())
    limits = Limits(runners, batch, settings.max_wait_s, inline, row_s, one_shape)
    threads_alone = cpus if alone else settings.threads_per_run
    return Running(limits, settings.threads_per_run, threads_alone, measured, tuple(why)), alone


def _one_shape(signature: Signature) -> bool:
    specs = signature.inputs.values()
    return all(isinstance(dim, int) for spec in specs for dim in spec.shape[1:])
