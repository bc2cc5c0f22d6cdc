"""Run a function in a process of its own with a time and a memory limit, its children included.

The processes are forked from one that has imported the libraries: torch and timm take longer to
start than a small network takes to be folded.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from multiprocessing import get_context
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

_POLL = 0.3  # seconds
_PAGE = os.sysconf("SC_PAGE_SIZE")
_TICKS = os.sysconf("SC_CLK_TCK")
# On a busy machine a process waits for others, which says nothing about it; not for ever.
CLOCK_FACTOR = 10
_FORKSERVER = get_context("forkserver")
_STARTING = threading.Lock()


@dataclass(frozen=True)
class Ended:
    """How a function ended: `limit` is "time", "memory" or "stop" if it was ended for that."""

    code: int
    output: str
    tail: str
    seconds: float
    peak: int
    limit: str = ""


def preload(module: str) -> None:
    """What the process that the others are forked from imports; before the first `run`.

    It must start no threads: a forked process has none of them, but the locks they held.
    """
    _FORKSERVER.set_forkserver_preload([module])


def run(
    function: Callable[..., object],
    arguments: Sequence[object] = (),
    *,
    seconds: float,
    memory: int,
    stopped: Callable[[], bool] = lambda: False,
) -> Ended:
    """Call `function` in a process group of its own, and end the group when it takes too much.

    Args:
        function: one that can be imported by name.
        seconds: of processors that it may take; of a clock, `CLOCK_FACTOR` times as many.
        memory: resident bytes that the whole group may hold; looked at several times a second,
            because a limit on addresses would stop torch, which reserves more than it uses.
        stopped: asked along the way; when it says so, the group is ended.
    """
    start = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="zoo-") as folder:
        out, err = Path(folder) / "out", Path(folder) / "err"
        process = _FORKSERVER.Process(
            target=_child, args=(str(out), str(err), function, *arguments), daemon=False
        )
        with _STARTING:  # looks at the other threads' processes, too
            process.start()
        group = process.pid
        assert group is not None
        peak, limit = 0, ""
        try:
            while not _ended(process) and not limit:
                held, used = resources(group)
                peak = max(peak, held)
                if peak > memory:
                    limit = "memory"
                elif stopped():
                    limit = "stop"
                elif used > seconds or time.perf_counter() - start > CLOCK_FACTOR * seconds:
                    limit = "time"
        finally:
            while not _ended(process, 0.0):
                _kill(group)
                time.sleep(0.01)
        code = process.exitcode
        output, tail = (p.read_text(errors="replace") if p.is_file() else "" for p in (out, err))
    return Ended(code or 0, output, tail[-1000:], time.perf_counter() - start, peak, limit)


def _ended(process: Any, timeout: float = _POLL) -> bool:
    """Whether it has, after `timeout` seconds at most."""
    wait([process.sentinel], timeout)
    with _STARTING:
        return process.exitcode is not None


def _kill(group: int) -> None:
    """End a group, or its first process where that has not made the group yet."""
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        with contextlib.suppress(ProcessLookupError):
            os.kill(group, signal.SIGKILL)


def _child(out: str, err: str, function: Callable[..., object], *arguments: object) -> None:
    os.setpgid(0, 0)  # no session of its own: it keeps its scheduling group, and its niceness
    for path, number in ((out, 1), (err, 2)):
        target = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(target, number)
        os.close(target)
    # Those of the process that this one was forked from may hold what it had not written.
    sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
    function(*arguments)
    sys.stdout.flush()


def main_of(module: str, words: Sequence[str]) -> None:
    """Call the `main` of a module, as a function that a process can begin with."""
    import_module(module).main(words)


def resources(group: int) -> tuple[int, float]:
    """Resident bytes and processor seconds of all processes of a process group."""
    held, ticks = 0, 0
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            # The name, in brackets, may hold spaces; after it come state, parent, group, ...
            fields = (entry / "stat").read_text(errors="replace").rpartition(")")[2].split()
        except OSError:  # it has ended meanwhile
            continue
        if int(fields[2]) == group:
            held += int(fields[21]) * _PAGE
            ticks += sum(map(int, fields[11:15]))  # its own, and those of its ended children
    return held, ticks / _TICKS
