"""Compare how long two graphs take, in one run, in turn: the machine's moods hit both alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Event

import onnxruntime as ort

from converter.errors import UserError, first_line
from converter.evaluation.oracle import Feeds
from converter.proof.examples import random_feeds
from converter.sources.loaded import Input
from service.models import subnormals


@dataclass(frozen=True)
class Comparison:
    """Seconds for each run of A and of B, taken in turn, on batches of `batch` samples.

    `batch` is None where the graph fixes it.
    """

    batch: int | None
    a: tuple[float, ...]
    b: tuple[float, ...]

    @property
    def ratio(self) -> float:
        """How many times as fast B is as A: the median over the pairs."""
        return statistics.median(x / y for x, y in zip(self.a, self.b, strict=True))

    @property
    def spread(self) -> tuple[float, float]:
        """The quartiles of the pairs' ratios."""
        ratios = [x / y for x, y in zip(self.a, self.b, strict=True)]
        low, _, high = statistics.quantiles(ratios, n=4)
        return low, high


def compare(
    a: Path,
    b: Path,
    inputs: Sequence[Input],
    batches: Sequence[int | None],
    *,
    rounds: int = 30,
    threads: int = 0,
    progress: Callable[[str], None] = lambda _: None,
) -> list[Comparison]:
    """Run both files in onnxruntime with all of its optimisations, A B A B .., for each batch.

    They run in a thread of their own, in which subnormal numbers are computed as zero as in the
    service (service/models/subnormals.py), unless this process has made a session before.

    Args:
        a, b: ONNX files with the same inputs.
        inputs: how random inputs are drawn.
        batches: samples in a run, None for the size that the graph fixes.
        rounds: pairs that count, after three that do not; at least 2.
        threads: of each run; 0 leaves it to onnxruntime.
        progress: told what is being done.

    Raises:
        UserError: a file does not load, or does not run on these inputs.
    """
    stopped = Event()

    def measured() -> list[Comparison]:
        sessions = [_session(path, threads) for path in (a, b)]
        found: list[Comparison] = []
        for batch in batches:
            progress(f"batch {batch}" if batch else "the fixed batch")
            feeds = random_feeds(inputs, batch, seed=0)
            times: tuple[list[float], list[float]] = ([], [])
            for pair in range(rounds + 3):
                for path, session, taken in zip((a, b), sessions, times, strict=True):
                    seconds = _timed(session, feeds, path)
                    if pair >= 3:
                        taken.append(seconds)
                if stopped.is_set():
                    return found
            found.append(Comparison(batch, tuple(times[0]), tuple(times[1])))
        return found

    with ThreadPoolExecutor(1) as alone:
        running = alone.submit(measured)
        try:
            return running.result()
        finally:
            stopped.set()  # by Ctrl-C, too, it ends with the pair under way


def _session(path: Path, threads: int) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = threads
    options.add_session_config_entry(subnormals.OPTION, "1")
    try:
        return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise UserError(f"onnxruntime cannot load {path}: {first_line(error)}") from error


def _timed(session: ort.InferenceSession, feeds: Feeds, path: Path) -> float:
    start = time.perf_counter()
    try:
        session.run(None, feeds)
    except Exception as error:
        raise UserError(f"{path} does not run on random inputs: {first_line(error)}") from error
    return time.perf_counter() - start
