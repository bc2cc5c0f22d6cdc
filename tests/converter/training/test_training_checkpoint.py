"""The checkpoint's file: what it says about itself, and what is refused."""

from __future__ import annotations

import dataclasses
import io
import os
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from converter.architectures import build
from converter.architectures.modules import weights_of
from converter.errors import UserError
from converter.sources import checkpoint
from converter.training import files, mnist
from service.manifest import Preprocessing


def sample(**changes: Any) -> checkpoint.Checkpoint:
    torch.manual_seed(0)
    module = build("mlp", first=4, second=3)
    whole = checkpoint.Checkpoint(
        architecture="mlp",
        arguments={"first": 4, "second": 3},
        state_dict=weights_of(module),
        input_shape=[1, 28, 28],
        labels=mnist.LABELS,
        preprocessing=mnist.PREPROCESSING.model_dump(),
        metrics={"test_accuracy": 0.1},
        description="",
        seed=0,
        epochs=1,
        batch_size=2,
        lr=0.01,
        threads=1,
        statistics=checkpoint.statistics_of(module),
        torch="2",
        dataset="",
        attribution="",
    )
    return dataclasses.replace(whole, **changes)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "checkpoint.pt"


def test_it_is_read_back_as_it_was_written(path: Path) -> None:
    path.write_bytes(checkpoint.to_bytes(sample()))
    found = checkpoint.read(path)
    weights = sample().state_dict
    assert list(found.state_dict) == list(weights)
    assert all(torch.equal(found.state_dict[key], weights[key]) for key in weights)
    assert dataclasses.replace(found, state_dict={}) == sample(state_dict={})
    assert not found.module().training


def test_equal_checkpoints_have_equal_bytes() -> None:
    assert checkpoint.to_bytes(sample()) == checkpoint.to_bytes(sample())


def test_the_file_holds_no_time_and_no_path() -> None:
    content = checkpoint.to_bytes(sample())
    assert str(Path.cwd()).encode() not in content
    assert os.uname().nodename.encode() not in content
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert {entry.date_time[0] for entry in archive.infolist()} == {1980}
        assert all(name.startswith("archive/") for name in archive.namelist())


def test_weights_are_copies(path: Path) -> None:
    module = build("mlp", first=4, second=3)
    weights = weights_of(module)
    before = {key: tensor.clone() for key, tensor in weights.items()}
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(1)
    assert all(torch.equal(weights[key], before[key]) for key in weights)


def save(path: Path, content: object) -> None:
    torch.save(content, path)


def as_dict(**changes: Any) -> dict[str, Any]:
    return {"format": checkpoint.FORMAT, **vars(sample())} | changes


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ([1, 2], "is not a checkpoint of format"),
        ({}, "is not a checkpoint of format"),
        (as_dict(format="foldserve.checkpoint/2"), "this version reads 'foldserve.checkpoint/1'"),
        (as_dict(architecture=["mlp"]), "'architecture' .* is list, not str"),
        (as_dict(arguments=None), "'arguments' .* is NoneType, not dict"),
        (as_dict(seed="0"), "'seed' .* is str, not int"),
        (as_dict(seed=True), "'seed' .* is bool, not int"),
        ({"format": checkpoint.FORMAT}, "'architecture' .* is missing, not str"),
        (as_dict(state_dict={"0.weight": [1.0]}), "'0.weight' in the state_dict"),
        (as_dict(state_dict={1: torch.zeros(1)}), "1 in the state_dict"),
    ],
)
def test_a_file_of_another_shape_is_refused(path: Path, content: object, why: str) -> None:
    save(path, content)
    with pytest.raises(UserError, match=why):
        checkpoint.read(path)


class Evil:
    """Pickles to a call; reading it with weights_only must not make that call."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, ("made-by-a-pickle",)


def test_a_pickled_call_is_refused_and_not_made(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    save(path, as_dict(description=Evil()))
    with pytest.raises(UserError, match=r"holds more than tensors: .*mkdir"):
        checkpoint.read(path)
    assert not (tmp_path / "made-by-a-pickle").exists()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x80\x02.", b"not a checkpoint"])
def test_a_damaged_file_is_refused(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"is a damaged torch\.save file|cannot be read as tensors"):
        checkpoint.read(path)


def test_a_truncated_file_is_refused(path: Path) -> None:
    path.write_bytes(checkpoint.to_bytes(sample())[:-100])
    with pytest.raises(UserError, match=r"is a damaged torch\.save file|cannot be read as tensors"):
        checkpoint.read(path)


def test_a_missing_file_is_refused(path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read: No such file"):
        checkpoint.read(path)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"architecture": "lenet"}, "unknown architecture 'lenet'"),
        ({"arguments": {"first": 10**9}}, "argument 'first' .* is 1000000000"),
        ({"arguments": {3: 4}}, "takes no argument 3"),
        ({"arguments": {}}, "the weights of the checkpoint are not those of mlp"),
        ({"state_dict": {}}, "the weights of the checkpoint are not those of mlp"),
    ],
)
def test_contradictions_are_refused(changes: dict[str, Any], why: str) -> None:
    with pytest.raises(UserError, match=why):
        sample(**changes).module()


def test_the_old_file_stays_when_the_disk_refuses(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path.write_bytes(b"old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="cannot be written: No space left on device"):
        files.write(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(path.parent.iterdir()) == [path]


def test_what_cannot_be_written_is_known_beforehand(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="is a folder"):
        files.require_writable(tmp_path)
    with pytest.raises(UserError, match="cannot be made"):
        files.require_writable(tmp_path / "file" / "checkpoint.pt")


def test_the_shipped_checkpoint_describes_itself(shipped: Path) -> None:
    content = torch.load(shipped, weights_only=True)
    assert content["format"] == "foldserve.checkpoint/1"
    assert content["architecture"] == "mnist_cnn"
    assert content["input_shape"] == [1, 28, 28]
    assert content["labels"] == list("0123456789")
    assert Preprocessing(**content["preprocessing"]) == mnist.PREPROCESSING
    assert content["dataset"] == "MNIST"
    assert "LeCun" in content["attribution"]
    assert content["metrics"]["test_accuracy"] >= 0.993
    assert content["statistics"]["kind"] == "exponential moving average"
    assert content["statistics"]["momentum"] == 0.1
    assert content["statistics"]["batches"] == content["epochs"] * (60_000 // content["batch_size"])
    assert shipped.stat().st_size < 800_000
