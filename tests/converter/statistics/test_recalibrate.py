"""Statistics at the norms of real networks, against activations that are kept and concatenated."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from converter.architectures.renorm import BatchRenorm2d
from converter.errors import UserError
from converter.statistics import recalibrate
from converter.statistics.collect import collect, onepass
from converter.statistics.norms import find
from patterns.networks import randomize_batchnorms

pytestmark = pytest.mark.slow


class Residual(nn.Module):
    """Registered in another order than the data reach the norms, with two of equal depth."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.BatchNorm1d(5)
        self.short = nn.Sequential(nn.Conv2d(3, 4, 1), BatchRenorm2d(4))
        self.norm = nn.BatchNorm2d(4)
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.fc = nn.Linear(4, 5)
        self.drop = nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.norm(self.conv(x)) + self.short(x))
        return self.last(input=self.fc(self.drop(y).mean((2, 3))))


def network(seed: int = 0) -> Residual:
    torch.manual_seed(seed)
    return randomize_batchnorms(Residual().double())  # type: ignore[return-value]


def cut(x: Tensor, sizes: list[int]) -> Callable[[], Iterator[Tensor]]:
    return lambda: iter(torch.split(x, sizes))


def data(n: int = 24) -> Tensor:
    return torch.randn(n, 3, 6, 5, dtype=torch.float64, generator=torch.manual_seed(3)) + 0.5


def brute_force(module: nn.Module, x: Tensor) -> None:
    """Norm by norm: run the whole network, keep all that reaches the norm, numpy does the rest."""
    norms = find(module).tracked
    module.eval()
    for name in ["norm", "short.1", "last"]:
        kept: list[Tensor] = []
        hook = norms[name].register_forward_pre_hook(
            lambda _m, args, kw, kept=kept: kept.append(args[0] if args else kw["input"]),
            with_kwargs=True,
        )
        with torch.no_grad():
            for sample in x.split(1):
                module(sample)
        hook.remove()
        values = torch.cat(kept).movedim(1, -1).flatten(0, -2).numpy()
        norms[name].running_mean.copy_(torch.from_numpy(values.mean(0)))  # type: ignore[union-attr]
        norms[name].running_var.copy_(torch.from_numpy(values.var(0)))  # type: ignore[union-attr]


def assert_same_statistics(a: nn.Module, b: nn.Module, rtol: float = 1e-10) -> None:
    for (name, first), second in zip(
        find(a).tracked.items(), find(b).tracked.values(), strict=True
    ):
        for key in ("running_mean", "running_var"):
            torch.testing.assert_close(
                getattr(first, key), getattr(second, key), rtol=rtol, atol=1e-12, msg=name
            )


def test_layerwise_is_brute_force() -> None:
    mine, theirs = network(), network()
    x = data()
    found = recalibrate(mine, cut(x, [5, 9, 10]))
    brute_force(theirs, x)
    assert_same_statistics(mine, theirs)
    assert [row.name for row in found.rows] == ["norm", "short.1", "last"]
    assert [row.values for row in found.rows] == [24 * 30, 24 * 30, 24]
    assert found.residual < 1e-12


@settings(max_examples=settings().max_examples // 8, deadline=None)
@given(sizes=st.lists(st.integers(1, 12), min_size=1, max_size=8), seed=st.integers(0, 99))
def test_layerwise_does_not_depend_on_batches_or_order(sizes: list[int], seed: int) -> None:
    x = data(sum(sizes) + 2)
    whole, cut_up = network(), network()
    recalibrate(whole, cut(x, [len(x)]))
    shuffled = x[torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))]
    recalibrate(cut_up, cut(shuffled, [*sizes, 2]))
    assert_same_statistics(whole, cut_up, rtol=1e-9)


def test_onepass_on_one_batch_is_layerwise() -> None:
    first, second = network(), network()
    x = data()
    assert recalibrate(first, cut(x, [24]), mode="onepass").residual < 1e-12
    recalibrate(second, cut(x, [24]))
    assert_same_statistics(first, second)


def test_onepass_normalises_each_batch_by_itself() -> None:
    """The first norms are exact; the one behind them sees what batches of 2 make of the data."""
    x = data()
    small, exact = network(), network()
    found = recalibrate(small, cut(x, [2] * 12), mode="onepass")
    recalibrate(exact, cut(x, [24]))
    assert_same_statistics(nn.ModuleList([small.norm]), nn.ModuleList([exact.norm]))
    with pytest.raises(AssertionError):
        assert_same_statistics(nn.ModuleList([small.last]), nn.ModuleList([exact.last]))
    assert found.residual > 1e-3

    # By hand, as torch itself normalises in training mode.
    other = network()
    kept = []
    with torch.no_grad():
        for batch in x.split(2):
            n1 = functional.batch_norm(
                other.conv(batch), None, None, other.norm.weight, other.norm.bias, training=True
            )
            short = other.short[1]
            n2 = functional.batch_norm(
                other.short[0](batch), None, None, short.weight, short.bias, training=True
            )
            kept.append(other.fc(torch.relu(n1 + n2).mean((2, 3))))
    values = torch.cat(kept).numpy()
    np.testing.assert_allclose(small.last.running_mean, values.mean(0), rtol=1e-9)
    np.testing.assert_allclose(small.last.running_var, values.var(0), rtol=1e-9)


def test_only_statistics_change() -> None:
    module = network()
    module.drop.eval()
    modes = [m.training for m in module.modules()]
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    recalibrate(module, cut(data(), [24]))
    assert [m.training for m in module.modules()] == modes
    for name, tensor in module.state_dict().items():
        if not name.endswith(("running_mean", "running_var", "num_batches_tracked")):
            assert torch.equal(tensor, before[name]), name
    assert not any(m._forward_pre_hooks for m in module.modules())


def test_the_drift_table_says_what_was_wrong() -> None:
    norm = nn.BatchNorm1d(2, eps=1e-3).double()
    x = torch.tensor([[0.0, 1.0], [4.0, 3.0]], dtype=torch.float64)  # means 2, 2; variances 4, 1
    norm.running_mean.copy_(torch.tensor([3.0, 2.0]))  # type: ignore[union-attr]
    norm.running_var.copy_(torch.tensor([8.0, 0.5]))  # type: ignore[union-attr]
    (row,) = recalibrate(norm, lambda: iter([x])).rows
    assert row.max_shift == pytest.approx(1 / 4.001**0.5)
    assert row.mean_shift == pytest.approx(0.5 / 4.001**0.5)
    assert row.low_ratio == pytest.approx(0.501 / 1.001)
    assert row.high_ratio == pytest.approx(8.001 / 4.001)
    assert norm.running_var.tolist() == [4, 1]  # type: ignore[union-attr]


KINDS = [
    (nn.Sequential(nn.Conv1d(2, 3, 2), nn.BatchNorm1d(3)), (2, 7)),
    (nn.Sequential(nn.Conv3d(2, 3, 2), nn.BatchNorm3d(3)), (2, 3, 4, 3)),
    (nn.Sequential(nn.Conv2d(2, 3, 2), nn.SyncBatchNorm(3)), (2, 4, 5)),
]


@pytest.mark.parametrize("mode", ["layerwise", "onepass"])
@pytest.mark.parametrize(("module", "shape"), KINDS)
def test_every_kind_of_batch_norm(module: nn.Sequential, shape, mode: str) -> None:
    module = module.double().train()
    x = torch.randn(12, *shape, dtype=torch.float64)
    recalibrate(module, cut(x, [4, 8]), mode=mode)
    with torch.no_grad():
        y = module[0](x).movedim(1, -1).flatten(0, -2).numpy()
    np.testing.assert_allclose(module[1].running_mean, y.mean(0), rtol=1e-10)
    np.testing.assert_allclose(module[1].running_var, y.var(0), rtol=1e-10)


def test_instance_norms_with_statistics() -> None:
    module = nn.Sequential(nn.Conv1d(2, 3, 2), nn.InstanceNorm1d(3, track_running_stats=True))
    module = module.double()
    x = torch.randn(12, 2, 7, dtype=torch.float64)
    recalibrate(module, cut(x, [4, 8]))
    with torch.no_grad():
        y = module[0](x).numpy()
    np.testing.assert_allclose(module[1].running_mean, y.mean(2).mean(0), rtol=1e-10)
    np.testing.assert_allclose(module[1].running_var, y.var(2).mean(0), rtol=1e-10)


class Shared(nn.Module):
    """One norm at two places."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.norm = nn.Linear(3, 3), nn.BatchNorm1d(3)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.fc(self.norm(x)))


def test_a_norm_at_two_places_gets_the_values_of_both() -> None:
    torch.manual_seed(0)
    module = randomize_batchnorms(Shared().double())
    x = torch.randn(20, 3, dtype=torch.float64)
    with torch.no_grad():
        both = torch.cat([x, module.fc(module.eval().norm(x))])  # type: ignore[operator]
    (row,) = recalibrate(module, cut(x, [20])).rows
    assert row.values == 40
    torch.testing.assert_close(module.norm.running_mean, both.mean(0))  # type: ignore[union-attr]


def test_values_that_are_not_finite_are_refused_and_named() -> None:
    module = network()
    with torch.no_grad():
        module.fc.weight[0, 0] = torch.nan
    before = module.last.running_mean.clone()  # type: ignore[union-attr]
    for mode in ("layerwise", "onepass"):
        with pytest.raises(UserError, match="what reaches last is not finite"):
            recalibrate(module, cut(data(), [24]), mode=mode)
        assert torch.equal(module.last.running_mean, before)  # type: ignore[arg-type]


def test_onepass_puts_everything_back_when_it_fails() -> None:
    module = network()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    with torch.no_grad():
        module.fc.weight[0, 0] = torch.nan
    with pytest.raises(UserError):
        onepass(module, find(module).tracked, cut(data(), [24]))
    for name, tensor in module.state_dict().items():
        if "running" in name:
            assert torch.equal(tensor, before[name]), name


def test_statistics_of_one_value_are_refused() -> None:
    module = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    with pytest.raises(UserError, match="no variance"):
        recalibrate(module, lambda: iter([torch.zeros(1, 3)]))
    assert module[1].running_var.tolist() == [1] * 4
    assert recalibrate(nn.BatchNorm2d(2), lambda: iter([torch.randn(1, 2, 3, 3)])).rows


def test_without_batches_or_norms_it_says_so() -> None:
    with pytest.raises(UserError, match="no norm with statistics"):
        recalibrate(nn.Linear(2, 2), lambda: iter([torch.zeros(2, 2)]))
    own = nn.Sequential(nn.BatchNorm1d(2, track_running_stats=False))
    with pytest.raises(UserError) as raised:
        recalibrate(own, lambda: iter([torch.zeros(2, 2)]))
    assert "Train with track_running_stats=True" in raised.value.hint
    with pytest.raises(UserError, match="are there any data"):
        recalibrate(network(), lambda: iter([]))


class Lazy(nn.Module):
    """Uses its norm in some batches only."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(2)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x) if x.mean() > 0 else x


def test_a_norm_that_only_some_batches_reach() -> None:
    batches = [torch.ones(4, 2), -torch.ones(4, 2)]
    with pytest.raises(UserError, match="norm is reached in some batches only"):
        recalibrate(Lazy(), lambda: iter(batches))
    assert recalibrate(Lazy(), lambda: iter(batches), mode="onepass").rows[0].values == 4


def test_warnings_teach() -> None:
    module = nn.Sequential(
        nn.BatchNorm1d(3), nn.BatchNorm1d(3, track_running_stats=False), nn.BatchNorm1d(3)
    )
    x = torch.randn(50, 3)
    x[:, 1] = 0.25
    found = recalibrate(module, lambda: iter([x]))
    never, few, constant = found.warnings
    assert never.startswith("0, 2: the statistics were never updated (mean 0, variance 1")
    assert "only 50 values of each channel" in few
    assert "known to about 10%" in few
    assert "2 channels never change" in constant
    assert found.notes == [
        "1 norms have track_running_stats=False and keep no statistics; left as they are (1)"
    ]
    # What is stored now is no longer taken for a model that was never trained.
    assert not any(row.never_updated for row in recalibrate(module, lambda: iter([x])).rows)


def test_collecting_changes_nothing() -> None:
    module = network()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    found = collect(module, find(module).tracked, cut(data(), [24]))
    assert set(found) == {"norm", "short.1", "last"}
    assert all(torch.equal(t, before[name]) for name, t in module.state_dict().items())
