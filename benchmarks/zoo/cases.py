"""Cases some at a time, each stage of a case in a process of its own: what every long run shares.

The processes are forked from one that has imported what they need (`limits.py`). An interrupt ends
what is running; the rows that are there stay, and the same command goes on from them.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from rich.console import Console

from benchmarks.zoo import limits, results
from benchmarks.zoo.progress import Listener
from benchmarks.zoo.results import Row
from converter.report.progress import Live

ROOT = Path(__file__).parents[2]
INTERRUPTED = 130  # the exit code

T = TypeVar("T")


class StoppedError(Exception):
    """The run was interrupted; what was being measured is left for the next one."""


class Printed(NamedTuple):
    """What a stage printed as its last line of JSON, and the end of what it wrote as errors.

    `failure`: a class and a sentence, if it printed none.
    """

    found: dict[str, Any]
    failure: tuple[str, str] | None
    errors: str


def prepare(jobs: int, preload: str) -> None:
    """Set up the process that the stages are forked from, which the first of them starts.

    Args:
        jobs: cases at a time, which share the processors.
        preload: the module that it imports.
    """
    os.environ["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 1) // jobs))
    os.environ["PYTHONWARNINGS"] = "ignore"
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    limits.preload(preload)


def run(
    work: Iterable[T],
    measure: Callable[[T, threading.Event], Row],
    keep: Callable[[Row], object],
    *,
    jobs: int,
    budget: float,
    listener: Listener,
) -> list[Row]:
    """Measure the cases in order; returns the rows, in the order in which they came.

    Args:
        work: the cases.
        measure: a case, and the event that ends it early, to its row.
        keep: told of each row as it comes, such as to append it to a file.
        jobs: cases at a time.
        budget: seconds after which no further case is started.
        listener: told of the progress.
    """
    begin, rows = time.monotonic(), []
    waiting, stop = list(work), threading.Event()
    listener.start(len(waiting))
    with ThreadPoolExecutor(jobs) as pool:
        busy: set[Future[Row]] = set()
        try:
            while waiting or busy:
                if waiting and time.monotonic() - begin > budget:
                    left = f"{len(waiting)} {listener.rows} were not started"
                    listener.say(f"the time is up, {left}")
                    waiting = []
                while waiting and len(busy) < jobs:
                    busy.add(pool.submit(measure, waiting.pop(0), stop))
                finished, busy = wait(busy, return_when=FIRST_COMPLETED)
                for future in finished:
                    rows.append(future.result())
                    keep(rows[-1])
                    listener.row(rows[-1])
        finally:
            stop.set()
    return rows


def stage(
    module: str, words: Sequence[str], seconds: float, memory: int, stop: threading.Event
) -> Printed:
    """Call the `main` of a module in a process of its own, within limits.

    Args:
        module: has a `main` that takes the words.
        words: the name of the stage first.
        seconds, memory: see `limits.run`.
        stop: ends it early.

    Raises:
        StoppedError: `stop` was set meanwhile.
    """
    name = words[0]
    ended = limits.run(
        limits.main_of,
        [module, list(words)],
        seconds=seconds,
        memory=memory,
        stopped=stop.is_set,
    )
    if ended.limit == "stop":
        raise StoppedError(name)
    failure = None
    if ended.limit == "time":
        failure = "Timeout", f"{name} took longer than {seconds:.0f} s"
    elif ended.limit == "memory":
        failure = "OutOfMemory", f"{name} took more than {memory / 1e9:.1f} GB"
    else:
        try:
            found = json.loads(ended.output.rstrip().splitlines()[-1])
            assert isinstance(found, dict)
            return Printed(found, None, ended.tail)
        except (IndexError, ValueError, AssertionError):
            last = (ended.tail.strip() or ended.output.strip()).splitlines()[-1:] or [""]
            failure = "Crash", f"{name} ended with {ended.code}: {last[0][:200]}"
    return Printed({}, failure, ended.tail)


def wanted(name: str, patterns: Sequence[str]) -> bool:
    """Whether a case is asked for by its name; without patterns all are."""
    return not patterns or any(fnmatchcase(name, pattern) for pattern in patterns)


def interruptible(
    console: Console, rows_file: Path, go: Callable[[Live], list[Row]]
) -> list[Row] | None:
    """What `go` gives; None if it was interrupted, by Ctrl-C or by SIGTERM."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with Live(console) as live:
            return go(live)
    except KeyboardInterrupt:
        console.print("interrupted; the same command goes on from here")
        return None
    finally:
        results.compact(rows_file)


def arguments(
    program: str,
    description: str | None,
    rows: str,
    *,
    example: str,
    seconds: float,
    gigabytes: float,
) -> argparse.ArgumentParser:
    """A parser with the options of every long run.

    Args:
        program, description: for its help.
        rows: what a case is called, in the plural.
        example: of a pattern of names.
        seconds, gigabytes: the default limits of a stage.
    """
    parser = argparse.ArgumentParser(
        prog=program,
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--only", action="append", default=[], metavar="PATTERN", help=f"names such as {example}")
    add("--limit", type=int, metavar="N", help=f"at most so many {rows}")
    add("--jobs", type=int, default=1, metavar="N", help=f"{rows} at a time (default: 1)")
    add("--time-budget", type=float, default=float("inf"), metavar="MINUTES")
    add("--redo", action="store_true", help="also what is done with this source")
    add("--retry", action="store_true", help="also what failed with this source")
    limit = f"of processors for a stage (default: {seconds:g})"
    add("--seconds", type=float, default=seconds, help=limit)
    limit = f"memory for a stage (default: {gigabytes:g})"
    add("--gigabytes", type=float, default=gigabytes, help=limit)
    return parser
