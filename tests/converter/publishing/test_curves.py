"""Training curves: thinned without bending them, tied to their weights, published when there."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from converter.cli import main
from converter.publishing import curves
from converter.publishing.curves import CurvesUnusable
from converter.training.progress import Epoch, History, Step
from service.manifest import MOST_CURVE_POINTS, Curve, Manifest

ROOT = Path(__file__).parents[3]
SHIPPED = ROOT / "models" / "mnist"


def history(epochs: int, batches: int) -> History:
    random = np.random.default_rng(epochs * batches)
    steps = [
        Step(1 + i // batches, i + 1, float(random.uniform(0, 3)), 1e-3 / (i + 1))
        for i in range(epochs * batches)
    ]
    ends = [Epoch(n + 1, 0.5, 2.0 / (n + 1), n / epochs, 1.0) for n in range(epochs)]
    return History(steps, ends)


@pytest.mark.parametrize(("epochs", "batches"), [(1, 1), (3, 7), (2, 100), (3, 67), (250, 23)])
def test_a_point_is_the_mean_of_the_steps_up_to_it(epochs: int, batches: int) -> None:
    what = history(epochs, batches)
    drawn = {curve.name: curve for curve in curves.of(what.curves())}
    total = epochs * batches
    loss = drawn["train_loss"]
    assert len(loss.steps) == min(total, MOST_CURVE_POINTS)
    assert loss.steps[-1] == total
    began = 0
    for step, value in zip(loss.steps, loss.values, strict=True):
        truth = np.mean([s.loss for s in what.steps[began:step]])
        np.testing.assert_allclose(value, truth, rtol=5e-6)
        began = step
    accuracy = drawn["validation_accuracy"]
    assert accuracy.steps[-1] == total
    if epochs <= MOST_CURVE_POINTS:
        assert accuracy.steps == [batches * (n + 1) for n in range(epochs)]
        np.testing.assert_allclose(accuracy.values, [n / epochs for n in range(epochs)], rtol=5e-6)


def test_the_shipped_model_has_those_of_its_training() -> None:
    drawn = {curve.name: curve for curve in curves.read(SHIPPED / "checkpoint.pt")}
    published = manifest(SHIPPED / "1")
    assert published.curves == list(drawn.values())
    for name, metric in (
        ("validation_accuracy", "test_accuracy"),
        ("validation_loss", "test_loss"),
    ):
        assert drawn[name].values[-1] == pytest.approx(published.metrics[metric], rel=5e-6)
    assert drawn["train_loss"].steps[-1] == drawn["validation_loss"].steps[-1] == 12 * 468


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    shutil.copy(SHIPPED / "checkpoint.pt", tmp_path / "net.pt")
    return tmp_path / "net.pt"


def record(checkpoint: Path) -> None:
    content = curves.to_bytes(curves.of(history(3, 5).curves()), checkpoint.read_bytes())
    curves.beside(checkpoint).write_bytes(content)


def test_no_record_no_curves(checkpoint: Path) -> None:
    assert curves.read(checkpoint) == []


def test_what_is_written_is_read(checkpoint: Path) -> None:
    record(checkpoint)
    assert curves.read(checkpoint) == curves.of(history(3, 5).curves())


def test_the_record_of_other_weights_is_not_theirs(checkpoint: Path) -> None:
    record(checkpoint)
    checkpoint.write_bytes(checkpoint.read_bytes() + b" ")
    with pytest.raises(CurvesUnusable, match="the record of other weights"):
        curves.read(checkpoint)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"{", "not a record of curves"),
        (b"[]", "not a record of curves"),
        (b"\xff\xfe", "not a record of curves"),
        (b'{"format": "foldserve.curves/2", "sha256": "", "curves": []}', "format"),
        (b" " * 2**21, "too large"),
    ],
)
def test_a_record_that_is_none(checkpoint: Path, content: bytes, why: str) -> None:
    curves.beside(checkpoint).write_bytes(content)
    with pytest.raises(CurvesUnusable, match=why):
        curves.read(checkpoint)


@pytest.mark.parametrize(
    "change",
    [
        {"steps": [1, 2]},
        {"steps": [3, 3, 4]},
        {"steps": [-1, 2, 3]},
        {"steps": [], "values": []},
        {"values": [1.0, float("nan"), 2.0]},
        {"name": "<b>"},
        {"steps": list(range(201)), "values": [0.0] * 201},
    ],
)
def test_a_curve_that_cannot_be_drawn_is_refused(change: dict[str, object]) -> None:
    fine = {"name": "train_loss", "steps": [1, 2, 3], "values": [3.0, 2.0, 1.0]}
    assert Curve.model_validate(fine).steps == [1, 2, 3]
    with pytest.raises(ValidationError):
        Curve.model_validate(fine | change)


def manifest(folder: Path) -> Manifest:
    return Manifest.model_validate_json((folder / "model.json").read_bytes())


@pytest.mark.slow
def test_publishing_carries_them(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["fold", str(checkpoint), "--publish", str(tmp_path / "net"), "--if-changed"]
    assert main(command) == 0
    assert "curves" not in json.loads((tmp_path / "net" / "1" / "model.json").read_bytes())
    record(checkpoint)
    assert main(command) == 0
    assert manifest(tmp_path / "net" / "2").curves == curves.of(history(3, 5).curves())
    assert main(command) == 0
    assert "is this very model already" in capsys.readouterr().out
    checkpoint.with_name("net.pt.curves.json").write_bytes(b"{}")
    assert main(command) == 0
    assert "Published without training curves" in capsys.readouterr().out
    assert manifest(tmp_path / "net" / "3").curves == []
