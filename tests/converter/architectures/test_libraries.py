"""Networks of timm and torchvision by name: a closed table, nothing downloaded."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from converter import load
from converter.architectures import complete, libraries, lookup
from converter.architectures.modules import weights_of
from converter.errors import UserError
from converter.pipeline import preview
from converter.training import Style, TrainOptions, build, train
from patterns.networks import declare_torchvision_operators

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def operators() -> None:
    declare_torchvision_operators()


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("timm:resnet18", (1, 32, 32)),
        ("timm:mobilenetv3_small_050", (4, 40, 32)),
        ("torchvision:resnet18", (3, 32, 32)),
        ("torchvision:shufflenet_v2_x0_5", (1, 64, 64)),
    ],
)
def test_they_take_the_images_and_classes_of_the_data(
    name: str, shape: tuple[int, int, int]
) -> None:
    arguments = complete(name, {"input_shape": list(shape), "classes": 7})
    module = build(name, **arguments)
    assert module.training
    assert module(torch.rand(2, *shape)).shape == (2, 7)
    assert lookup(name).description == name.replace(":", "'s ")


def test_a_checkpoint_of_one_is_read_back() -> None:
    name, arguments = "timm:resnet10t", {"input_shape": [3, 32, 32], "classes": 3}
    torch.manual_seed(0)
    module = build(name, **arguments)
    torch.manual_seed(0)
    again = build(name, **arguments)
    again.load_state_dict(weights_of(module))
    x = torch.rand(2, 3, 32, 32)
    assert torch.equal(module.eval()(x), again.eval()(x))


@pytest.mark.parametrize(
    "name",
    [
        "timm:resnet19",
        "timm:hf-hub:someone/net",
        "timm:hf_hub:someone/net",
        "timm:",
        "timm:../resnet18",
        "torchvision:fcn_resnet50",  # segmentation
        "torchvision:quantized_resnet18",
    ],
)
def test_only_what_the_library_registers(name: str) -> None:
    with pytest.raises(UserError, match="has no model"):
        build(name, input_shape=(3, 32, 32))


def test_no_other_library() -> None:
    with pytest.raises(UserError, match="unknown architecture 'os:system'"):
        build("os:system")


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(UserError, match="takes no style, norm"):
        build("timm:resnet18", input_shape=(3, 32, 32), style=Style(norm="none"))
    with pytest.raises(UserError, match="three channels, not 4"):
        build("torchvision:resnet18", input_shape=(4, 32, 32))
    with pytest.raises(UserError, match="are too small"):
        build("timm:resnet18")
    with pytest.raises(UserError, match="takes no argument 'width'"):
        build("timm:resnet18", input_shape=(3, 32, 32), width=3)
    with pytest.raises(UserError, match="parameters, more than"):
        build("timm:vit_giant_patch14_224", input_shape=(3, 224, 224))


def test_a_library_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(UserError, match="timm is not installed") as raised:
        build("timm:resnet18", input_shape=(3, 32, 32))
    assert "pip install timm" in raised.value.hint


def test_a_library_for_another_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_library.py").write_text("raise RuntimeError('operator nms does not exist')")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(UserError, match="cannot be imported: RuntimeError: operator nms"):
        libraries.imported("broken_library")


def test_one_is_trained_on_other_data_and_folds(tmp_path: Path) -> None:
    data, output = tmp_path / "data.npz", tmp_path / "checkpoint.pt"
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (40, 3, 32, 32), dtype=np.uint8)
    np.savez(data, x=images, y=np.arange(40) % 3)
    options = TrainOptions(
        arch="timm:resnet10t",
        dataset=str(data),
        output=output,
        epochs=1,
        batch_size=16,
        device="cpu",
        threads=1,
    )
    train(options)
    found = preview(load(output))
    assert (found.before.batchnorms, found.after.batchnorms) == (
        14,
        0,
    )  # stem 3, blocks 8, shortcuts 3
