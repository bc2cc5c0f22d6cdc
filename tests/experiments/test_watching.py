"""What is seen of the layers, against the same computed by hand, and that nothing is changed."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional

from experiments.watching import Distribution, Watcher, distribution, drift


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 3, 3),
        nn.BatchNorm2d(3),
        nn.ReLU(),
        nn.Flatten(),
        nn.Dropout(0.5),
        nn.Linear(12, 2),
    )


def test_distribution_is_a_channel_at_a_time() -> None:
    x = torch.randn(5, 3, 4, 2, dtype=torch.float64) * 3 + 1
    found = distribution(x, channels_last=False)
    for c in range(3):
        assert math.isclose(found.mean[c], x[:, c].mean())
        assert math.isclose(found.variance[c], x[:, c].var(correction=0))
    last = distribution(x, channels_last=True)
    assert torch.allclose(last.mean, x.mean((0, 1, 2)))


def test_drift_is_in_standard_deviations() -> None:
    one = Distribution(torch.tensor([0.0, 0.0]), torch.tensor([4.0, 4.0]))
    two = Distribution(torch.tensor([3.0, 3.0]), torch.tensor([4.0, 4.0]))
    assert math.isclose(drift(one, two), 1.5)
    assert drift(one, one) == 0
    still = Distribution(torch.zeros(2), torch.zeros(2))
    assert drift(still, still) == 0


def test_snapshots_against_the_layers_themselves() -> None:
    module, x, y = network(), torch.randn(8, 1, 4, 4), torch.tensor([0, 1] * 4)
    watcher = Watcher(module, x, y)
    watcher.look(0)
    with torch.no_grad():
        module[0].weight.mul_(2)  # the batch-norm takes this out again
        module[5].weight.mul_(3)
    watcher.look(7)

    assert list(watcher.snapshots) == ["0", "5"]
    first, second = watcher.snapshots["0"]
    assert (first.step, second.step) == (0, 7)
    assert math.isclose(first.mean, x.mean(), rel_tol=1e-5)
    assert math.isclose(first.std, x.std(correction=0), rel_tol=1e-5)
    assert first.drift == second.drift == 0
    assert watcher.snapshots["5"][1].drift < 1e-3

    module[4].p = 0.0
    module.zero_grad()
    functional.cross_entropy(module(x), y).backward()
    for name, index in (("0", 0), ("5", 5)):
        expected = float(module[index].weight.grad.norm())
        assert math.isclose(watcher.snapshots[name][1].gradient, expected, rel_tol=1e-4)


def test_looking_changes_nothing() -> None:
    module = network().train()
    module[1].eval()  # a frozen one stays frozen
    module[5].weight.grad = torch.ones_like(module[5].weight)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    state = torch.get_rng_state()
    Watcher(module, torch.randn(8, 1, 4, 4), torch.zeros(8, dtype=torch.int64)).look(0)
    torch.set_rng_state(state)
    for name, value in module.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert torch.equal(module[5].weight.grad, torch.ones_like(module[5].weight))
    assert module.training
    assert module[4].training
    assert not module[1].training
    assert not module[0]._forward_pre_hooks
