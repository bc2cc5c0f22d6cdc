"""`python -m converter finetune`: what stands still, what learns, and what is written."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from converter import cli
from converter.architectures import described
from converter.errors import UserError
from converter.finetuning.finetune import Base, Transfer, finetune
from converter.finetuning.subset import first, only_classes
from converter.pipeline import fold
from converter.sources import checkpoint, load
from converter.training.data import Dataset
from patterns.networks import declare_torchvision_operators

pytestmark = pytest.mark.slow

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], subset: Path, tmp_path: Path) -> Run:
    def call(*arguments: Any) -> tuple[int, str, str]:
        code = cli.main(
            ["finetune", "--data-dir", str(subset), "--classes", "5,6,7,8,9", "--threads", "1",
             "--samples", "120", "--epochs", "1", "--batch-size", "4",
             "--output", str(tmp_path / "new.pt"), *map(str, arguments)]
        )  # fmt: skip
        out, err = capsys.readouterr()
        return code, " ".join(out.split()), " ".join(err.split())

    return call


def statistics(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {k: v for k, v in state.items() if "running" in k and not k.startswith("fc4")}


@pytest.mark.parametrize("mode", ["stats", "all", "none"])
def test_what_stands_still(mode: str, base: Path, run: Run, tmp_path: Path) -> None:
    code, out, err = run(base, "--freeze-bn", mode, "--json", tmp_path / "report.json")
    assert code == 0, err
    old, new = checkpoint.read(base).state_dict, checkpoint.read(tmp_path / "new.pt").state_dict
    same = [torch.equal(old[k], v) for k, v in statistics(new).items()]
    assert len(same) == 6
    assert all(same) == any(same) == (mode != "none")
    assert torch.equal(old["bn1.weight"], new["bn1.weight"]) == (mode == "all")
    assert not torch.equal(old["conv1.weight"], new["conv1.weight"])

    report = json.loads((tmp_path / "report.json").read_text())
    assert report["frozen"] == ([] if mode == "none" else ["bn1", "bn2", "bn3"])
    moved = max(row["max_shift"] for row in report["moved"])
    assert (moved > 0.01) == (mode == "none")
    assert ("--freeze-bn stats keeps it" in out) == (mode == "none")
    assert ("each batch of 4 is normalised by itself" in out) == (mode == "none")
    assert "--hidden 0 makes a head without one" in out


def test_only_the_head_learns_and_yet_statistics_would_move(
    base: Path, run: Run, tmp_path: Path
) -> None:
    """The trap: no weight changes, and the network in front of the head is another one."""
    run(base, "--only-head", "--freeze-bn", "none")
    old, new = checkpoint.read(base).state_dict, checkpoint.read(tmp_path / "new.pt").state_dict
    weights = [k for k in old if k in new and "running" not in k and "tracked" not in k]
    assert len(weights) == 9
    assert all(torch.equal(old[k], new[k]) for k in weights)
    assert not torch.equal(old["bn1.running_mean"], new["bn1.running_mean"])

    run(base, "--only-head", "--freeze-bn", "stats")
    new = checkpoint.read(tmp_path / "new.pt").state_dict
    kept = [k for k in old if k in new]
    assert all(torch.equal(old[k], new[k]) for k in kept)


def test_what_it_writes_folds_to_no_batch_norm(base: Path, run: Run, tmp_path: Path) -> None:
    run(base, "--hidden", "8")
    written = checkpoint.read(tmp_path / "new.pt")
    assert written.labels == ["5", "6", "7", "8", "9"]
    assert written.heads == [{"at": "fc4", "hidden": 8, "classes": 5}]
    assert written.training == {"freeze_bn": "stats", "only_head": False}
    assert written.module()(torch.zeros(2, 1, 28, 28)).shape == (2, 5)
    result = fold(load(tmp_path / "new.pt"))
    assert result.proof.passed
    assert (result.before.batchnorms, result.after.batchnorms) == (4, 0)


def test_a_finetuned_network_is_a_base_again(base: Path, run: Run, tmp_path: Path) -> None:
    run(base, "--hidden", "8")
    (tmp_path / "new.pt").rename(tmp_path / "first.pt")
    code, out, err = run(tmp_path / "first.pt", "--hidden", "0")
    assert code == 0, err
    assert "warning" not in out
    written = checkpoint.read(tmp_path / "new.pt")
    assert [head["at"] for head in written.heads] == ["fc4", "fc4.out"]
    assert written.module()(torch.zeros(2, 1, 28, 28)).shape == (2, 5)


@pytest.mark.slow
def test_the_same_seed_gives_the_same_file(base: Path, run: Run, tmp_path: Path) -> None:
    run(base)
    first_bytes = (tmp_path / "new.pt").read_bytes()
    run(base)
    assert (tmp_path / "new.pt").read_bytes() == first_bytes
    run(base, "--seed", "1")
    assert (tmp_path / "new.pt").read_bytes() != first_bytes


def test_a_library_s_network_with_and_without_weights(run: Run, tmp_path: Path) -> None:
    declare_torchvision_operators()
    arguments = ["--arch", "timm:resnet10t", "--arch-arg", "in_chans=1", "--samples", "8"]
    code, _, err = run(*arguments)
    assert code == 0, err
    written = checkpoint.read(tmp_path / "new.pt")
    assert written.architecture == "timm:resnet10t"
    assert written.heads[0]["at"] == "fc"
    assert written.module()(torch.zeros(2, 1, 28, 28)).shape == (2, 5)

    torch.manual_seed(9)
    module = described.build("timm:resnet10t", {"in_chans": 1})
    torch.save(module.state_dict(), tmp_path / "weights.pth")
    code, _, err = run(tmp_path / "weights.pth", *arguments, "--only-head")
    assert code == 0, err
    state = checkpoint.read(tmp_path / "new.pt").state_dict
    own = module.state_dict()
    assert all(torch.equal(state[k], own[k]) for k in own if not k.startswith("fc."))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "there is nothing to start from"),
        (["--arch", "os:getcwd"], "is not a name that a checkpoint may give"),
        (["--arch", "cnn", "--batch-size", "1"], "one sample has no variance"),
        (["--arch", "cnn", "--head-at", "bn1"], "and a head replaces a dense layer"),
        (["--arch", "cnn", "--head-at", "nowhere"], "no layer 'nowhere'"),
        (["--arch", "cnn", "--hidden", "-1"], "'hidden' is -1"),
        (["--arch", "cnn", "--classes", "5,x"], "no class 'x'"),
        (["--arch", "cnn", "--classes", "5"], "two or more different classes"),
        (["--arch", "cnn", "--samples", "1"], "--samples is 1"),
        (["--arch", "timm:resnet10t", "--arch-arg", "act_layer=relu"], "'act_layer'"),
        (["--arch", "timm:resnet10t", "--samples", "8"], "does not run on images (1, 28, 28)"),
    ],
)
def test_refusals(arguments: list[str], sentence: str, run: Run, tmp_path: Path) -> None:
    declare_torchvision_operators()
    code, _, err = run(*arguments)
    assert code == 2
    assert sentence in err
    assert not (tmp_path / "new.pt").exists()


def test_the_base_is_never_overwritten(base: Path, run: Run) -> None:
    before = base.read_bytes()
    code, _, err = run(base, "--output", base)
    assert code == 2
    assert "is the base itself" in err
    assert base.read_bytes() == before


@pytest.mark.parametrize(
    ("heads", "sentence"),
    [
        ([{"at": "fc4", "hidden": 8}], "not described by at, hidden and classes"),
        ([{"at": "fc4", "hidden": 1 << 20, "classes": 5}], "'hidden' is 1048576"),
        ([{"at": "fc4", "hidden": 0, "classes": True}], "'classes' is True"),
        ([{"at": "", "hidden": 0, "classes": 5}], "'at' is ''"),
        ([{"at": "fc4", "hidden": 0, "classes": 5}] * 9, "puts 9 heads"),
    ],
)
def test_heads_of_a_stranger_s_file_are_checked(heads: list[Any], sentence: str) -> None:
    with pytest.raises(UserError) as raised:
        described.build("cnn", {}, heads)
    assert sentence in raised.value.message


def test_a_network_that_does_not_end_in_a_dense_layer() -> None:
    module = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.Softmax(1))
    with pytest.raises(UserError, match="not that of a dense layer"):
        described.classifier(module, torch.zeros(2, 1, 2, 2))
    assert described.classifier(module[:2], torch.zeros(2, 1, 2, 2)) == "1"
    assert not any(m._forward_hooks for m in module.modules())


def test_classes_are_numbered_anew(new_task: Dataset) -> None:
    assert new_task.labels == ["5", "6", "7", "8", "9"]
    assert set(new_task.train.labels.tolist()) == {0, 1, 2, 3, 4}
    swapped = only_classes(new_task, ["9", "5"])
    nines = new_task.train.images[new_task.train.labels == 4]
    assert torch.equal(swapped.train.images[swapped.train.labels == 0], nines)
    assert len(first(new_task, 7, 0).train) == 7


def test_weights_of_another_network_are_refused(new_task: Dataset) -> None:
    base = Base("cnn", {}, (), {"fc1.weight": torch.zeros(2, 2)})
    with pytest.raises(UserError, match="do not fit"):
        finetune(base, new_task, Transfer(epochs=1))
