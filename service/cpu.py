"""How many threads this process may use: by CPU affinity and cgroup quota, not by the host's cores.
And how a thread gives way to the others.

threads = max(1, floor(min(size of the affinity mask, quota / period)))

A container limited to 2 CPUs on a host of 64 sees 64 cores; 64 threads under such a quota
spend most of their time throttled. The quota is the smallest one on the way from the
process's cgroup up to the root, in the hierarchy of cgroup v2 (cpu.max) or v1
(cpu.cfs_quota_us and cpu.cfs_period_us).
"""

from __future__ import annotations

import math
import os
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

# Weighs a third against a thread that has not given way (Linux, sched(7)).
_NICE_STEPS = 5


@dataclass(frozen=True, slots=True)
class Cpus:
    """`affinity`: CPUs of the mask. `quota`: CPUs' worth of time, None when unlimited."""

    affinity: int
    quota: float | None

    @property
    def threads(self) -> int:
        """A quota of 1.5 gives 1: a second thread would be throttled half of the time."""
        limit = self.affinity if self.quota is None else min(self.affinity, self.quota)
        return max(1, math.floor(limit))

    def __str__(self) -> str:
        quota = "no cgroup quota" if self.quota is None else f"cgroup quota {self.quota:g}"
        return f"CPU affinity {self.affinity}, {quota}"


def give_way() -> bool:
    """Let the other threads of the process go before the calling one, where the system can.

    Against other processes too: a scheduler that does not group them by session or by cgroup
    makes no difference between the two.
    """
    if not sys.platform.startswith("linux"):  # elsewhere a process has one priority
        return False
    thread = threading.get_native_id()
    with suppress(OSError):
        nice = os.getpriority(os.PRIO_PROCESS, thread)
        os.setpriority(os.PRIO_PROCESS, thread, nice + _NICE_STEPS)
        return True
    return False


def available(root: Path = Path("/")) -> Cpus:
    """What this process may use. `root` is where /proc and /sys are looked up."""
    if hasattr(os, "sched_getaffinity"):
        affinity = len(os.sched_getaffinity(0))
    else:  # macOS and Windows have no affinity mask to ask for
        affinity = os.cpu_count() or 1
    return Cpus(affinity, cgroup_quota(root))


def cgroup_quota(root: Path = Path("/")) -> float | None:
    """CPUs' worth of time that the process's cgroups allow, or None when they set no limit."""
    groups = _own_groups(_read(root / "proc/self/cgroup"))
    quotas = []
    for kind, mount in _mounts(_read(root / "proc/self/mountinfo")):
        if kind not in groups:
            continue
        top = root / mount.relative_to("/")
        parse = _v2_quota if kind == "v2" else _v1_quota
        # A container often sees its own group as the top of the mount while the path names
        # the host's hierarchy: folders that do not exist simply set no limit.
        group = PurePosixPath(groups[kind])
        for level in (group, *group.parents):
            quota = parse(top / level.relative_to("/"))
            if quota is not None:
                quotas.append(quota)
    return min(quotas, default=None)


def _own_groups(text: str) -> dict[str, str]:
    """/proc/self/cgroup: lines `id:controllers:path`; v2 has id 0 and no controllers."""
    groups = {}
    for line in text.splitlines():
        _, controllers, path = (*line.split(":", 2), "", "")[:3]
        if not path.startswith("/") or ".." in path:
            continue
        if not controllers:
            groups["v2"] = path
        elif "cpu" in controllers.split(","):
            groups["v1"] = path
    return groups


def _mounts(text: str) -> list[tuple[str, PurePosixPath]]:
    """/proc/self/mountinfo: `... mount-point options - fstype source super-options`."""
    found = []
    for line in text.splitlines():
        left, _, right = line.partition(" - ")
        fields, kind = left.split(), right.split()
        if len(fields) < 5 or not kind or not fields[4].startswith("/"):
            continue
        if kind[0] == "cgroup2":
            found.append(("v2", PurePosixPath(fields[4])))
        elif kind[0] == "cgroup" and "cpu" in kind[-1].split(","):
            found.append(("v1", PurePosixPath(fields[4])))
    return found


def _v2_quota(group: Path) -> float | None:
    """cpu.max: `quota period` in microseconds, or `max period`."""
    fields = _read(group / "cpu.max").split()
    return _ratio(*fields) if len(fields) == 2 else None


def _v1_quota(group: Path) -> float | None:
    """cpu.cfs_quota_us is -1 when there is no limit."""
    return _ratio(
        _read(group / "cpu.cfs_quota_us").strip(), _read(group / "cpu.cfs_period_us").strip()
    )


def _ratio(quota: str, period: str) -> float | None:
    if not (quota.isdecimal() and period.isdecimal()) or int(quota) == 0 or int(period) == 0:
        return None
    return int(quota) / int(period)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
