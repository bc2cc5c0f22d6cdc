"""What is written about Ray from what was measured; the measuring itself needs a quiet machine."""

from __future__ import annotations

import os
from dataclasses import asdict

import pytest

from benchmarks.serving import capacity, cluster, tree
from benchmarks.serving.capacity import Check
from benchmarks.serving.queueing import Curve


def test_the_table_compares_medians_with_the_plain_server_of_as_many_processes():
    runs = [
        cluster.Run(server, "digits", connections, number, per_s, p50, 9.0, 0.5, 100.0)
        for server, per_s, p50 in (
            ("plain", 1000.0, 1.0), ("Ray, 1 replica", 250.0, 3.5),
            ("plain, 2 workers", 2000.0, 1.0), ("Ray, 2 replicas", 400.0, 3.0),
        )
        for connections in cluster.CONNECTIONS
        for number in range(3)
    ]  # fmt: skip
    made = cluster.text(runs, 3, 3, 2)
    assert "| digits | Ray, 1 replica | 3.50 | 9.00 | 250 | 0.25 |" in made
    assert "| digits | Ray, 2 replicas | 3.00 | 9.00 | 400 | 0.20 |" in made
    assert "| digits | plain | 1.00 | 9.00 | 1000 |  |" in made
    assert "Ray adds 2.50 ms (digits)" in made


def test_the_capacity_is_told_with_its_checks_and_read_again(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(capacity, "RATES", (10,))
    curve = Curve({1: 0.030, 2: 0.055}, 2, 0.002, 0.001, [0.001, 0.003])
    checks = [Check(1, 0.5, 15.0, 40.0, 90.0, 41.0, 88.0, 0)]
    found = {"curve": asdict(curve), "checks": [asdict(c) for c in checks], "seconds": 5,
             "cores": 2, "size": 224}  # fmt: skip
    found["curve"]["batch_s"] = {str(n): s for n, s in curve.batch_s.items()}  # as JSON has it
    made = capacity.text(found)
    assert capacity.load_curve(found["curve"]) == curve
    assert "| 1 | 50% | 15 | 40 | 41 | 90 | 88 | 0 |" in made
    assert "runs 30.0 ms for 1, 55.0 ms for 2 rows" in made


def test_a_process_is_in_its_own_tree_and_has_used_time():
    assert os.getpid() in tree.below(os.getpid())
    assert tree.cpu_s(os.getpid()) > 0
    assert tree.memory_bytes(os.getpid()) > 1_000_000
