"""The main job end to end: the shipped checkpoint is folded, published, served and asked.

The images are real ones of MNIST's test set (tests/data/mnist); the truth is the trained
network itself, run by torch.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from converter.cli import main
from converter.sources import checkpoint
from converter.training import evaluate, mnist
from converter.training.data import Split, pixels
from service.manifest import Manifest
from tests.serving import serving

ROOT = Path(__file__).parents[1]
CHECKPOINT = ROOT / "models" / "mnist" / "checkpoint.pt"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    assert main(["fold", str(CHECKPOINT), "--publish", str(folder / "mnist")]) == 0
    return folder


@pytest.fixture(scope="module")
def url(models: Path) -> Iterator[str]:
    command = [sys.executable, "-m", "service", "--models", str(models), "--port", "0"]
    with serving(command, cwd=ROOT) as url:
        yield url


@pytest.fixture(scope="module")
def digits() -> Split:
    """500 images, uint8 (500, 1, 28, 28), and their labels."""
    return mnist.load(ROOT / "tests" / "data" / "mnist").test


def test_every_prediction_is_the_trained_networks(url: str, digits: Split) -> None:
    trained = evaluate.predictions(checkpoint.read(CHECKPOINT).module(), digits.images)
    inputs = pixels(digits.images)
    served: list[int] = []
    with httpx.Client(base_url=url, timeout=60) as client:
        for start in range(0, len(inputs), 100):
            body = {"inputs": inputs[start : start + 100].tolist()}
            answer = client.post("/predict", json=body)
            assert answer.status_code == 200, answer.text
            served += [int(row["label"]) for row in answer.json()["predictions"]]
    assert served == trained.tolist()
    right = sum(a == b for a, b in zip(served, digits.labels.tolist(), strict=True))
    assert right / len(served) >= 0.98


def test_the_example_request_of_the_readme(url: str) -> None:
    example = json.loads((ROOT / "models" / "mnist" / "example.json").read_text())
    answer = httpx.post(f"{url}/predict", json=example, timeout=60).json()
    assert answer["predictions"][0]["label"] == "7"
    assert answer["predictions"][0]["probability"] > 0.99


def test_the_published_version_in_the_repository_is_of_this_checkpoint(models: Path) -> None:
    """`models/mnist/<version>` must be what this code makes of `checkpoint.pt`, in its numbers."""
    shipped = max((ROOT / "models" / "mnist").glob("[0-9]*"), key=lambda path: int(path.name))
    assert (
        main(
            [
                "verify",
                str(shipped / "model.onnx"),
                str(models / "mnist" / "1" / "model.onnx"),
            ]
        )
        == 0
    )
    manifest = Manifest.model_validate_json((shipped / "model.json").read_bytes())
    fresh = Manifest.model_validate_json((models / "mnist" / "1" / "model.json").read_bytes())
    assert manifest.metrics == fresh.metrics
    assert manifest.metrics["test_accuracy"] >= 0.99
    assert manifest.provenance["batchnorms"] == fresh.provenance["batchnorms"]
    assert manifest.provenance["batchnorms"]["folded"] == 6
    assert manifest.provenance["batchnorms"]["kept"] == {}
