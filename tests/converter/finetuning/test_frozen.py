"""Frozen batch-norms compute the plain affine map, and nothing that a training does thaws them."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import nn

from converter.architectures.renorm import BatchRenorm2d
from converter.errors import UserError
from converter.finetuning.frozen import Frozen, FrozenBatchNorm2d, freeze, thawed
from patterns.networks import declare_torchvision_operators, randomize_batchnorms


def network() -> nn.Sequential:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Sequential(nn.ReLU(), BatchRenorm2d(3)),
        nn.Flatten(), nn.Linear(48, 4), nn.BatchNorm1d(4),
    )  # fmt: skip
    return randomize_batchnorms(net)  # type: ignore[return-value]


def statistics(module: nn.Module) -> dict[str, torch.Tensor]:
    return {
        name: tensor.clone()
        for name, tensor in module.state_dict().items()
        if "running" in name or "tracked" in name
    }


def learn(module: nn.Module, steps: int = 3) -> None:
    """As every training loop does, and as one that means to thaw everything does."""
    module.requires_grad_(True)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    for _ in range(steps):
        module.train()
        for part in module.modules():
            part.training = True
        optimizer.zero_grad()
        module(torch.randn(4, 2, 6, 6) + 3).square().sum().backward()
        optimizer.step()


@pytest.mark.parametrize("mode", ["stats", "all"])
def test_a_frozen_network_computes_what_it_did_in_evaluation(mode: str) -> None:
    x = torch.randn(5, 2, 6, 6)
    expected = network().eval()(x)
    module = network()
    assert freeze(module, mode) == ["1", "2.1", "5"]
    torch.testing.assert_close(module.train()(x), expected)
    assert module.state_dict().keys() == network().state_dict().keys()
    assert thawed(module) == []


@pytest.mark.parametrize("mode", ["stats", "all"])
def test_no_training_moves_frozen_statistics(mode: str) -> None:
    module = network()
    freeze(module, mode)
    before = statistics(module)
    gamma = module[1].weight.clone()
    learn(module)
    assert all(torch.equal(t, before[name]) for name, t in statistics(module).items())
    assert torch.equal(module[1].weight, gamma) == (mode == "all")


def test_what_people_do_instead_does_not_freeze_them() -> None:
    """The reason for the replacement: neither `requires_grad_(False)` nor `eval()` holds."""
    module = network()
    for norm in (module[1], module[2][1], module[5]):  # type: ignore[index]
        norm.requires_grad_(False)
        norm.eval()
    before = statistics(module)
    module.train()
    module(torch.randn(4, 2, 6, 6) + 3)
    assert not torch.equal(module[1].running_mean, before["1.running_mean"])


def test_the_frozen_classes_say_what_they_are() -> None:
    module = network()
    freeze(module, "stats")
    assert type(module[1]) is FrozenBatchNorm2d
    assert type(module[2][1]).__name__ == "FrozenBatchRenorm2d"  # type: ignore[index]
    assert isinstance(module[2][1], BatchRenorm2d)  # type: ignore[index]
    assert all(isinstance(m, Frozen) for m in (module[1], module[2][1], module[5]))  # type: ignore[index]
    assert isinstance(module[1].weight, nn.Parameter)
    assert freeze(module, "stats") == []  # frozen already


def test_constants_are_no_parameters() -> None:
    module = network()
    freeze(module, "all")
    names = [name for name, _ in module.named_parameters()]
    assert names == ["0.weight", "0.bias", "4.weight", "4.bias"]
    thawed_again = network()
    thawed_again.load_state_dict(module.state_dict())


def test_the_norm_that_was_replaced_is_left_whole() -> None:
    module = network()
    norm = module[1]
    freeze(module, "all")
    assert isinstance(norm.weight, nn.Parameter)
    assert "weight" not in norm._buffers


def test_a_shared_norm_stays_shared() -> None:
    norm = nn.BatchNorm2d(3)
    module = nn.Sequential(norm, nn.ReLU(), norm)
    assert freeze(module, "stats") == ["0"]
    assert module[0] is module[2]
    assert isinstance(module[0], FrozenBatchNorm2d)


def test_a_norm_of_another_library_keeps_its_activation() -> None:
    declare_torchvision_operators()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from timm.layers import BatchNormAct2d

    module = nn.Sequential(BatchNormAct2d(3))
    randomize_batchnorms(module)
    x = torch.randn(4, 3, 5, 5)
    expected = module.eval()(x)
    freeze(module, "stats")
    y = module.train()(x)
    torch.testing.assert_close(y, expected)
    assert (y >= 0).all()


def test_norms_without_statistics_stay() -> None:
    module = nn.Sequential(nn.BatchNorm2d(3, track_running_stats=False), nn.GroupNorm(1, 3))
    assert freeze(module, "all") == []
    assert freeze(network(), "none") == []


def test_what_cannot_be_frozen_is_refused() -> None:
    with pytest.raises(UserError, match="--freeze-bn is 'some'"):
        freeze(network(), "some")
    with pytest.raises(UserError, match="a single norm"):
        freeze(nn.BatchNorm1d(3), "stats")


def test_it_exports_as_a_batch_norm_from_training_mode() -> None:
    module = network()
    freeze(module, "all")
    program = torch.export.export(module.train(), (torch.zeros(2, 2, 6, 6),))
    targets = [str(node.target) for node in program.graph.nodes if node.op == "call_function"]
    assert sum("batch_norm" in target for target in targets) == 3
    y = program.module()(torch.ones(2, 2, 6, 6))
    torch.testing.assert_close(y, network().eval()(torch.ones(2, 2, 6, 6)))
