"""`python -m converter recalibrate`: files of every kind in, and the same kind out."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from converter import architectures, cli
from converter.architectures.modules import weights_of
from converter.errors import UserError
from converter.sources import checkpoint
from converter.statistics import data
from converter.training import mnist
from converter.training.data import Samples
from tests.converter.statistics import nets

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]
SUBSET = ROOT / "tests" / "data" / "mnist"
ARCH = "tests.converter.statistics.nets:small"


def network() -> nn.Module:
    """784-16-10 with statistics that are wrong: never updated."""
    torch.manual_seed(0)
    return architectures.build("mlp-small", hidden=16)


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    module = network()
    path = tmp_path / "model.pt"
    content = checkpoint.Checkpoint(
        architecture="mlp-small",
        arguments={"hidden": 16},
        state_dict=weights_of(module),
        input_shape=[1, 28, 28],
        labels=mnist.LABELS,
        preprocessing=mnist.PREPROCESSING.model_dump(),
        metrics={"test_accuracy": 0.99, "test_loss": 0.01, "train_loss": 0.5},
        description="Digits.",
        seed=0, epochs=1, batch_size=50, lr=0.01, threads=1,
        statistics={"kind": "exponential moving average"},
        torch=str(torch.__version__), dataset="MNIST", attribution="",
    )  # fmt: skip
    path.write_bytes(checkpoint.to_bytes(content))
    return path


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    def call(*arguments: Any) -> tuple[int, str, str]:
        code = cli.main(["recalibrate", *map(str, arguments)])
        out, err = capsys.readouterr()
        return code, out, err

    return call


def first_layer() -> np.ndarray:
    """What reaches the norm on the training images, in float64."""
    images = mnist.load(SUBSET).train.images
    weight = network()[1].weight.detach().double()  # type: ignore[index]
    return ((images.double() / 255).flatten(1) @ weight.T).numpy()


def test_a_checkpoint_of_ours(trained: Path, run, tmp_path: Path) -> None:
    report = tmp_path / "drift.json"
    original = trained.read_bytes()
    code, out, _ = run(trained, "--data", SUBSET, "--json", report)
    assert code == 0
    assert trained.read_bytes() == original
    written = checkpoint.read(tmp_path / "model.recalibrated.pt")
    reference = first_layer()
    np.testing.assert_allclose(
        written.state_dict["bn1.running_mean"], reference.mean(0), rtol=1e-4, atol=1e-6
    )
    np.testing.assert_allclose(written.state_dict["bn1.running_var"], reference.var(0), rtol=1e-4)
    assert written.statistics["kind"] == "population"
    assert written.statistics["samples"] == 1000

    told = json.loads(report.read_text())
    (row,) = told["norms"]
    sigma = np.sqrt(reference.var(0) + 1e-5)
    shift = np.abs(reference.mean(0)) / sigma
    assert row["max_shift"] == pytest.approx(shift.max(), rel=1e-3)
    assert row["mean_shift"] == pytest.approx(shift.mean(), rel=1e-3)
    assert row["high_ratio"] == pytest.approx(((1 + 1e-5) / sigma**2).max(), rel=1e-3)
    assert told["measured_on"] == "test"
    assert told["after"]["samples"] == 500
    assert told["after"]["accuracy"] == written.metrics["test_accuracy"]
    assert written.metrics.keys() == {"test_accuracy", "test_loss", "train_loss"}
    assert told["residual"] < 1e-4
    assert "Accuracy on 500 test samples" in out
    assert "were never updated (mean 0, variance 1" in out
    assert "model.recalibrated.pt" in out

    # The recalibrated file holds what the data say: nothing drifts any more.
    code, out, _ = run(tmp_path / "model.recalibrated.pt", "--data", SUBSET, "--dry-run",
                       "--json", report)  # fmt: skip
    assert code == 0
    assert json.loads(report.read_text())["norms"][0]["max_shift"] < 1e-4
    assert "never updated" not in out


def test_it_may_replace_its_input_only_when_told_so(trained: Path, run) -> None:
    assert run(trained, "--data", SUBSET, "--output", trained, "--limit", 100)[0] == 0
    assert checkpoint.read(trained).statistics["samples"] == 100
    before = trained.read_bytes()
    assert run(trained, "--data", SUBSET, "--json", trained)[0] == 2
    assert trained.read_bytes() == before


def test_a_dry_run_writes_no_model(trained: Path, run, tmp_path: Path) -> None:
    code, out, _ = run(trained, "--data", SUBSET, "--dry-run", "--mode", "onepass")
    assert code == 0
    assert "Wrote" not in out
    assert [p.name for p in tmp_path.iterdir()] == ["model.pt"]


def test_a_state_dict_a_safetensors_file_and_a_pickle(run, tmp_path: Path) -> None:
    module = nets.small()
    torch.save({"state_dict": {f"module.{k}": v for k, v in module.state_dict().items()}},
               tmp_path / "a.pth")  # fmt: skip
    save_file(module.state_dict(), tmp_path / "b.safetensors")
    torch.save(module, tmp_path / "c.pt")
    x = torch.randn(64, 2, 8, 8)
    np.save(tmp_path / "x.npy", x.numpy())
    for name, arguments in (
        ("a.pth", ["--arch", ARCH]),
        ("b.safetensors", ["--arch", ARCH]),
        ("c.pt", ["--trust-pickle"]),
    ):
        code, out, err = run(tmp_path / name, "--data", tmp_path / "x.npy", *arguments)
        assert code == 0, err
        assert "Accuracy" not in out  # no labels
    suffixless = [tmp_path / f"{n}.recalibrated{s}" for n, s in (("a", ".pth"), ("c", ".pt"))]
    states = [
        torch.load(suffixless[0], weights_only=True),
        load_file(tmp_path / "b.recalibrated.safetensors"),
        torch.load(suffixless[1], weights_only=False).state_dict(),
    ]
    with torch.no_grad():
        values = module[0](x).double().movedim(1, -1).flatten(0, -2).numpy()
    for state in states:
        assert state.keys() == module.state_dict().keys()
        np.testing.assert_allclose(state["1.running_mean"], values.mean(0), rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(state["1.running_var"], values.var(0), rtol=1e-4)


def test_what_it_wrote_folds(trained: Path, run, tmp_path: Path) -> None:
    run(trained, "--data", SUBSET, "--limit", 200)
    folded = tmp_path / "folded.onnx"
    file = tmp_path / "model.recalibrated.pt"
    assert cli.main(["fold", str(file), "--output", str(folded)]) == 0
    assert folded.is_file()


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda p: np.save(p / "d.npy", np.full((4, 1, 28, 28), np.nan, np.float32)),
         "the data hold NaN"),
        (lambda p: np.save(p / "d.npy", np.zeros((4, 3, 28, 28), np.float32)),
         "3 by 28 by 28, and the network takes 1 by 28 by 28"),
        (lambda p: np.save(p / "d.npy", np.zeros((0, 1, 28, 28), np.float32)), "no samples"),
        (lambda p: np.save(p / "d.npy", np.zeros((1, 1, 28, 28), np.float32)), "no variance"),
        (lambda p: np.save(p / "d.npy", np.zeros((4, 1, 9, 9), np.float32)), "does not run on"),
        (lambda p: (p / "d.npy").write_bytes(b"nothing"), "it is no .npz and no .npy"),
        (lambda p: p, "No such file"),
    ],
)  # fmt: skip
def test_data_that_cannot_be(make, sentence, trained: Path, run, tmp_path: Path) -> None:
    make(tmp_path)
    code, _, err = run(trained, "--data", tmp_path / "d.npy")
    assert code == 2
    assert sentence in " ".join(err.split())
    assert not (tmp_path / "model.recalibrated.pt").exists()


def test_files_without_a_module_are_refused_with_a_way_out(run, tmp_path: Path) -> None:
    program = torch.export.export(nn.BatchNorm1d(3).eval(), (torch.zeros(2, 3),))
    torch.export.save(program, tmp_path / "model.pt2")
    code, _, err = run(tmp_path / "model.pt2", "--data", SUBSET)
    assert code == 2
    assert "operators of a fixed graph. Give the weights that it was exported from" in " ".join(
        err.split()
    )


def test_arrays_with_labels_and_pictures(tmp_path: Path) -> None:
    pictures = np.arange(6 * 4 * 4 * 3, dtype=np.uint8).reshape(6, 4, 4, 3)
    np.savez(tmp_path / "d.npz", x=pictures, y=np.arange(6))
    found = data.read(tmp_path / "d.npz")
    assert found.test is None
    assert found.measured is found.samples
    shaped = data.shaped(found.samples, (3, 4, 4), tmp_path)
    x = data.Preparation((0.5,), (0.25,)).apply(shaped.images)
    expected = (pictures.transpose(0, 3, 1, 2) / 255 - 0.5) / 0.25
    np.testing.assert_allclose(x, expected, atol=1e-6)


def test_arrays_as_keras_ships_them(tmp_path: Path) -> None:
    np.savez(
        tmp_path / "mnist.npz",
        x_train=np.zeros((5, 4, 4), np.uint8), y_train=np.arange(5),
        x_test=np.zeros((2, 4, 4), np.uint8), y_test=np.arange(2),
    )  # fmt: skip
    found = data.read(tmp_path / "mnist.npz")
    assert len(found.samples) == 5
    assert found.test is not None
    assert found.test.labels is not None
    assert found.test.labels.tolist() == [0, 1]
    assert data.shaped(found.samples, (1, 4, 4), tmp_path).images.shape == (5, 1, 4, 4)


@pytest.mark.parametrize(
    ("arrays", "sentence"),
    [
        ({"x": np.zeros((3, 2)), "y": np.zeros(2, int)}, "one whole number for each of 3"),
        ({"x": np.zeros((3, 2)), "y": np.zeros(3)}, "one whole number"),
        ({"a": np.zeros(3), "b": np.zeros(3)}, 'must be called "x"'),
        ({"x": np.array([None, 1], object)}, "holds Python objects"),
        ({"x": np.zeros((3, 2), complex)}, "complex128, which is not a type"),
    ],
)
def test_arrays_that_cannot_be(arrays, sentence: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", **arrays)
    with pytest.raises(UserError) as raised:
        data.read(tmp_path / "d.npz")
    assert sentence in str(raised.value)


def test_a_file_that_unpacks_to_too_much_is_not_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data, "LARGEST_DATA", 100_000)
    np.savez_compressed(tmp_path / "d.npz", x=np.zeros((100, 1001)))
    assert (tmp_path / "d.npz").stat().st_size < 10_000
    with pytest.raises(UserError, match="100,000 are read"):
        data.read(tmp_path / "d.npz")


def test_what_train_reads_is_read_alike(tmp_path: Path) -> None:
    """Integers of any type are pixels for a network of `train`, features an image of one row."""
    file = tmp_path / "data.npz"
    np.savez(file, x=np.arange(20).reshape(5, 4), y=np.arange(5) % 2)
    found = data.read(file).pictures(file)
    assert found.samples.images.dtype == torch.uint8
    assert data.shaped(found.samples, (1, 1, 4), file).images.shape == (5, 1, 1, 4)
    np.savez(file, x=np.arange(20).reshape(5, 4) - 1)
    with pytest.raises(UserError, match="int64, from -1 to 18"):
        data.read(file).pictures(file)


def test_a_random_part_is_the_same_for_the_same_seed() -> None:
    samples = Samples(torch.arange(100), torch.arange(100))
    first, second = samples.draw(10, 3), samples.draw(10, 3)
    assert first.images.tolist() == second.images.tolist()
    assert first.labels is not None
    assert first.images.tolist() == first.labels.tolist() == sorted(set(first.images.tolist()))
    assert samples.draw(10, 4).images.tolist() != first.images.tolist()
    assert samples.draw(None, 0) is samples
