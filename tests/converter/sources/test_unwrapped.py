"""What training wraps around whole modules comes off before anything runs."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
import torch
from source_nets import ConvNet
from torch import distributed, nn

from converter.errors import UserError
from converter.sources import LoadOptions, load
from converter.sources.trained import load_module
from converter.sources.unwrapped import unwrap
from converter.system.quiet import torch_quiet
from patterns.networks import randomize_batchnorms

pytestmark = pytest.mark.slow

TRUST = LoadOptions(trust_pickle=True)


class Holder(nn.Module):
    """As timm's ModelEmaV2: it keeps a module and cannot be called."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module
        self.decay = 0.99


class Calls(nn.Module):
    """A network of its own whose only part happens to be called `module`."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.module(x) * 2


def compiled(module: nn.Module) -> nn.Module:
    with torch_quiet():
        return torch.compile(module)


def net(seed: int = 0) -> nn.Module:
    return randomize_batchnorms(ConvNet(), seed).eval()


@pytest.fixture
def no_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert not any(shutil.which(name) for name in ("g++", "gcc", "cc", "clang"))


@pytest.mark.usefixtures("no_compiler")
def test_a_compiled_module_needs_no_compiler(tmp_path: Path, assert_same) -> None:
    module = net()
    path = tmp_path / "model.pt"
    torch.save(compiled(module), path)
    loaded = load(path, TRUST)
    assert loaded.kind == "a pickled ConvNet"
    assert "torch.compile was taken off the module" in loaded.notes
    assert_same(loaded, module)


@pytest.mark.parametrize(
    ("wrap", "said"),
    [
        (nn.DataParallel, "DataParallel"),
        (torch.optim.swa_utils.AveragedModel, "AveragedModel"),
        (Holder, "Holder"),
        (compiled, "torch.compile"),
        (lambda m: compiled(nn.DataParallel(m)), "torch.compile and DataParallel"),
        (lambda m: nn.DataParallel(compiled(m)), "DataParallel and torch.compile"),
    ],
)
def test_wrappers_come_off(tmp_path: Path, wrap, said: str) -> None:
    module = net()
    path = tmp_path / "model.pt"
    torch.save({"model": wrap(module)}, path)
    trained = load_module(path, TRUST)
    assert type(trained.module) is ConvNet
    assert trained.notes == (
        "the module under 'model' was taken",
        f"{said} was taken off the module",
    )


def test_a_part_that_was_compiled(tmp_path: Path) -> None:
    module = nn.Sequential(compiled(net()), nn.ReLU())
    bare, names = unwrap(module)
    assert names == ["torch.compile"]
    assert type(bare[0]) is ConvNet


def test_what_computes_is_no_wrapper() -> None:
    module = Calls(net())
    assert unwrap(module) == (module, [])


@pytest.mark.skipif(not distributed.is_available(), reason="a torch without torch.distributed")
def test_a_distributed_module_needs_no_process_group(tmp_path: Path, assert_same) -> None:
    module = net()
    path = tmp_path / "model.pt"
    distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path}/group", rank=0, world_size=1
    )
    try:
        torch.save(nn.parallel.DistributedDataParallel(module), path)
    finally:
        distributed.destroy_process_group()
    loaded = load(path, TRUST)
    assert "DistributedDataParallel was taken off the module" in loaded.notes
    assert_same(loaded, module)


def test_of_several_modules_the_averaged_one(tmp_path: Path) -> None:
    plain, averaged = net(1), net(2)
    path = tmp_path / "model.pt"
    torch.save({"model": plain, "ema": averaged, "optimizer": {"param_groups": []}}, path)
    trained = load_module(path, TRUST)
    assert torch.equal(trained.module.fc.weight, averaged.fc.weight)
    assert "not used: model (20 tensors); --weights NAME takes others" in trained.notes
    chosen = load_module(path, LoadOptions(trust_pickle=True, weights="model"))
    assert torch.equal(chosen.module.fc.weight, plain.fc.weight)
    with pytest.raises(UserError, match=r"no weights under 'net'\. It holds model"):
        load_module(path, LoadOptions(trust_pickle=True, weights="net"))


def test_modules_whose_names_tell_nothing(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    torch.save({"G": net(1), "D": net(2)}, path)
    with pytest.raises(UserError, match="holds several modules") as raised:
        load_module(path, TRUST)
    assert "--weights G" in raised.value.hint


def test_a_module_with_an_architecture_is_its_weights(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    module = net()
    torch.save({"model": nn.DataParallel(module)}, path)
    trained = load_module(path, LoadOptions(trust_pickle=True, arch="source_nets:ConvNet"))
    assert torch.equal(trained.module.fc.weight, module.fc.weight)


def test_without_trust_nothing_is_unwrapped(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    torch.save(nn.DataParallel(net()), path)
    with pytest.raises(UserError, match="DataParallel") as raised:
        load(path)
    assert "--trust-pickle" in raised.value.hint
    assert os.environ.get("MASTER_PORT") is None
