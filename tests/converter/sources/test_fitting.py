"""Names before the network's, and weights beside it, as wrappers and trainers write them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from source_nets import ConvNet
from torch import Tensor, nn

from converter.errors import UserError
from converter.sources import LoadOptions
from converter.sources.trained import Trained, load_module
from patterns.networks import randomize_batchnorms

State = dict[str, Tensor]


@pytest.fixture
def module() -> nn.Module:
    torch.manual_seed(5)
    return randomize_batchnorms(ConvNet()).eval()


def read(tmp_path: Path, content: object, arch: str = "source_nets:ConvNet") -> Trained:
    path = tmp_path / "model.ckpt"
    torch.save(content, path)
    return load_module(path, LoadOptions(arch=arch))


def state(module: nn.Module, prefix: str = "") -> State:
    return {prefix + name: tensor for name, tensor in module.state_dict().items()}


def same(found: nn.Module, module: nn.Module) -> bool:
    return all(torch.equal(v, module.state_dict()[k]) for k, v in found.state_dict().items())


@pytest.mark.parametrize(
    "prefix",
    [
        "module.", "_orig_mod.", "backbone.", "model.", "net.", "model.model.", "module.model.",
        "model.module.", "model._orig_mod.module.", "student.backbone.encoder.",
        "_fsdp_wrapped_module.", "model._checkpoint_wrapped_module.", "0.", "conv.",
    ],
)  # fmt: skip
@pytest.mark.parametrize("beside", [False, True])
def test_prefixes(tmp_path: Path, module: nn.Module, prefix: str, beside: bool) -> None:
    extra = {
        "criterion.weight": torch.ones(5),
        "train_acc.correct": torch.tensor([3.0]),
        "ssl_projector.0.weight": torch.ones(4, 4),
        "temperature": torch.ones(1),
    }
    content = {"state_dict": {**(extra if beside else {}), **state(module, prefix)}}
    found = read(tmp_path, content)
    assert same(found.module, module)
    unused = [note for note in found.notes if note.startswith("not used: ")]
    assert bool(unused) is beside
    for name in extra if beside else ():
        assert f"state_dict.{name.partition('.')[0]} (1 tensor)" in unused[0]


@pytest.mark.parametrize(
    "name", ["loss.weight", "criterion.weight", "loss_fn.pos_weight", "val_acc.total",
             "test_metrics.f1.tp", "bce_loss.weight", "train_loss.value"],
)  # fmt: skip
def test_a_loss_beside_the_layers(tmp_path: Path, module: nn.Module, name: str) -> None:
    """A LightningModule whose layers are its own attributes."""
    found = read(tmp_path, {"state_dict": {name: torch.ones(5), **state(module)}})
    assert same(found.module, module)
    assert f"state_dict.{name.partition('.')[0]} (1 tensor)" in "\n".join(found.notes)


@pytest.mark.parametrize("name", ["norm.weight", "head.bias", "extra", "glossy.weight", "accent.w"])
def test_a_layer_beside_the_layers_is_refused(tmp_path: Path, module: nn.Module, name: str) -> None:
    """It may be a part of another network than the one that was named."""
    for prefix in ("", "net."):
        content = {prefix + name: torch.ones(5), **state(module, prefix)}
        with pytest.raises(UserError, match="1 unexpected"):
            read(tmp_path, content)


def test_a_layer_that_is_called_loss(tmp_path: Path) -> None:
    module = nn.Sequential()
    module.add_module("loss", nn.Linear(2, 2))
    found = read(tmp_path, module.state_dict(), "test_fitting:with_loss")
    assert torch.equal(found.module.loss.weight, module.loss.weight)
    with pytest.raises(UserError, match=r"1 unexpected: loss\.extra"):
        read(
            tmp_path, {**module.state_dict(), "loss.extra": torch.ones(2)}, "test_fitting:with_loss"
        )


def with_loss() -> nn.Module:
    module = nn.Sequential()
    module.add_module("loss", nn.Linear(2, 2))
    return module


class HasModule(nn.Module):
    """A network of its own with a child of the name that DataParallel uses."""

    def __init__(self) -> None:
        super().__init__()
        self.module = nn.Linear(2, 2)
        self.other = nn.Linear(2, 2)


@pytest.mark.parametrize("prefix", ["", "module.", "net."])
def test_a_child_named_module(tmp_path: Path, prefix: str) -> None:
    module = HasModule()
    found = read(tmp_path, state(module, prefix), "test_fitting:HasModule")
    assert same(found.module, module)


def test_two_networks_behind_prefixes(tmp_path: Path, module: nn.Module) -> None:
    other = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    content = {"state_dict": state(module, "generator.") | state(other, "discriminator.")}
    found = read(tmp_path, content)
    assert same(found.module, module)
    assert found.notes[0] == (
        "the weights under 'state_dict.generator' were taken, which are those of "
        "source_nets:ConvNet"
    )
    assert "not used: state_dict.discriminator (7 tensors)" in found.notes[1]


def test_the_shortest_of_nested_copies(tmp_path: Path, module: nn.Module) -> None:
    """A usual name before one that tells nothing: the copy inside is another's."""
    other = randomize_batchnorms(ConvNet(), 9)
    found = read(tmp_path, {"state_dict": state(other, "target_net.") | state(module, "net.")})
    assert same(found.module, module)


class Transposed(nn.Module):
    """Two weights on the same numbers, one of them turned."""

    def __init__(self, turned: bool = True) -> None:
        super().__init__()
        self.up = nn.Linear(3, 3, bias=False)
        self.down = nn.Linear(3, 3, bias=False)
        weight = self.up.weight.detach()
        self.down.weight = nn.Parameter(weight.T if turned else weight)


def test_a_transposed_weight_is_not_tied(tmp_path: Path) -> None:
    stored = {"up.weight": torch.randn(3, 3)}
    with pytest.raises(UserError, match=r"1 missing: down\.weight"):
        read(tmp_path, stored, "test_fitting:Transposed")
    path = tmp_path / "model.ckpt"
    same_way = LoadOptions(arch="test_fitting:Transposed", arch_args={"turned": False})
    trained = load_module(path, same_way)
    assert torch.equal(trained.module.down.weight, stored["up.weight"])


def test_the_nearest_is_the_one_with_most_that_fits(tmp_path: Path, module: nn.Module) -> None:
    """Not the smallest set, of which there is the least to complain about."""
    deep = {**state(module), **{f"more.{i}.weight": torch.ones(2) for i in range(90)}}
    with pytest.raises(UserError, match="of 'state_dict', the nearest, are 90 unexpected"):
        read(tmp_path, {"state_dict": deep, "mean": torch.zeros(3)})
