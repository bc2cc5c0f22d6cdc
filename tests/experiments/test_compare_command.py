"""The command: a real comparison on real digits, and what it refuses."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path

import pytest

from experiments import figures
from experiments.__main__ import main
from experiments.claims import CLAIMS
from experiments.options import AXES, COMMON, Grid
from experiments.records import Folder
from experiments.settings import Settings


@pytest.mark.slow
def test_a_real_comparison(
    tmp_path: Path, subset: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Batch-norm learns faster, the report says so, and a second call trains nothing."""
    argv = ["--norm", "none,batch", "--lr", "0.01,0.1", "--batch-size", "50"]
    argv += ["--arch", "mlp-small", "--epochs", "2", "--evaluations", "2", "--seeds", "2"]
    argv += ["--data-dir", str(subset), "--output", str(tmp_path / "out")]
    assert main(argv) == 0
    told = capsys.readouterr()
    assert "comparing: 8 runs" in told.err
    assert "8/8" in told.err
    assert "final" in told.out

    runs = sorted((tmp_path / "out" / "runs").iterdir())
    content = [json.loads(path.read_text()) for path in runs]
    accuracy = {
        norm: [c["validations"][-1]["accuracy"] for c in content if c["settings"]["norm"] == norm]
        for norm in ("none", "batch")
    }
    assert min(accuracy["batch"]) > max(accuracy["none"]) - 0.2
    assert sum(accuracy["batch"]) > sum(accuracy["none"])
    html = (tmp_path / "out" / "report.html").read_text()
    assert "8 of 8 runs finished" in html
    assert "lr 0.1" in html
    assert "--batch-size 50" in html
    assert str(tmp_path) not in html
    text = (tmp_path / "out" / "report.md").read_text()
    for norm in ("no norm, lr 0.01", "batch-norm, lr 0.1"):
        assert norm in text

    times = [path.stat().st_mtime_ns for path in runs]
    assert main(argv) == 0
    assert "8 of them finished before" in capsys.readouterr().err
    assert [path.stat().st_mtime_ns for path in runs] == times
    assert (tmp_path / "out" / "report.html").read_text() == html


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["--claims", "flat-earth"], "no claim 'flat-earth'"),
        (["--claims", "steps", "--lr", "0.1"], "--lr"),
        (["--norm", "none,layer"], "--norm"),
        (["--seeds", "0"], "--seeds"),
        (["--jobs", "0"], "--jobs"),
        (["--threads", "0"], "--threads"),
        (["--report-only"], "holds none of these runs"),
        (["--arch", "perceptron"], "unknown architecture"),
        (["--images", "1001"], "--images"),
        (["--device", "tpu"], "device"),
    ],
)
def test_mistakes_are_sentences(
    tmp_path: Path,
    subset: Path,
    capsys: pytest.CaptureFixture[str],
    argv: list[str],
    says: str,
) -> None:
    where = ["--data-dir", str(subset), "--output", str(tmp_path / "out")]
    assert main([*where, *argv]) == 2
    assert says in capsys.readouterr().err


def test_a_number_that_is_none_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--lr", "0.1,fast"]) == 2
    assert "--lr" in capsys.readouterr().err


def test_a_missing_library_is_found_before_the_training(
    tmp_path: Path,
    subset: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(figures, "find_spec", lambda _: None)
    argv = ["--data-dir", str(subset), "--output", str(tmp_path / "out")]
    assert main(argv) == 2
    assert "foldserve[plots]" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_every_setting_has_an_option() -> None:
    declared = {field.name for field in fields(Grid)} - {"seeds"} | {"seed"}
    assert declared == {field.name for field in fields(Settings)}
    assert {*AXES, *COMMON, "recalibrate", "seed"} == declared


def test_the_help_of_a_setting_is_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "--momentum A,B the weight of the newest batch in the running statistics" in shown
    assert "default: none,batch; of batch, none, renorm" in shown


def test_the_report_of_claims_in_part(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Claims whose runs are not all finished are reported as far as they go."""
    from tests.experiments.made import record

    folder = Folder(tmp_path / "runs")
    folder.prepare()
    claim = next(c for c in CLAIMS if c.name == "shift")
    for settings in claim.runs()[:6]:
        folder.write(record(settings, drift=0.5 if settings.norm == "none" else 0.1))
    argv = ["--claims", "shift", "position", "--output", str(tmp_path)]
    assert main([*argv, "--report-only"]) == 0
    assert "holds" in capsys.readouterr().out
    text = (tmp_path / "report.md").read_text()
    assert "6 of 10 runs finished" in text
    assert "(0.4 to 0.4, 3 seeds)" in text
