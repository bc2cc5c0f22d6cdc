"""The programs that put the service under strain, for a moment each, on small models."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.serving import hostile, openloop, overload, poison, soak, subjects
from benchmarks.serving.openloop import Stream
from benchmarks.serving.target import Target, Usage, memory_trend, trend

pytestmark = pytest.mark.slow


def test_a_line_is_found_again_with_its_error():
    line = trend([0.0, 1.0, 2.0, 3.0], [5.0, 7.0, 9.0, 11.0])
    assert (line.slope, line.error) == (2.0, 0.0)
    assert line.rise == 6.0
    assert line.grows()
    assert not line.grows(6.0)
    noise = trend([0.0, 1.0, 2.0, 3.0], [1.0, -1.0, 1.0, -1.0])
    assert noise.slope == pytest.approx(-0.4)
    # Residuals 0.4, -1.2, 1.2, -0.4: sum of squares 3.2; Sxx 5.
    assert noise.error == pytest.approx((3.2 / 2 / 5) ** 0.5)
    assert not noise.grows()


def test_neighbours_that_are_alike_are_no_evidence_of_growth():
    """Slow waves: forty samples of each, of which a line through all is too sure."""
    waves = [100e6 + (5e6 if i // 40 % 2 else 0.0) for i in range(480)]
    seen = [Usage(i / 2, int(memory), 1, 1) for i, memory in enumerate(waves)]
    assert not memory_trend(seen, skip=0.0).grows(1.0)
    leak = [Usage(u.at, u.memory_bytes + i * 50_000, 1, 1) for i, u in enumerate(seen)]
    found = memory_trend(leak, skip=0.0)
    assert found.grows(1.0)
    assert found.slope == pytest.approx(6.0, abs=2.0)


def test_percentiles_are_values_that_were_measured():
    values = [float(i) for i in range(1, 101)]
    assert openloop.percentile(values, 0.5) == 50.0
    assert openloop.percentile(values, 0.99) == 99.0
    assert openloop.percentile([7.0], 0.99) == 7.0


def test_requests_leave_when_they_are_due_and_each_is_accounted_for(tmp_path: Path):
    subjects.publish(tmp_path / "models", "table", subjects.table())
    good = subjects.request("/models/table/predict", b'{"inputs": [1]}')
    bad = subjects.request("/models/table/predict", b'{"inputs": [999]}')
    names = tuple(subjects.written(tmp_path, str(i), r) for i, r in enumerate((good, bad)))
    with Target(tmp_path / "models") as target:
        found = openloop.run(target.port, [Stream("s", names, 100.0, 8)], 0.5)["s"]
    assert target.exit_code == 0
    assert 45 <= found.sent <= 50  # of the schedule, however busy the machine is
    assert found.unanswered == 0
    assert found.count(200) + found.count(422) == found.sent
    assert abs(found.count(200) - found.count(422)) <= 1


def test_overload_ends_in_answers_and_refusals_alone(tmp_path: Path):
    subjects.publish(tmp_path / "models", "residual", subjects.residual(size=32, width=8))
    subject = overload.Subject("residual", 1, (3, 32, 32), deadline_ms=60_000)
    row = overload.measure(subject, tmp_path / "models", tmp_path, 1.0, 4.0, 0.5)
    assert row.exit_code == 0
    assert row.log == ""
    assert row.health_failed == 0
    assert set(row.outcome.answers) <= {200, 503}
    assert row.outcome.unanswered == 0
    assert row.outcome.without_retry_after == 0
    assert row.outcome.count(200) > 0
    assert "| residual |" in overload.text([overload.record(row)])


@pytest.mark.parametrize("kind", ["index out of range (onnxruntime throws)", "cut body", "NaN"])
def test_poison_hurts_nobody_else(kind: str):
    (row,) = poison.measure(30, [kind])
    assert (row.failed, row.wrong) == (0, 0)
    assert sum(row.poison.values()) == 5
    assert "200" not in row.poison


def test_a_soak_with_reloads_has_no_wrong_answer(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(soak, "_SHARE", 0.2)
    row = soak.measure(0.06, 0.7, capacity_seconds=0.5)
    assert row.exit_code == 0
    assert row.log == ""
    assert row.wrong == []
    assert row.checked > 0
    assert set(row.outcome.answers) == {200}
    assert row.outcome.unanswered == 0
    assert "wrong | " in soak.text(soak.record(row)).replace("compared, ", "")


@pytest.mark.parametrize("attack", ["readers", "idle", "keyed_messages", "worker"])
def test_strangers_hold_no_more_than_the_budget(tmp_path: Path, attack: str):
    """Health's and good requests' times are left to a run on a quiet machine."""
    hostile.publish(tmp_path / "models")
    row = hostile.measure(attack, tmp_path / "models", tmp_path, 5.0)
    assert row.good > 0
    assert row.good_failed == []
    assert row.health_failed == []
    assert row.of_budget <= hostile.MOST
    assert row.held_after == 0
    assert (row.exit_code, row.log) == (0, "")
    assert row.what in hostile.text([hostile.record(row)])
