"""Each architecture: trained, folded as docs/architectures.md says, published, served.

The truth is the trained network itself, run by torch on the test images of tests/data/mnist.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import torch
from torch import Tensor

from converter import fold, load, publish
from converter.architectures import ARCHITECTURES, lookup
from converter.pipeline import preview
from converter.sources import checkpoint
from converter.training import Dataset, Style, TrainOptions, evaluate, mnist, train
from converter.training.data import pixels
from tests.serving import serving

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]
SUBSET = ROOT / "tests" / "data" / "mnist"
NAMES = list(ARCHITECTURES)
STYLES = [Style(), Style(bn_position="after"), Style(input_norm=True)]


def documented() -> dict[str, list[tuple[int, int]]]:
    """Architecture -> batch-norms and how many are left, for each of `STYLES`."""
    found = {}
    for line in (ROOT / "docs" / "architectures.md").read_text().splitlines():
        if re.match(r"\| `[a-z0-9_-]+` \| [0-9,]+ \|", line):
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            numbers = [cells[2:4], cells[4:6], cells[7:9]]
            found[cells[0].strip("`")] = [(int(norms), int(left)) for norms, left in numbers]
    return found


@dataclass(frozen=True)
class Made:
    """A network on its way: the counts of its fold, and what torch predicts."""

    norms: int
    left: int
    proven: bool
    logits: Tensor


def options(name: str, output: Path, style: Style) -> TrainOptions:
    """Narrow and short: 10 steps."""
    small = {"width": 4, "hidden": 16, "first": 32, "second": 16, "dense": 16}
    return TrainOptions(
        arch=name,
        arch_args={k: v for k, v in small.items() if k in lookup(name).arguments},
        style=style,
        data_dir=SUBSET,
        output=output,
        epochs=1,
        batch_size=100,
        device="cpu",
        threads=1,
    )


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def made(models: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Made]:
    """All of them trained, folded and published."""
    test = mnist.load(SUBSET).test
    found = {}
    for name in NAMES:
        output = tmp_path_factory.mktemp("trained") / "checkpoint.pt"
        train(options(name, output, STYLES[0]))
        result = fold(load(output))
        publish(result, models / name)
        module = checkpoint.read(output).module()
        with torch.inference_mode():
            logits = evaluate.logits(module.double(), pixels(test.images).double())
        found[name] = Made(
            result.before.batchnorms, result.after.batchnorms, result.proof.passed, logits
        )
    return found


@pytest.fixture(scope="module")
def client(models: Path, made: dict[str, Made]) -> Iterator[httpx.Client]:
    """The real service with all of them."""
    command = [sys.executable, "-m", "service", "--models", str(models), "--port", "0"]
    with serving(command, cwd=ROOT) as url, httpx.Client(base_url=url, timeout=60) as asking:
        yield asking


@pytest.mark.parametrize("name", NAMES)
def test_it_is_trained_folded_proven_and_served_with_every_prediction_kept(
    name: str, made: dict[str, Made], client: httpx.Client, data: Dataset
) -> None:
    mine = made[name]
    assert (mine.norms, mine.left) == documented()[name][0]
    assert mine.proven
    outputs: list[list[float]] = []
    labels: list[int] = []
    for piece in pixels(data.test.images).split(250):
        answer = client.post(f"/models/{name}/predict", json={"inputs": piece.tolist()})
        assert answer.status_code == 200, answer.text
        outputs += next(iter(answer.json()["outputs"].values()))
        labels += [int(row["label"]) for row in answer.json()["predictions"]]
    served = torch.tensor(outputs, dtype=torch.float64)
    assert float((served - mine.logits).abs().max()) <= 1e-4 * float(mine.logits.abs().max())
    assert labels == mine.logits.argmax(1).tolist()


def test_every_architecture_is_in_the_table() -> None:
    assert list(documented()) == NAMES


@pytest.mark.parametrize(
    ("name", "style"), [("cnn", 1), ("repvgg", 1), ("resnet-preact", 2), ("mlp", 2)]
)
def test_the_other_columns_of_the_table(name: str, style: int, tmp_path: Path) -> None:
    output = tmp_path / "checkpoint.pt"
    train(options(name, output, STYLES[style]))
    plan = fold_plan(output)
    assert plan == documented()[name][style]


def fold_plan(path: Path) -> tuple[int, int]:
    found = preview(load(path))
    return found.before.batchnorms, found.after.batchnorms
