"""Our own checkpoint: built from a closed table, carried over to the manifest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from converter import architectures
from converter.errors import UserError
from converter.sources import InputShape, LoadOptions, load
from patterns.networks import randomize_batchnorms

LABELS = [str(digit) for digit in range(10)]


@pytest.fixture
def content() -> dict[str, Any]:
    torch.manual_seed(1)
    arguments = {"width": 4, "hidden": 8}
    module = randomize_batchnorms(architectures.build("mnist_cnn", **arguments))
    return {
        "format": "foldserve.checkpoint/1",
        "architecture": "mnist_cnn",
        "arguments": arguments,
        "state_dict": module.state_dict(),
        "input_shape": [1, 28, 28],
        "labels": LABELS,
        "preprocessing": {"layout": "CHW", "channels": "L", "height": 28, "width": 28},
        "metrics": {"test_accuracy": 0.99},
        "description": "Digits.",
        "seed": 0,
        "statistics": {"kind": "exponential moving average", "momentum": 0.1},
    }


def save(tmp_path: Path, content: dict[str, Any]) -> Path:
    path = tmp_path / "mnist.pt"
    torch.save(content, path)
    return path


def test_everything_is_carried_over(tmp_path: Path, content, assert_same, op_types) -> None:
    loaded = load(save(tmp_path, content))
    module = architectures.build("mnist_cnn", **content["arguments"])
    module.load_state_dict(content["state_dict"])
    assert_same(loaded, module.eval())
    assert op_types(loaded).count("BatchNormalization") == 6
    assert loaded.kind == "a checkpoint of mnist_cnn"
    assert loaded.inputs[0].shape == ("batch", 1, 28, 28)
    assert loaded.notes == ["input shape 1,28,28 from the checkpoint; --input-shape overrides it"]
    assert loaded.classification is not None
    assert loaded.classification.output == loaded.model.graph.outputs[0].name
    assert loaded.classification.labels == LABELS
    assert loaded.classification.activation == "softmax"
    assert loaded.preprocessing is not None
    assert loaded.preprocessing.channels == "L"
    assert loaded.metrics == {"test_accuracy": 0.99}
    assert loaded.description == "Digits."
    assert loaded.untracked == frozenset()


def test_only_the_network_is_required(tmp_path: Path, content) -> None:
    for key in ("labels", "preprocessing", "metrics", "description"):
        del content[key]
    loaded = load(save(tmp_path, content))
    assert loaded.classification is None
    assert loaded.preprocessing is None
    assert loaded.metrics == {}


def test_the_shape_can_be_overridden(tmp_path: Path, content) -> None:
    with pytest.raises(UserError, match="does not run with input shape 1,9,9"):
        load(save(tmp_path, content), LoadOptions(input_shapes=(InputShape((1, 9, 9)),)))


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"format": "foldserve.checkpoint/2"}, "this version reads 'foldserve.checkpoint/1'"),
        ({"architecture": "os.system"}, "os.system"),
        ({"architecture": 3}, "is int, not str"),
        ({"arguments": {"width": 10**9}}, "width"),
        ({"arguments": {"depth": 3}}, "depth"),
        ({"arguments": None}, "is NoneType, not dict"),
        ({"state_dict": {}}, "missing"),
        ({"state_dict": {1: torch.zeros(1)}}, "is not a tensor with a name"),
        ({"state_dict": {"w": 3}}, "is not a tensor with a name"),
        ({"input_shape": []}, "is not a shape"),
        ({"input_shape": ["a"]}, "is not a shape"),
        ({"input_shape": [0, 28, 28]}, "is not a shape"),
        ({"labels": [1, 2]}, "describes itself wrongly"),
        ({"preprocessing": {"mode": "x"}}, "describes itself wrongly"),
        ({"metrics": {"a": "b"}}, "describes itself wrongly"),
        ({"metrics": [1]}, "is list, not dict"),
    ],
)
def test_wrong_checkpoints(tmp_path: Path, content, changes: dict, complaint: str) -> None:
    with pytest.raises(UserError) as raised:
        load(save(tmp_path, content | changes))
    assert complaint in str(raised.value)


def test_a_foreign_format_key_is_no_checkpoint_of_ours(tmp_path: Path) -> None:
    path = save(tmp_path, {"format": "pt", "state_dict": {"w": torch.zeros(1)}})
    with pytest.raises(UserError, match="is a state_dict: 1 tensors"):
        load(path)
