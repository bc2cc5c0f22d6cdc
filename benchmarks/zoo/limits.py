"""Run a command with a time and a memory limit, its children included."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_POLL = 0.5  # seconds
_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Ended:
    """How a command ended: `limit` is "time", "memory" or "stop" if it was ended for that."""

    code: int
    output: str
    tail: str
    seconds: float
    peak: int
    limit: str = ""


def run(
    command: Sequence[str],
    *,
    seconds: float,
    memory: int,
    environment: Mapping[str, str] | None = None,
    stopped: Callable[[], bool] = lambda: False,
) -> Ended:
    """Run `command` in a process group of its own, and end the group when it takes too much.

    Args:
        seconds: wall-clock time that it may take.
        memory: resident bytes that the whole group may hold; looked at a few times a second,
            because a limit on addresses would stop torch, which reserves more than it uses.
        environment: added to this process's.
        stopped: asked along the way; when it says so, the group is ended.
    """
    start = time.perf_counter()
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            env={**os.environ, **(environment or {})},
            start_new_session=True,
        )
        peak, limit = 0, ""
        try:
            while process.poll() is None and not limit:
                peak = max(peak, resident(process.pid))
                if peak > memory:
                    limit = "memory"
                elif stopped():
                    limit = "stop"
                elif time.perf_counter() - start > seconds:
                    limit = "time"
                else:
                    time.sleep(_POLL)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            code = process.wait()
        out.seek(0)
        err.seek(0)
        output, tail = out.read().decode(errors="replace"), err.read().decode(errors="replace")
    return Ended(code, output, tail[-1000:], time.perf_counter() - start, peak, limit)


def resident(group: int) -> int:
    """Resident bytes of all processes of a process group."""
    total = 0
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            # The name, in brackets, may hold spaces; after it come state, parent, group, ...
            fields = (entry / "stat").read_text(errors="replace").rpartition(")")[2].split()
        except OSError:  # it has ended meanwhile
            continue
        if int(fields[2]) == group:
            total += int(fields[21]) * _PAGE
    return total
