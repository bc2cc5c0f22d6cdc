"""A grid that is stopped goes on; what is finished is not made again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from converter.errors import UserError
from converter.training.data import Dataset
from experiments import runner
from experiments.grid import expand
from experiments.records import Folder, Record
from experiments.runner import Job, Listener, complete
from experiments.running import Machine
from experiments.settings import Settings
from tests.experiments.made import record

RUNS = expand(Settings(epochs=1), {"norm": ["none", "batch"]}, seeds=2)


class Heard(Listener):
    def __init__(self) -> None:
        self.planned: list[tuple[int, int]] = []
        self.numbers: list[int] = []

    def plan(self, total: int, done: int) -> None:
        self.planned.append((total, done))

    def finished(self, record: Record, number: int) -> None:  # noqa: ARG002
        self.numbers.append(number)


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Settings]:
    """The runs that are really made, each a record without any training."""
    found: list[Settings] = []

    def run(settings: Settings, data: Dataset, machine: Machine, digest: str) -> Record:
        found.append(settings)
        return replace(record(settings), digest=digest)

    monkeypatch.setattr(runner, "run", run)
    return found


def test_finished_runs_are_not_made_again(
    tmp_path: Path, subset: Path, made: list[Settings]
) -> None:
    job = Job(tmp_path / "runs", data_dir=subset)
    assert [r.settings for r in complete(RUNS[:3], job)] == RUNS[:3]
    heard = Heard()
    assert [r.settings for r in complete(RUNS, job, listener=heard)] == RUNS
    assert made == RUNS
    assert (heard.planned, heard.numbers) == ([(4, 3)], [4])
    complete(RUNS, job)
    assert len(made) == 4


def test_runs_on_other_data_are_not_mixed(tmp_path: Path, subset: Path) -> None:
    folder = Folder(tmp_path)
    folder.write(record(RUNS[0]))
    with pytest.raises(UserError, match="other data"):
        complete(RUNS, Job(tmp_path, data_dir=subset))
    assert not folder.file(RUNS[1]).exists()


def test_the_same_run_twice_is_one(tmp_path: Path, subset: Path, made: list[Settings]) -> None:
    found = complete([RUNS[0], RUNS[1], RUNS[0]], Job(tmp_path, data_dir=subset))
    assert [r.settings for r in found] == [RUNS[0], RUNS[1], RUNS[0]]
    assert made == RUNS[:2]


def test_an_interrupt_keeps_what_is_finished(
    tmp_path: Path, subset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(settings: Settings, data: Dataset, machine: Machine, digest: str) -> Record:
        if settings == RUNS[2]:
            raise KeyboardInterrupt
        return record(settings)

    monkeypatch.setattr(runner, "run", run)
    job = Job(tmp_path, data_dir=subset)
    with pytest.raises(KeyboardInterrupt):
        complete(RUNS, job)
    assert [Folder(tmp_path).file(settings).exists() for settings in RUNS] == [
        True,
        True,
        False,
        False,
    ]


def test_what_is_wrong_with_the_data_is_said_before_any_process(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not a folder"):
        complete(RUNS, Job(tmp_path / "runs", data_dir=tmp_path / "none"), jobs=2)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="asks Linux for its processes")
def test_a_killed_comparison_goes_on(tmp_path: Path, subset: Path) -> None:
    """SIGKILL leaves whole records and no process; the rest is made by the next call."""
    options = ["--arch", "mlp-small", "--epochs", "2", "--seeds", "40", "--jobs", "2"]
    options += ["--data-dir", str(subset), "--output", str(tmp_path)]
    process = subprocess.Popen(
        [sys.executable, "-m", "experiments", *options],
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    try:
        folder = tmp_path / "runs"
        while not (folder.is_dir() and any(folder.glob("*.json"))):
            assert process.poll() is None, "it ended before the first run"
            time.sleep(0.05)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert children
    deadline = time.monotonic() + 120  # else it would wait for ever
    while any(_alive(int(child)) for child in children):
        assert time.monotonic() < deadline, "the processes of a killed comparison go on"
        time.sleep(0.05)

    names = {path.name: path.stat().st_mtime_ns for path in folder.glob("*.json")}
    runs = expand(Settings(arch="mlp-small", epochs=2), {"norm": ["none", "batch"]}, seeds=40)
    finished = Folder(folder).read_all(runs)
    assert 0 < len(finished) == len(names) < len(runs)
    more = [run for run in runs if not Folder(folder).file(run).exists()][:1]
    complete([finished[0].settings, *more], Job(folder, data_dir=subset))
    assert Folder(folder).file(more[0]).exists()
    assert {name: (folder / name).stat().st_mtime_ns for name in names} == names


def _alive(pid: int) -> bool:
    """Whether there is such a process, other than one that waits to be collected."""
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False
