"""Thread counts from affinity and cgroup quota, on made-up /proc and /sys trees."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from service.cpu import Cpus, available, cgroup_quota

V2 = "0::{path}\n"
V2_MOUNT = "30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"
V1 = "12:pids:/x\n4:cpu,cpuacct:{path}\n1:name=systemd:/x\n"
V1_MOUNT = "33 25 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"


def tree(root: Path, cgroup: str, mounts: str, files: dict[str, str]) -> Path:
    for name, text in {
        "proc/self/cgroup": cgroup,
        "proc/self/mountinfo": "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n" + mounts,
        **files,
    }.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.mark.parametrize(
    ("text", "quota"),
    [
        ("200000 100000\n", 2.0),
        ("150000 100000", 1.5),
        ("50000 100000", 0.5),
        ("max 100000\n", None),
        ("max", None),
        ("", None),
        ("0 100000", None),
        ("100000 0", None),
        ("-1 100000", None),
        ("garbage here", None),
    ],
)
def test_v2(tmp_path: Path, text: str, quota: float | None):
    root = tree(tmp_path, V2.format(path="/"), V2_MOUNT, {"sys/fs/cgroup/cpu.max": text})
    assert cgroup_quota(root) == quota


def test_v2_the_tightest_level_counts(tmp_path: Path):
    group = "sys/fs/cgroup/kubepods/pod1"
    files = {
        f"{group}/box/cpu.max": "400000 100000",
        f"{group}/cpu.max": "300000 100000",
        "sys/fs/cgroup/kubepods/cpu.max": "max 100000",
    }
    root = tree(tmp_path, V2.format(path="/kubepods/pod1/box"), V2_MOUNT, files)
    assert cgroup_quota(root) == 3.0


@pytest.mark.parametrize(
    ("quota", "period", "cpus"),
    [("250000", "100000", 2.5), ("-1", "100000", None), ("50000", "", None)],
)
def test_v1(tmp_path: Path, quota: str, period: str, cpus: float | None):
    group = "sys/fs/cgroup/cpu,cpuacct/docker/abc"
    files = {f"{group}/cpu.cfs_quota_us": f"{quota}\n", f"{group}/cpu.cfs_period_us": period}
    assert cgroup_quota(tree(tmp_path, V1.format(path="/docker/abc"), V1_MOUNT, files)) == cpus


def test_v1_in_a_container_that_sees_its_group_as_the_top(tmp_path: Path):
    """The path is the host's, the mount is the container's own."""
    top = "sys/fs/cgroup/cpu,cpuacct"
    files = {f"{top}/cpu.cfs_quota_us": "300000", f"{top}/cpu.cfs_period_us": "100000"}
    assert cgroup_quota(tree(tmp_path, V1.format(path="/docker/abc"), V1_MOUNT, files)) == 3.0


def test_a_quota_of_another_controller_or_hierarchy_does_not_count(tmp_path: Path):
    files = {"sys/fs/cgroup/cpu.max": "100000 100000"}
    assert cgroup_quota(tree(tmp_path, "7:memory:/\n", V2_MOUNT, files)) is None


def test_a_path_never_leaves_the_mount(tmp_path: Path):
    files = {"sys/fs/cgroup/cpu.max": "max 1", "sys/cpu.max": "100000 100000"}
    assert cgroup_quota(tree(tmp_path, V2.format(path="/../.."), V2_MOUNT, files)) is None


def test_no_proc_at_all(tmp_path: Path):
    assert cgroup_quota(tmp_path) is None


@pytest.mark.parametrize(
    ("affinity", "quota", "threads"),
    [(8, None, 8), (8, 2.0, 2), (2, 8.0, 2), (4, 1.5, 1), (4, 0.5, 1), (1, None, 1)],
)
def test_threads(affinity: int, quota: float | None, threads: int):
    assert Cpus(affinity, quota).threads == threads


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity masks here")
def test_affinity_is_the_process_own(tmp_path: Path):
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert available(tmp_path) == Cpus(1, None)
    finally:
        os.sched_setaffinity(0, before)
    assert available(tmp_path).affinity == len(before)


def test_says_both_limits():
    assert str(Cpus(4, 1.5)) == "CPU affinity 4, cgroup quota 1.5"
    assert "no cgroup quota" in str(Cpus(4, None))
