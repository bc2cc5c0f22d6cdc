"""How a model is run: from timings that are given here, and on real sessions."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import repository
from onnx import TensorProto, helper

from service import device
from service.batching import choose
from service.batching.choose import RunSettings, best_batch
from service.manifest import Manifest, TensorSpec
from service.models import bundle, model
from service.models.bundle import Rejected
from service.signature import Signature, Tensors

X = np.random.default_rng(3).standard_normal((3, 4)).astype(np.float32)
CPU = device.choose("cpu")


def signature(*shape: int | str, dynamic: bool = True) -> Signature:
    spec = TensorSpec(name="x", dtype="float32", shape=list(shape))
    out = TensorSpec(name="y", dtype="float32", shape=["batch", 2])
    return Signature.of(
        Manifest.model_construct(inputs=[spec], outputs=[out], dynamic_batch=dynamic)
    )


def double(inputs: Tensors) -> Tensors:
    return {"y": inputs["x"] * 2}


ONE = {"x": np.zeros((1, 2), np.float32)}


def chosen(monkeypatch, timings: dict[int, float], alone: float | None = None, **changes):
    """`running` as if the runs had taken `timings` (seconds by rows)."""

    def measure(run, example, sizes=tuple(timings)) -> dict[int, float]:
        if run is run_alone:
            return {1: alone}
        return {rows: timings[rows] for rows in sizes if rows in timings}

    def run_alone(inputs: Tensors) -> Tensors:
        return double(inputs)

    monkeypatch.setattr(choose, "measure", measure)
    monkeypatch.setattr(choose, "_SIZES", tuple(timings))
    arguments = {
        "settings": RunSettings(), "cpus": 4, "invariant": True, "on_cpu": True, "steady": True,
        "make_alone": None if alone is None else lambda: run_alone, **changes,
    }  # fmt: skip
    sign = arguments.pop("signature", signature("batch", 2))
    made, own = choose.running(double, sign, arguments.pop("example", ONE), **arguments)
    assert (own is run_alone) == (made.threads_alone > made.threads_per_run)
    return made


@pytest.mark.parametrize(
    ("measured_ms", "rows"),
    [
        ({1: 10.0}, 1),
        ({1: 10.0, 2: 20.0, 4: 40.0}, 1),  # nothing to gain
        ({1: 10.0, 2: 19.8, 4: 39.4}, 1),  # too little to gain
        ({1: 10.0, 2: 19.5, 4: 37.6}, 4),
        ({1: 10.0, 2: 12.0, 4: 16.0, 8: 24.0, 16: 47.0}, 8),
        ({1: 10.0, 2: 12.0, 4: 30.0}, 2),  # worse again
        ({1: 0.03, 2: 0.03, 4: 0.04, 8: 0.05, 16: 0.06, 32: 0.1}, 32),
    ],
)
def test_the_smallest_batch_that_is_about_as_cheap_as_the_best(measured_ms, rows: int):
    assert best_batch({b: ms / 1000 for b, ms in measured_ms.items()}) == rows


TINY = {1: 0.0001, 2: 0.0002, 4: 0.0004, 8: 0.0008, 16: 0.0016}
LARGE = {1: 0.02, 2: 0.022, 4: 0.026}


def test_a_tiny_model_runs_on_the_event_loop(monkeypatch):
    made = chosen(monkeypatch, TINY)
    assert (made.limits.inline_rows, made.limits.runners) == (8, 4)
    assert made.limits.row_s == min(s / rows for rows, s in made.measured_s.items())
    assert made.describe()["where"] == "event loop"


@pytest.mark.parametrize(
    "changes",
    [
        {"steady": False},
        {"on_cpu": False},
        {"settings": RunSettings(max_wait_s=0.001)},
        {"settings": RunSettings(runners=2)},
        {"signature": signature("batch", "time")},
        {"signature": signature(1, 2, dynamic=False)},
    ],
    ids=str,
)
def test_but_not_if_its_time_may_vary_or_the_operator_says_otherwise(monkeypatch, changes):
    assert chosen(monkeypatch, TINY, **changes).limits.inline_rows == 0


def test_who_asks_for_a_wait_gets_batches(monkeypatch):
    level = {1: 0.01, 2: 0.02, 4: 0.04}
    assert chosen(monkeypatch, level).limits.max_batch_rows == 1
    made = chosen(monkeypatch, level, settings=RunSettings(max_wait_s=0.001))
    assert made.limits.max_batch_rows == 4
    made = chosen(monkeypatch, level, settings=RunSettings(max_wait_s=0.001, max_batch_rows=2))
    assert made.limits.max_batch_rows == 2


def test_a_large_model_has_a_runner_for_each_cpu(monkeypatch):
    made = chosen(monkeypatch, LARGE)
    assert (made.limits.runners, made.threads_per_run, made.threads_alone) == (4, 1, 1)
    assert made.limits.max_batch_rows == 4
    assert made.limits.inline_rows == 0
    assert made.describe()["where"] == "runners"
    made = chosen(monkeypatch, LARGE, settings=RunSettings(threads=2))
    assert (made.limits.runners, made.threads_per_run) == (2, 2)
    made = chosen(monkeypatch, LARGE, settings=RunSettings(threads=9, runners=3))
    assert (made.limits.runners, made.threads_per_run) == (3, 9)
    assert chosen(monkeypatch, LARGE, on_cpu=False).limits.runners == 1


def test_a_lone_request_gets_all_threads_where_that_helps(monkeypatch):
    assert chosen(monkeypatch, LARGE, alone=0.009).threads_alone == 4
    assert chosen(monkeypatch, LARGE, alone=0.019).threads_alone == 1
    two = RunSettings(threads=2)
    assert chosen(monkeypatch, LARGE, alone=0.009, settings=two).threads_alone == 2
    assert chosen(monkeypatch, TINY, alone=0.00001).threads_alone == 1


def test_the_operators_batch_size_wins(monkeypatch):
    for rows in (64, 1):
        made = chosen(monkeypatch, LARGE, settings=RunSettings(max_batch_rows=rows))
        assert made.limits.max_batch_rows == rows


def scalar(inputs: Tensors) -> Tensors:
    return {"y": np.float32(1).reshape(())}


def picky(inputs: Tensors) -> Tensors:
    if len(inputs["x"]) > 1:
        raise RuntimeError
    return double(inputs)


@pytest.mark.parametrize(
    ("run", "changes", "why"),
    [
        (double, {"signature": signature(1, 2, dynamic=False)}, "open batch axis"),
        (double, {"invariant": None}, "no proof"),
        (double, {"invariant": False}, "does not say batch_invariant"),
        (double, {"example": None}, "no example"),
        (scalar, {}, "output 'y' has shape () for a batch of 3 rows"),
        (lambda i: {"y": i["x"][:1]}, {}, "output 'y' has shape (1, 2) for a batch of 3 rows"),
        (picky, {}, "three rows failed where one worked (RuntimeError)"),
    ],
)
@pytest.mark.parametrize("settings", [RunSettings(), RunSettings(max_batch_rows=8)], ids=str)
def test_what_is_never_batched_and_why(run: Callable, changes, why: str, settings: RunSettings):
    arguments = {"invariant": True, "signature": signature("batch", 2), "example": ONE, **changes}
    sign, example = arguments.pop("signature"), arguments.pop("example")
    made, _ = choose.running(
        run, sign, example, settings=settings, cpus=2, on_cpu=True, steady=True, make_alone=None,
        **arguments,
    )  # fmt: skip
    assert made.limits.max_batch_rows == 1
    assert why in made.why[0]


def test_measuring_is_bounded_and_stops_where_a_size_fails():
    now = [0.0]

    def run(inputs: Tensors) -> Tensors:
        rows = len(inputs["x"])
        if rows > 4:
            raise MemoryError
        return double(inputs)

    assert set(choose.measure(run, ONE)) == {1, 2, 4}
    ran: list[int] = []

    def slow(inputs: Tensors) -> Tensors:
        ran.append(len(inputs["x"]))
        now[0] += 0.09 * len(inputs["x"])
        return inputs

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "perf_counter", lambda: now[0])
        assert choose.measure(slow, ONE) == {1: pytest.approx(0.09)}
    assert ran == [1, 1]


# --- on real sessions -------------------------------------------------------------------


def load(folder: Path, **changes) -> model.ServedModel:
    name, version = folder.parent.name, int(folder.name)
    arguments = {"choice": CPU, "threads": 2, "capacity_samples": 64, **changes}
    served = model.load(folder, name, version, **arguments)
    assert served.batcher.close(60)
    return served


def test_a_real_model_is_measured_and_says_what_was_chosen(tmp_path: Path):
    folder = repository.publish(
        tmp_path, "m", repository.linear(), test={"x": X}, batch_invariant=True
    )
    running = load(folder).describe()["running"]
    assert set(running) == {
        "where", "runners", "threads_per_run", "threads_alone", "max_batch_size", "max_wait_us",
        "measured_ms", "why",
    }  # fmt: skip
    assert running["where"] == "event loop"
    assert running["max_batch_size"] > 1
    assert float(running["measured_ms"]["1"]) > 0
    running = load(repository.bare(tmp_path, "bare", repository.linear())).describe()["running"]
    assert running["max_batch_size"] == 1


def test_a_model_with_a_loop_in_it_stays_off_the_event_loop(tmp_path: Path):
    slow = repository.bare(tmp_path, "slow", repository.slow(1, size=2))
    plain = repository.bare(tmp_path, "plain", repository.linear())
    assert bundle.has_node(slow / "model.onnx", bundle.CONTROL_FLOW)
    assert not bundle.has_node(plain / "model.onnx", bundle.CONTROL_FLOW)
    assert load(slow).running.limits.inline_rows == 0
    assert load(plain).running.limits.inline_rows > 0


def test_the_manifest_wins_over_the_settings(tmp_path: Path):
    folder = repository.publish(
        tmp_path, "m", repository.linear(), batch_invariant=True,
        serving={"max_batch_size": 3, "max_wait_us": 500, "runners": 2, "threads": 1,
                 "queue_capacity_samples": 5},
    )  # fmt: skip
    served = load(
        folder, settings=RunSettings(runners=1, threads=2, max_batch_rows=9, max_wait_s=0.0)
    )
    running = served.describe()["running"]
    assert (running["max_batch_size"], running["max_wait_us"], running["runners"]) == (3, 500, 2)
    assert running["threads_per_run"] == 1
    assert served.batcher.capacity_samples == 5


@pytest.mark.parametrize(
    ("serving", "why"),
    [
        ({"max_batch": 3}, "serving.max_batch"),
        ({"max_batch_size": 0}, "serving.max_batch_size"),
        ({"max_wait_us": -1}, "serving.max_wait_us"),
        ({"threads": "many"}, "serving.threads"),
        ({"version_policy": "newest"}, "serving.version_policy"),
        ({"max_batch_size": 2}, "without batch_invariant"),
    ],
    ids=str,
)
def test_serving_that_cannot_be_is_refused(tmp_path: Path, serving, why: str):
    folder = repository.publish(tmp_path, "m", repository.linear(), serving=serving)
    with pytest.raises(Rejected, match=why):
        load(folder)


def test_an_output_that_is_no_batch_is_found_at_load(tmp_path: Path):
    """The graph says (batch, 2), and it is the sum of all rows."""
    total = repository.graph(
        [helper.make_node("ReduceSum", ["x", "axis"], ["y"], keepdims=1)],
        [repository.value("x", TensorProto.FLOAT, ["batch", 2])],
        [repository.value("y", TensorProto.FLOAT, ["other", 2])],
        {"axis": np.array([0], np.int64)},
    )
    folder = repository.publish(tmp_path, "m", total, batch_invariant=True)
    running = load(folder).describe()["running"]
    assert running["max_batch_size"] == 1
    assert "output 'y' has shape (1, 2) for a batch of 3 rows" in running["why"][0]
