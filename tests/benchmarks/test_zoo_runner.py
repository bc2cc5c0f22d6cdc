"""Running the zoo: limits, what is kept, what is skipped, where a stopped run goes on."""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks.zoo import engine, limits, results, runner
from benchmarks.zoo.catalogue import Architecture
from benchmarks.zoo.progress import Listener


@pytest.fixture
def settings(tmp_path: Path) -> runner.Settings:
    return runner.Settings(
        results=tmp_path / "rows.jsonl",
        cache=tmp_path / "cache",
        seconds=20.0,
        memory=10**9,
        peers=(),
        stages="tests.benchmarks.light_stages",
    )


def nets(*names: str) -> list[Architecture]:
    return [Architecture(f"test:{name}", "test", 2, 1000) for name in names]


def run(settings: runner.Settings, *names: str) -> list[results.Row]:
    settings.cache.mkdir(parents=True, exist_ok=True)
    return runner.run(nets(*names), settings, Listener(Console(quiet=True)))


def started(settings: runner.Settings) -> list[str]:
    lines = (settings.cache / "started").read_text().splitlines()
    return [line.rstrip() for line in lines]


def test_a_row_has_what_the_stages_said(settings: runner.Settings) -> None:
    (row,) = run(settings, "ok")
    assert row["status"] == "ok"
    assert (row["batchnorms"], row["left"], row["verdict"]) == (2, 1, "proven")
    assert row["engine"] == engine.version()
    assert results.read(settings.results) == {"test:ok": row}


def test_failures_are_rows(settings: runner.Settings) -> None:
    rows = run(settings, "unexportable", "crash")
    assert [(row["status"], row["error"]["class"]) for row in rows] == [
        ("not exported", "TypeError"),
        ("not folded", "Crash"),
    ]
    assert "out of luck" in rows[1]["error"]["sentence"]


def test_a_stage_that_takes_too_long_is_ended(settings: runner.Settings) -> None:
    (row,) = run(replace(settings, seconds=2.0), "slow")
    assert (row["status"], row["error"]["class"]) == ("not folded", "Timeout")


def test_a_stage_that_takes_too_much_memory_is_ended(settings: runner.Settings) -> None:
    (row,) = run(replace(settings, memory=200_000_000), "large")
    assert (row["status"], row["error"]["class"]) == ("not folded", "OutOfMemory")


def test_an_export_is_used_again(settings: runner.Settings) -> None:
    run(settings, "ok")
    run(settings, "ok")
    assert started(settings) == ["export test:ok", "fold test:ok", "fold test:ok"]


def test_an_export_is_dropped_when_too_much_is_kept(settings: runner.Settings) -> None:
    run(replace(settings, cache_bytes=1500), "ok", "other")
    kept = [path.parent.name for path in settings.cache.rglob("model.onnx")]
    assert kept == ["test-ok"]


def test_nothing_is_started_after_the_time_is_up(settings: runner.Settings) -> None:
    assert run(replace(settings, budget=-1.0), "ok", "other") == []


def test_several_at_a_time(settings: runner.Settings) -> None:
    rows = run(replace(settings, jobs=2), "ok", "other", "third")
    assert {row["name"] for row in rows} == {"test:ok", "test:other", "test:third"}


def test_preparing_writes_no_rows(settings: runner.Settings) -> None:
    run(replace(settings, prepare=True), "ok")
    assert not settings.results.exists()
    assert started(settings) == ["export test:ok"]


def test_a_peer_is_asked_once(settings: runner.Settings) -> None:
    run(replace(settings, peers=("onnxslim",)), "ok")
    rows = run(replace(settings, peers=("onnxslim", "onnxruntime")), "ok")
    assert rows[0]["peers"] == {"onnxslim": {"left": 2}, "onnxruntime": {"left": 2}}
    assert [line for line in started(settings) if "peers" in line] == [
        "peers test:ok onnxslim",
        "peers test:ok onnxruntime",
    ]


def test_what_is_done_is_known_by_the_engine() -> None:
    row = {"name": "test:ok", "engine": "a", "status": "ok"}
    failed = row | {"status": "not exported"}
    assert results.done(row, "a")
    assert not results.done(row, "b")
    assert not results.done(None, "a")
    assert results.done(failed, "a")
    assert not results.done(failed, "a", retry=True)


def test_the_engine_changes_with_its_source(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("1")
    first = engine.version(tmp_path)
    (tmp_path / "notes.txt").write_text("no code")
    assert engine.version(tmp_path) == first
    (tmp_path / "a.py").write_text("2")
    assert engine.version(tmp_path) != first


def test_a_line_that_was_cut_off_is_run_again(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    results.append(path, {"name": "a", "n": 1})
    with path.open("a") as file:
        file.write('{"name": "b", "n"')
    results.append(path, {"name": "c", "n": 3})
    results.append(path, {"name": "a", "n": 4})
    assert {name: row["n"] for name, row in results.read(path).items()} == {"a": 4, "c": 3}
    results.compact(path)
    assert path.read_text() == '{"name": "a", "n": 4}\n{"name": "c", "n": 3}\n'


def test_children_of_a_command_end_with_it(tmp_path: Path) -> None:
    mark = tmp_path / "alive"
    child = f"import time; time.sleep(3); open({str(mark)!r}, 'w')"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    ended = limits.run([sys.executable, "-c", parent], seconds=1.0, memory=10**9)
    assert ended.limit == "time"
    time.sleep(3)
    assert not mark.exists()


def test_a_command_is_ended_when_asked(tmp_path: Path) -> None:
    sleep = [sys.executable, "-c", "import time; time.sleep(60)"]
    ended = limits.run(sleep, seconds=30.0, memory=10**9, stopped=lambda: True)
    assert ended.limit == "stop"
    assert ended.seconds < 20
