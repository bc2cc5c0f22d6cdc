"""The queueing simulation against formulas."""

from __future__ import annotations

import math
from statistics import fmean

import pytest

from benchmarks.serving.queueing import Curve, p99_s, replicas_for, simulate

FIXED = Curve({1: 0.010}, max_batch_rows=1)


@pytest.mark.parametrize("load", [0.3, 0.6, 0.8])
def test_without_batches_it_is_the_queue_of_pollaczek_and_khinchine(load: float):
    took = simulate(FIXED, 1, load / 0.010, requests=100_000)
    wait = fmean(took) - 0.010
    assert wait == pytest.approx(load * 0.010 / (2 * (1 - load)), rel=0.08)


def test_an_idle_server_takes_the_run_and_the_way():
    curve = Curve({1: 0.010}, 1, handling_s=0.002, proxy_s=0.001, rest_s=(0.003,))
    took = simulate(curve, 2, 0.1, requests=500)
    assert took[len(took) // 2] == pytest.approx(0.016)


def test_the_curve_is_straight_between_sizes_and_beyond_the_last():
    curve = Curve({1: 0.010, 4: 0.016, 8: 0.020}, 16)
    assert curve.run_s(1) == 0.010
    assert curve.run_s(2) == pytest.approx(0.012)
    assert curve.run_s(8) == pytest.approx(0.020)
    assert curve.run_s(16) == pytest.approx(0.028)
    assert curve.capacity == pytest.approx(16 / 0.028)


def test_batches_carry_a_rate_that_single_runs_do_not():
    assert p99_s(FIXED, 1, 150) == math.inf
    batching = Curve({1: 0.010, 8: 0.017}, 8)
    assert p99_s(batching, 1, 150, 5000) < 0.060


def test_the_proxy_is_a_queue_of_its_own():
    assert p99_s(Curve({1: 0.001}, 1, proxy_s=0.01), 50, 120) == math.inf


def test_two_choices_are_better_than_halves():
    """Two replicas share their queue nearly: better than two alone, each with half."""
    assert p99_s(FIXED, 2, 160) < p99_s(FIXED, 1, 80)


def test_the_number_found_is_the_least_that_keeps_the_goal():
    found = replicas_for(FIXED, 500, 0.030)
    assert found is not None
    assert p99_s(FIXED, found, 500) <= 0.030 < p99_s(FIXED, found - 1, 500)
    assert replicas_for(FIXED, 500, 0.005) is None
    assert FIXED.lone_s(0.99) == 0.010
