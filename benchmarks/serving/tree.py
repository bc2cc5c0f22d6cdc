"""A process and all below it: what of the machine they have taken. Linux only."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path


def below(pid: int) -> list[int]:
    """The process and its descendants."""
    found, left = [], [pid]
    while left:
        each = left.pop()
        found.append(each)
        for task in Path(f"/proc/{each}/task").glob("*/children"):
            with suppress(OSError):
                left += map(int, task.read_text().split())
    return found


def name(pid: int) -> str:
    """As it calls itself, such as `ray::ProxyActor`."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0].decode(errors="replace")
    except OSError:
        return ""


def cpu_s(pid: int) -> float:
    """CPU time of one process; 0 when it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory_bytes(pid: int) -> int:
    """The proportional set size of one process; 0 when it is gone."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith("Pss:"))
