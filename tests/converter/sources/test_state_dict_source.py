"""Weights and `--arch`: where the weights are found, and how they are fitted to the network."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx_ir as ir
import pytest
import torch
from safetensors.torch import save_file
from source_nets import ConvNet
from torch import Tensor, nn

from converter.architectures import libraries
from converter.errors import UserError
from converter.sources import InputShape, Loaded, LoadOptions, arch, load, state_dict, torch_
from patterns.networks import (
    declare_torchvision_operators,
    randomize_batchnorms,
    timm_model,
    torchvision_model,
)

pytestmark = pytest.mark.slow

ARCH = LoadOptions(arch="source_nets:ConvNet", input_shapes=(InputShape((3, 8, 8)),))


@pytest.fixture
def module() -> nn.Module:
    torch.manual_seed(3)
    return randomize_batchnorms(ConvNet()).eval()


@pytest.fixture
def filled(monkeypatch: pytest.MonkeyPatch) -> list[nn.Module]:
    """The modules that would have been exported: exports take a second each."""
    modules: list[nn.Module] = []

    def note(module: nn.Module, *, path: Path, kind: str, **rest: object) -> Loaded:
        modules.append(module)
        graph = ir.Graph([], [], nodes=[], opset_imports={"": 20})
        return Loaded(ir.Model(graph, ir_version=10), (), path, kind)

    monkeypatch.setattr(state_dict, "from_module", note)
    return modules


def assert_equal(filled: Sequence[nn.Module], module: nn.Module) -> None:
    mine = filled[-1].state_dict()
    assert mine.keys() == module.state_dict().keys()
    for name, tensor in module.state_dict().items():
        assert torch.equal(mine[name], tensor), name


def save(tmp_path: Path, content: object, **options: Any) -> Path:
    path = tmp_path / "weights.pt"
    torch.save(content, path, **options)
    return path


@pytest.mark.parametrize(
    "keys",
    [
        [],
        ["state_dict"],
        ["model"],
        ["model_state_dict"],
        ["ema"],
        ["state_dict_ema"],
        ["model_ema"],
        ["ema", "module"],
        ["checkpoint", "model"],
    ],
)
def test_where_weights_are_found(
    tmp_path: Path, module: nn.Module, filled: list[nn.Module], keys: list[str]
) -> None:
    content: Any = module.state_dict()
    for key in reversed(keys):
        content = {key: content, "epoch": 3, "optimizer": {"lr": 0.1}}
    path = save(tmp_path, content)
    loaded = load(path, ARCH)
    assert_equal(filled, module)
    said = ".".join(key for key in keys)
    assert (f"the weights under {said!r} were taken" in loaded.notes) is bool(keys)


def test_the_weights_give_the_same(
    tmp_path: Path, module: nn.Module, assert_same, op_types
) -> None:
    loaded = load(save(tmp_path, module.state_dict()), ARCH)
    assert_same(loaded, module)
    assert op_types(loaded).count("BatchNormalization") == 3
    assert loaded.kind == "a torch.save file with weights of source_nets:ConvNet"
    assert loaded.untracked == frozenset()


def test_legacy_format(tmp_path: Path, module: nn.Module, filled) -> None:
    path = save(tmp_path, module.state_dict(), _use_new_zipfile_serialization=False)
    load(path, ARCH)
    assert_equal(filled, module)


def test_safetensors(tmp_path: Path, module: nn.Module, assert_same) -> None:
    path = tmp_path / "weights.bin"
    save_file(module.state_dict(), path)
    loaded = load(path, ARCH)
    assert_same(loaded, module)
    assert loaded.kind == "a safetensors file with weights of source_nets:ConvNet"
    with pytest.raises(UserError, match="20 tensors"):
        load(path)


def test_damaged_safetensors(tmp_path: Path, module: nn.Module) -> None:
    path = tmp_path / "weights.safetensors"
    save_file(module.state_dict(), path)
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(UserError, match="damaged safetensors"):
        load(path, ARCH)


def test_the_averaged_weights_are_preferred(tmp_path: Path, module: nn.Module, filled) -> None:
    other = ConvNet().state_dict()
    path = save(tmp_path, {"state_dict": other, "state_dict_ema": module.state_dict()})
    loaded = load(path, ARCH)
    assert_equal(filled, module)
    assert loaded.notes[:2] == [
        "the weights under 'state_dict_ema' were taken: averaged weights are the ones that are "
        "evaluated",
        "not used: state_dict (20 tensors); --weights NAME takes others",
    ]


@pytest.mark.parametrize(
    "prefix", ["module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module.", "module.module."]
)
def test_prefixes_of_wrappers(tmp_path: Path, module: nn.Module, filled, prefix: str) -> None:
    content = {prefix + name: tensor for name, tensor in module.state_dict().items()}
    loaded = load(save(tmp_path, content), ARCH)
    assert_equal(filled, module)
    assert any("taken off the weights' names" in note for note in loaded.notes)


def test_a_submodule_that_was_compiled(tmp_path: Path, module: nn.Module, filled) -> None:
    content = {k.replace("bn1.", "bn1._orig_mod."): v for k, v in module.state_dict().items()}
    load(save(tmp_path, content), ARCH)
    assert_equal(filled, module)


def test_an_averaged_model_of_torch(tmp_path: Path, module: nn.Module, filled) -> None:
    averaged = torch.optim.swa_utils.AveragedModel(module)
    load(save(tmp_path, averaged.state_dict()), ARCH)
    assert_equal(filled, module)


def test_the_prefix_of_a_lightning_module(tmp_path: Path, module: nn.Module, filled) -> None:
    content = {f"net.{name}": tensor for name, tensor in module.state_dict().items()}
    loaded = load(save(tmp_path, {"state_dict": content}), ARCH)
    assert_equal(filled, module)
    assert "net. was taken off the weights' names" in loaded.notes


def test_half_precision_is_widened(tmp_path: Path, module: nn.Module, assert_same) -> None:
    path = save(tmp_path, module.half().state_dict())
    assert_same(load(path, ARCH), module.float())


def test_without_arch_the_file_is_described(tmp_path: Path, module: nn.Module) -> None:
    with pytest.raises(UserError) as raised:
        load(save(tmp_path, module.state_dict()))
    assert "20 tensors (conv.weight, bn1.weight, bn1.bias, ...), 3 batch-norms" in str(raised.value)
    assert "--arch timm:resnet50" in raised.value.hint


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ({}, "its keys are"),
        ({"epoch": 3}, "'epoch'"),
        ([1, 2], "it is a list"),
        (torch.zeros(3), "it is a Tensor"),
    ],
)
def test_no_weights(tmp_path: Path, content: object, found: str) -> None:
    with pytest.raises(UserError, match=found) as raised:
        load(save(tmp_path, content), ARCH)
    assert "state_dict()" in raised.value.hint


def test_a_network_under_a_name_of_its_own(tmp_path: Path, module: nn.Module, filled) -> None:
    load(save(tmp_path, {"generator": module.state_dict(), "epoch": 3}), ARCH)
    assert_equal(filled, module)


def test_of_several_networks_the_one_that_fits(tmp_path: Path, module: nn.Module, filled) -> None:
    other = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)).state_dict()
    wrapped = {f"module.{name}": tensor for name, tensor in module.state_dict().items()}
    path = save(tmp_path, {"D": other, "G": wrapped, "D_steps": 2})
    loaded = load(path, ARCH)
    assert_equal(filled, module)
    assert loaded.notes[:2] == [
        "the weights under 'G' were taken, which are those of source_nets:ConvNet",
        "not used: D (7 tensors); --weights NAME takes others",
    ]
    with pytest.raises(UserError, match=r"several networks: D \(7 tensors\), G \(20"):
        load(path)


@pytest.mark.parametrize("copies", [0, 2])
def test_of_several_networks_none_or_two_fit(
    tmp_path: Path, module: nn.Module, copies: int
) -> None:
    other = nn.Linear(3, 2).state_dict()
    networks = [randomize_batchnorms(ConvNet(), seed) for seed in range(copies)]
    content = {f"net_{i}": network.state_dict() for i, network in enumerate(networks)}
    content |= {"a": other, "b": other}
    with pytest.raises(UserError, match=r"None|several") as raised:
        load(save(tmp_path, content), ARCH)
    assert ("No name tells which" in raised.value.message) is bool(copies)
    assert "net_1" in raised.value.message or not copies


def test_counters_may_be_missing(tmp_path: Path, module: nn.Module, assert_same) -> None:
    """Files from before torch 0.4.1 have none: nothing is known, so nothing is suspected."""
    content = {k: v for k, v in module.state_dict().items() if "num_batches" not in k}
    loaded = load(save(tmp_path, content), ARCH)
    assert_same(loaded, module)
    assert loaded.untracked == frozenset()


def test_batch_norms_that_never_saw_a_batch(tmp_path: Path, module: nn.Module) -> None:
    module.bn2.num_batches_tracked.fill_(0)
    assert load(save(tmp_path, module.state_dict()), ARCH).untracked == frozenset({"bn2"})


def change(**changes: Tensor | None) -> dict[str, Tensor]:
    content = dict(ConvNet().state_dict())
    for key, value in changes.items():
        name = key.replace("__", ".")
        if value is None:
            del content[name]
        else:
            content[name] = value
    return content


@pytest.mark.parametrize(
    ("content", "complaint", "hint"),
    [
        (change(fc__weight=None), "1 missing: fc.weight", "values that the weights"),
        (change(extra=torch.zeros(1)), "1 unexpected: extra", "values that the weights"),
        (
            ConvNet(num_classes=7).state_dict(),
            "6 of another shape: fc.weight is (7, 4), not (5, 4)",
            "--arch-arg num_classes=7",
        ),
        (
            ConvNet(channels=1).state_dict(),
            "1 of another shape: conv.weight is (8, 1, 3, 3), not (8, 3, 3, 3)",
            "takes 1 channels",
        ),
        (
            nn.Linear(2, 2).state_dict(),
            "17 missing: conv.weight, bn1.weight, bn1.bias, ...; 2 unexpected: weight, bias",
            "values that the weights",
        ),
    ],
)
def test_weights_of_another_network(tmp_path: Path, content, complaint: str, hint: str) -> None:
    with pytest.raises(UserError) as raised:
        load(save(tmp_path, content), ARCH)
    assert complaint in raised.value.message
    assert hint in raised.value.hint


@pytest.mark.parametrize(
    ("name", "arguments", "complaint"),
    [
        ("resnet18", {}, "not of a form that is known"),
        (":x", {}, "not of a form that is known"),
        ("source_nets:", {}, "not of a form that is known"),
        ("no_such_package_here:Net", {}, "'no_such_package_here', which is not here"),
        ("source_nets:ConvNets", {}, "has no 'ConvNets'\ndid you mean 'ConvNet'"),
        ("source_nets:broken", {}, "ValueError: depth must be 18 or 34"),
        ("source_nets:no_module", {}, "gives a str, not an nn.Module"),
        ("source_nets:ConvNet", {"depth": 3}, "built with (depth=3): TypeError"),
        ("source_nets:ConvNet.forward.nothing", {}, "has no 'nothing'"),
        ("timm:resnet1018", {}, "timm has no model 'resnet1018'\ndid you mean"),
        ("timm:resnet18", {"pretrained": True}, "--arch-arg pretrained would load other"),
        ("timm:hf-hub:someone/model", {}, "timm has no model"),
        ("torchvision:resnet1", {}, "torchvision has no model 'resnet1'\ndid you mean"),
        ("torchvision:resnet18", {"weights": "DEFAULT"}, "--arch-arg weights would load other"),
    ],
)
def test_architectures_that_cannot_be_built(
    tmp_path: Path, name: str, arguments: dict[str, object], complaint: str
) -> None:
    declare_torchvision_operators()
    path = save(tmp_path, ConvNet().state_dict())
    with pytest.raises(UserError) as raised:
        load(path, LoadOptions(arch=name, arch_args=arguments))
    assert complaint in str(raised.value)


@pytest.mark.parametrize("library", ["timm", "torchvision"])
def test_a_library_that_is_not_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, library: str
) -> None:
    def missing(name: str) -> None:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(libraries, "import_module", missing)
    path = save(tmp_path, ConvNet().state_dict())
    with pytest.raises(UserError) as raised:
        torch_.load(path, LoadOptions(arch=f"{library}:resnet18"))
    assert raised.value.hint == f"pip install {library}"


def test_torchvision_of_another_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(name: str) -> None:
        raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setattr(libraries, "import_module", fails)
    path = save(tmp_path, ConvNet().state_dict())
    with pytest.raises(UserError, match="operator torchvision::nms does not exist") as raised:
        torch_.load(path, LoadOptions(arch="timm:resnet18"))
    assert "install both from the same index" in str(raised.value.hint)


def test_a_package_whose_import_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "failing_import.py").write_text("raise RuntimeError('no GPU here')\n")
    monkeypatch.chdir(tmp_path)
    path = save(tmp_path, ConvNet().state_dict())
    with pytest.raises(UserError, match="cannot be imported: RuntimeError: no GPU here"):
        load(path, LoadOptions(arch="failing_import:Net"))


def test_a_factory_in_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "beside_weights.py").write_text(
        "from torch import nn\n"
        "def make(width=2):\n"
        "    return nn.Sequential(nn.Linear(3, width), nn.BatchNorm1d(width))\n"
    )
    monkeypatch.chdir(tmp_path)
    network = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    path = save(tmp_path, network.state_dict())
    loaded = load(path, LoadOptions(arch="beside_weights:make", arch_args={"width": 4}))
    assert loaded.inputs[0].shape == ("batch", 3)


def test_a_module_that_is_ready(tmp_path: Path, module: nn.Module, filled) -> None:
    path = save(tmp_path, module.state_dict())
    options = LoadOptions(arch="source_nets:READY", input_shapes=ARCH.input_shapes)
    load(path, options)
    assert_equal(filled, module)


@pytest.mark.slow
def test_torchvision(tmp_path: Path, assert_same, op_types) -> None:
    module = randomize_batchnorms(torchvision_model("resnet18", num_classes=10)).eval()
    path = save(tmp_path, {"state_dict": module.state_dict()})
    options = LoadOptions(
        arch="torchvision:resnet18",
        arch_args={"num_classes": 10},
        input_shapes=(InputShape((3, 40, 40)),),
    )
    loaded = load(path, options)
    assert_same(loaded, module)
    assert op_types(loaded).count("BatchNormalization") == 20
    assert {"bn1.running_mean", "layer1.0.bn1.running_var", "layer4.1.conv2.weight"} <= set(
        loaded.model.graph.initializers
    )


@pytest.mark.slow
def test_timm(tmp_path: Path, assert_same, op_types) -> None:
    module = randomize_batchnorms(timm_model("resnet10t", in_chans=1, num_classes=3)).eval()
    path = save(tmp_path, module.state_dict())
    options = LoadOptions(arch="timm:resnet10t", arch_args={"in_chans": 1, "num_classes": 3})
    loaded = load(path, options)
    assert loaded.inputs[0].shape == ("batch", 1, 176, 176)  # timm's own input size
    assert "input shape 1,176,176 from timm; --input-shape overrides it" in loaded.notes
    assert_same(loaded, module, batches=(1, 2))
    norms = sum(isinstance(child, nn.BatchNorm2d) for child in module.modules())
    assert op_types(loaded).count("BatchNormalization") == norms


@pytest.mark.parametrize(("name", "side"), [("resnet18", 224), ("inception_v3", 299)])
def test_torchvision_tells_its_input_size(name: str, side: int) -> None:
    declare_torchvision_operators()
    known = arch.build(f"torchvision:{name}", {}).known
    assert known is not None
    assert known.sizes == (3, side, side)


def test_a_detector_of_torchvision_tells_none() -> None:
    declare_torchvision_operators()
    assert arch.build("torchvision:ssdlite320_mobilenet_v3_large", {}).known is None


def test_a_network_that_insists_on_its_modules_versions(
    tmp_path: Path, filled: list[nn.Module]
) -> None:
    """torchvision's MNASNet refuses a state_dict whose `_metadata` is gone, as prefixes make it."""
    network = randomize_batchnorms(torchvision_model("mnasnet0_5"))
    path = tmp_path / "m.pt"
    torch.save({f"module.{name}": value for name, value in network.state_dict().items()}, path)
    load(path, LoadOptions(arch="torchvision:mnasnet0_5"))
    (found,) = filled
    assert all(
        torch.equal(value, found.state_dict()[name]) for name, value in network.state_dict().items()
    )
