"""The stages of a request: sums that are known, and those of a service that is really asked."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from benchmarks.serving import client, models, profile
from benchmarks.serving.stages import RESET, STAGES, Stages


def exchange(start: float, rows: int = 4, **more: object) -> SimpleNamespace:
    """A request whose stages take 1, 2, 3, ... ms."""
    names = ("started", "read", "decoded", "free", "ran", "computed", "answered", "encoded")
    times, now = {}, start
    for step, name in enumerate((*names, "finished")):
        now += step / 1000
        times[name] = now
    return SimpleNamespace(**times, rows_in_batch=rows, **more)


def test_means_are_made_of_the_sums(tmp_path: Path) -> None:
    stages = Stages(tmp_path / "sums.json")
    stages(exchange(3.0), {})
    refused = SimpleNamespace(computed=0.0, encoded=0.0)
    stages(refused, {"query_string": RESET.encode()})  # what was before does not count
    stages(exchange(5.0), {})
    stages(exchange(7.0), {})
    stages.received_s, stages.ran_s = 0.001, 0.0005 * 2
    stages.close()
    sums = json.loads((tmp_path / "sums.json").read_text())
    found = profile.summed("a model", sums, 30_000.0, 9_000.0, 123.0)
    assert found.seen["parse"] == pytest.approx(500)
    assert found.seen["read"] == pytest.approx(1000)
    assert found.seen["decode"] == pytest.approx(2000)
    # 5 ms of a run shared by four rows; 0.5 ms of each share is onnxruntime's.
    assert found.seen["run"] + found.seen["batch"] == pytest.approx(5000)
    assert found.costs["run"] == pytest.approx(500)
    assert found.costs["batch"] == pytest.approx(750)
    assert found.costs["queue"] == found.costs["batch_wait"] == found.costs["back"] == 0
    assert found.seen["write"] == pytest.approx(8000)
    assert found.rows == 4
    assert found.rest == pytest.approx(9000 - 500 - 1000 - 2000 - 1250 - 7000 - 8000)


def test_what_entered_while_bytes_were_handed_over_is_not_counted_twice(tmp_path: Path) -> None:
    stages = Stages(tmp_path / "sums.json")
    stages(exchange(5.0, inside=True), {})
    stages.received_s = 0.004
    stages.close()
    found = profile.summed("a", json.loads((tmp_path / "sums.json").read_text()), 1, 1, 1)
    assert found.seen["parse"] == pytest.approx(1000)


def test_the_tables_name_every_stage_that_took_time() -> None:
    seen = {stage: float(position) for position, stage in enumerate(STAGES, 1)}
    one = profile.Profile("digits, json, 1", seen, seen, 60.0, 70.0, 1.0, 1000.0)
    text = profile.text([one, profile.Profile("resnet18, json, 8", *[seen] * 2, 60, 70, 1, 1000)])
    assert all(f"| {says} | " in text for says in STAGES.values())
    assert "| **inside the service** | 55 | 55 |" in text
    assert "| the rest | 15 |\n" in text


def test_the_service_is_asked_and_its_stages_are_told(tmp_path: Path) -> None:
    models._make("digits", tmp_path)
    digits = models._read(tmp_path / "digits", "digits")
    driver = SimpleNamespace(
        drive=lambda port, request, count, _: client.Python().drive(port, request, count, 0.3)
    )
    found = profile.profile(digits, "json", 2, 1, driver, tmp_path / "logs")
    assert found.rows >= 1
    assert all(found.seen[stage] > 0 for stage in ("parse", "decode", "run", "encode", "write"))
    assert found.total < 5e6
    assert found.cpu > 0
