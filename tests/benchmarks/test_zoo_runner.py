"""Running the zoo: limits, what is kept, what is skipped, where a stopped run goes on."""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks import lines
from benchmarks.zoo import engine, limits, results, runner
from benchmarks.zoo.catalogue import Architecture
from benchmarks.zoo.progress import Listener
from converter.report.progress import Live

pytestmark = pytest.mark.slow


@pytest.fixture
def settings(tmp_path: Path) -> runner.Settings:
    return runner.Settings(
        results=tmp_path / "rows.jsonl",
        cache=tmp_path / "cache",
        seconds=20.0,
        memory=10**9,
        peers=(),
        stages="tests.benchmarks.light_stages",
        preload="tests.benchmarks.light_stages",
    )


def nets(*names: str) -> list[Architecture]:
    return [Architecture(f"test:{name}", "test", 2, 1000) for name in names]


def run(settings: runner.Settings, *names: str) -> list[results.Row]:
    settings.cache.mkdir(parents=True, exist_ok=True)
    return runner.run(nets(*names), settings, Listener(Live(Console(quiet=True))))


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


def test_a_stage_that_takes_too_long_is_ended(
    settings: runner.Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "CLOCK_FACTOR", 1)
    (row,) = run(replace(settings, seconds=2.0), "slow")
    assert (row["status"], row["error"]["class"]) == ("not folded", "Timeout")


def test_a_stage_that_computes_for_too_long_is_ended(settings: runner.Settings) -> None:
    (row,) = run(replace(settings, seconds=1.0), "busy")
    assert (row["status"], row["error"]["class"]) == ("not folded", "Timeout")


def test_a_stage_that_takes_too_much_memory_is_ended(settings: runner.Settings) -> None:
    (row,) = run(replace(settings, memory=200_000_000), "large")
    assert (row["status"], row["error"]["class"]) == ("not folded", "OutOfMemory")


def test_an_export_is_used_again(settings: runner.Settings) -> None:
    run(settings, "ok")
    run(settings, "ok")
    assert started(settings) == [
        "export test:ok torch.export",
        "fold test:ok",
        "fold test:ok",
    ]


def test_an_export_by_the_quick_exporter_is_made_again_for_the_other(
    settings: runner.Settings,
) -> None:
    quick = replace(settings, exporter="TorchScript")
    for asked in (quick, quick, settings, quick):
        run(asked, "ok")
    assert [line for line in started(settings) if "export" in line] == [
        "export test:ok TorchScript",
        "export test:ok torch.export",
    ]


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
    assert started(settings) == ["export test:ok torch.export"]


def test_a_peer_is_asked_once(settings: runner.Settings) -> None:
    run(replace(settings, peers=("onnxslim",)), "ok")
    rows = run(replace(settings, peers=("onnxslim", "onnxruntime")), "ok")
    assert rows[0]["peers"] == {"onnxslim": {"left": 2}, "onnxruntime": {"left": 2}}
    assert [line for line in started(settings) if "peers" in line] == [
        "peers test:ok onnxslim",
        "peers test:ok onnxruntime",
    ]


def test_what_is_done_is_known_by_the_engine() -> None:
    row = {"name": "test:ok", "engine": "a", "checker": "c", "status": "ok"}
    failed = row | {"status": "not exported"}
    assert results.done(row, "a", "c")
    assert not results.done(row, "b", "c")
    assert not results.done(row, "a", "d")
    assert not results.done(None, "a", "c")
    assert results.done(failed, "a", "d")
    assert not results.done(failed, "a", "d", retry=True)


def test_where_only_the_checker_has_changed_a_fold_is_certified_again_alone(
    settings: runner.Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    (first,) = run(settings, "ok")
    monkeypatch.setattr(engine, "checker", lambda: "another")
    (again,) = run(settings, "ok")
    assert again == first | {"checker": "another"}
    assert started(settings)[-2:] == ["fold test:ok", "certify test:ok"]
    run(settings, "ok")  # asked for again with the same checker: all of it
    assert started(settings)[-1] == "fold test:ok"


def test_where_a_certificate_is_lost_the_fold_is_proven_again(
    settings: runner.Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(settings, "doubtful")
    monkeypatch.setattr(engine, "checker", lambda: "another")
    run(settings, "doubtful")
    assert started(settings)[-2:] == ["certify test:doubtful", "fold test:doubtful"]


def test_what_peers_said_stays_where_the_export_is_as_it_was(settings: runner.Settings) -> None:
    (row,) = run(settings, "ok")
    said = {"onnxslim": {"left": 2}}
    lines.append(settings.results, row | {"engine": "former", "peers": said})
    assert run(settings, "ok")[0]["peers"] == said
    lines.append(settings.results, row | {"engine": "former", "peers": said, "batchnorms": 3})
    assert run(settings, "ok")[0]["peers"] == {}


def source(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        path = folder / "engine" / f"{name.replace('__', '/')}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder / "engine"


def test_the_engine_changes_with_what_it_imports_alone(tmp_path: Path) -> None:
    place = source(
        tmp_path,
        main="from engine import cost\ndef f():\n    import engine.rules.moves.one",
        cost="import numpy",
        rules__moves__one="1",
        training="from engine import cost",
    )
    (place / "rules" / "__init__.py").write_text("from engine.tables import TABLE")
    source(tmp_path, tables="TABLE = 1")
    versions = [engine.version(place, ["main.py"])]
    for name in ("cost", "rules__moves__one", "tables"):
        source(tmp_path, **{name: "# another"})
        versions.append(engine.version(place, ["main.py"]))
    assert len(set(versions)) == 4
    source(tmp_path, training="# another", unused="1")
    (place / "notes.txt").write_text("no code")
    assert engine.version(place, ["main.py"]) == versions[-1]


def test_the_engine_is_what_folds_and_proves() -> None:
    inside = {path.relative_to(engine.SOURCE).as_posix() for path in engine.deciding()}
    everything = {
        path.relative_to(engine.SOURCE).as_posix() for path in engine.SOURCE.rglob("*.py")
    }
    # A table that only a page of the documents reads, and the words for a verdict.
    documents = {"evaluation/uncovered.py", "proof/conclusion.py"}
    assert not [name for name in inside if name.startswith("certificate/")]
    for folder in ("folding", "evaluation", "proof"):
        assert {name for name in everything if name.startswith(f"{folder}/")} <= inside | documents
    assert {
        "pipeline.py", "graph/tidy.py", "graph/cost.py", "files/onnx_file.py",
        "graph/transposes.py", "graph/paddings.py", "sources/export.py",
        "evaluation/normalize.py", "sources/examples.py", "sources/onnx_.py",
    } <= inside  # fmt: skip
    outside = ("training/", "statistics/", "commands/", "report/", "cli.py")
    assert not [name for name in inside if name.startswith(outside)]


def test_a_line_that_was_cut_off_is_run_again(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    lines.append(path, {"name": "a", "n": 1})
    with path.open("a") as file:
        file.write('{"name": "b", "n"')
    lines.append(path, {"name": "c", "n": 3})
    lines.append(path, {"name": "a", "n": 4})
    assert {name: row["n"] for name, row in results.read(path).items()} == {"a": 4, "c": 3}
    results.compact(path)
    assert path.read_text() == '{"name": "a", "n": 4}\n{"name": "c", "n": 3}\n'


def test_children_of_a_process_end_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "CLOCK_FACTOR", 1)
    mark = tmp_path / "alive"
    child = f"import time; time.sleep(3); open({str(mark)!r}, 'w')"
    command = [sys.executable, "-c", child]
    ended = limits.run(subprocess.run, [command], seconds=1.0, memory=10**9)
    assert ended.limit == "time"
    time.sleep(3)
    assert not mark.exists()


def test_a_function_is_ended_when_asked() -> None:
    ended = limits.run(time.sleep, [60], seconds=30.0, memory=10**9, stopped=lambda: True)
    assert ended.limit == "stop"
    assert ended.seconds < 20
