"""Batch renormalization against Algorithm 1 of the paper, written out in float64."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from converter.architectures.renorm import BatchRenorm1d, BatchRenorm2d, Schedule
from converter.pipeline import fold
from converter.sources import InputShape, LoadOptions
from converter.sources.module import from_module

LAYERS = [
    (BatchRenorm1d, (6, 3)),
    (BatchRenorm1d, (4, 3, 5)),
    (BatchRenorm2d, (4, 3, 5, 2)),
]
EPS, ALPHA = 1e-3, 0.2
CLIPPING = Schedule(r_max=1.5, d_max=0.5, start=0, r_end=0, d_end=0)
FREE = Schedule(r_max=1e6, d_max=1e6, start=0, r_end=0, d_end=0)


def layer_of(kind, schedule: Schedule, **arguments):
    """In float64, with parameters and moving averages that are not the initial ones."""
    torch.manual_seed(5)
    layer = kind(3, EPS, ALPHA, schedule=schedule, dtype=torch.float64, **arguments)
    layer.running_mean.normal_()
    layer.running_var.uniform_(0.3, 2)
    if layer.affine:
        nn.init.normal_(layer.weight)  # gammas of both signs
        nn.init.normal_(layer.bias)
    return layer


def algorithm_1(x, gamma, beta, mean, sigma, r_max, d_max):
    """y, r, d, and the new μ and σ, by the sums that the paper writes; x is (m, C)."""
    m = len(x)
    mu = x.sum(0) / m
    sigma_b = np.sqrt(EPS + ((x - mu) ** 2).sum(0) / m)
    r = np.clip(sigma_b / sigma, 1 / r_max, r_max)
    d = np.clip((mu - mean) / sigma, -d_max, d_max)
    y = gamma * ((x - mu) / sigma_b * r + d) + beta
    return y, r, d, mean + ALPHA * (mu - mean), sigma + ALPHA * (sigma_b - sigma)


def rows(x: Tensor) -> np.ndarray:
    """(N, C, ...) -> (m, C)."""
    return x.detach().movedim(1, -1).reshape(-1, x.shape[1]).numpy()


@pytest.mark.parametrize("schedule", [CLIPPING, FREE])
@pytest.mark.parametrize(("kind", "shape"), LAYERS)
def test_training_is_algorithm_1(kind, shape, schedule: Schedule) -> None:
    layer = layer_of(kind, schedule)
    mean = layer.running_mean.numpy().copy()
    sigma = np.sqrt(layer.running_var.numpy() + EPS)
    for _ in range(3):  # the averages of one step are what the next one corrects by
        x = torch.randn(shape, dtype=torch.float64) * 2 + 1
        y, r, d, mean, sigma = algorithm_1(
            rows(x), layer.weight.detach().numpy(), layer.bias.detach().numpy(), mean, sigma,
            schedule.r_max, schedule.d_max,
        )  # fmt: skip
        np.testing.assert_allclose(rows(layer(x)), y, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(layer.running_mean, mean, rtol=1e-12)
        np.testing.assert_allclose((layer.running_var + EPS).sqrt(), sigma, rtol=1e-12)
        if schedule is CLIPPING:
            assert (np.isin(r, [1.5, 1 / 1.5]) | np.isin(d, [0.5, -0.5])).any()
    assert int(layer.num_batches_tracked) == 3


@pytest.mark.parametrize(("kind", "shape"), LAYERS)
def test_the_gradients_are_those_of_the_paper(kind, shape) -> None:
    """The chain rule of section 3, in which r and d are constants."""
    layer = layer_of(kind, CLIPPING)
    mean, sigma = layer.running_mean.numpy().copy(), np.sqrt(layer.running_var.numpy() + EPS)
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    upstream = torch.randn(shape, dtype=torch.float64)
    layer(x).backward(upstream)

    X, dy, m = rows(x), rows(upstream), x.numel() // 3
    gamma, beta = layer.weight.detach().numpy(), layer.bias.detach().numpy()
    _, r, d, _, _ = algorithm_1(X, gamma, beta, mean, sigma, 1.5, 0.5)
    mu = X.mean(0)
    sigma_b = np.sqrt(EPS + X.var(0))
    dxhat = dy * gamma
    dsigma_b = (dxhat * (X - mu) * -r / sigma_b**2).sum(0)
    dmu = (dxhat * -r / sigma_b).sum(0)
    dx = dxhat * r / sigma_b + dsigma_b * (X - mu) / (m * sigma_b) + dmu / m
    assert x.grad is not None
    assert layer.weight.grad is not None
    assert layer.bias.grad is not None
    np.testing.assert_allclose(rows(x.grad), dx, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(
        layer.weight.grad, (dy * ((X - mu) / sigma_b * r + d)).sum(0), rtol=1e-9
    )
    np.testing.assert_allclose(layer.bias.grad, dy.sum(0), rtol=1e-9, atol=1e-12)


def test_the_gradients_are_those_of_differences_while_r_and_d_stand_still() -> None:
    """Where every r and d is at its limit, a small step changes neither."""
    at_limits = Schedule(r_max=1 + 1e-9, d_max=1e-9, start=0, r_end=0, d_end=0)

    def apply(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        layer = layer_of(BatchRenorm1d, at_limits, affine=False)
        del layer.weight, layer.bias
        layer.weight, layer.bias = weight, bias
        return layer(x)

    given = [torch.randn(s, dtype=torch.float64, requires_grad=True) for s in ((6, 3), (3,), (3,))]
    assert torch.autograd.gradcheck(apply, given)


def test_at_the_first_limits_it_is_batch_norm() -> None:
    layer = BatchRenorm2d(3, schedule=Schedule(start=1))
    norm = nn.BatchNorm2d(3)
    x = torch.randn(4, 3, 5, 5) * 3 + 2
    torch.testing.assert_close(layer(x), norm(x))


def test_unclipped_training_computes_what_inference_computes() -> None:
    layer = layer_of(BatchRenorm2d, FREE)
    frozen = layer_of(BatchRenorm2d, FREE).eval()
    x = torch.randn(4, 3, 5, 5, dtype=torch.float64)
    torch.testing.assert_close(layer(x), frozen(x), rtol=1e-9, atol=1e-12)


def test_the_limits_rise_as_in_the_paper() -> None:
    schedule = Schedule()
    steps = torch.tensor([0, 5_000, 15_000, 25_000, 40_000, 90_000])
    r_max, d_max = schedule.at(steps)
    assert r_max.tolist() == pytest.approx([1, 1, 1 + 2 * 10 / 35, 1 + 2 * 20 / 35, 3, 3])
    assert d_max.tolist() == pytest.approx([0, 0, 2.5, 5, 5, 5])
    assert Schedule.within(800) == Schedule(start=100, r_end=800, d_end=500)


@pytest.mark.parametrize(
    "wrong", [{"r_max": 0.9}, {"d_max": -1}, {"start": 30_000}, {"start": -1}, {"r_max": np.nan}]
)
def test_limits_that_cannot_be_are_refused(wrong) -> None:
    with pytest.raises(ValueError, match="must"):
        Schedule(**wrong)


def test_a_plain_checkpoint_resumes_the_schedule_and_the_averages(tmp_path: Path) -> None:
    schedule = Schedule(start=1, r_end=9, d_end=5)
    torch.manual_seed(0)
    batches = [torch.randn(4, 3, 2, 2) + 1 for _ in range(6)]
    whole = BatchRenorm2d(3, schedule=schedule)
    before = BatchRenorm2d(3, schedule=schedule)
    for x in batches[:3]:
        whole(x), before(x)
    torch.save(before.state_dict(), tmp_path / "layer.pt")
    resumed = BatchRenorm2d(3, schedule=schedule)
    resumed.load_state_dict(torch.load(tmp_path / "layer.pt", weights_only=True))
    assert resumed.limits() == whole.limits() == (1 + 2 * 2 / 8, 5 * 2 / 4)
    for x in batches[3:]:
        assert torch.equal(resumed(x), whole(x))
    assert torch.equal(resumed.running_var, whole.running_var)


def test_its_weights_and_those_of_a_batch_norm_load_into_each_other() -> None:
    layer, norm = BatchRenorm1d(4), nn.BatchNorm1d(4)
    norm(torch.randn(8, 4))
    layer.load_state_dict(norm.state_dict())
    x = torch.randn(5, 4)
    assert torch.equal(layer.eval()(x), norm.eval()(x))
    norm.load_state_dict(layer.state_dict())


def test_without_momentum_the_averages_are_plain_ones() -> None:
    layer = BatchRenorm1d(2, momentum=None, dtype=torch.float64)
    batches = [torch.randn(5, 2, dtype=torch.float64) for _ in range(4)]
    for x in batches:
        layer(x)
    means = torch.stack([x.mean(0) for x in batches])
    torch.testing.assert_close(layer.running_mean, means.mean(0))


def test_a_constant_channel_stays_finite() -> None:
    layer = BatchRenorm1d(1, momentum=1.0)
    for _ in range(3):
        assert layer(torch.full((4, 1), 7.0)).isfinite().all()
    assert layer.running_var.item() == pytest.approx(0, abs=1e-9)
    assert layer.running_var.item() >= 0


def test_half_precision_keeps_float32_averages() -> None:
    layer = BatchRenorm2d(3)
    x = (torch.randn(4, 3, 5, 5) * 2).bfloat16()
    y = layer(x)
    assert y.dtype == torch.bfloat16
    assert layer.running_mean.dtype == torch.float32
    torch.testing.assert_close(layer.running_mean, 0.01 * x.float().mean((0, 2, 3)))


@pytest.mark.parametrize(
    ("kind", "shape"),
    [(BatchRenorm1d, (4, 3, 2, 2)), (BatchRenorm2d, (4, 3))],
)
def test_other_numbers_of_axes_are_refused(kind, shape) -> None:
    with pytest.raises(ValueError, match="expected"):
        kind(3)(torch.zeros(shape))


def test_both_kinds_fold_like_batch_norms(tmp_path: Path) -> None:
    net = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1, bias=False), BatchRenorm2d(4), nn.ReLU(), nn.Flatten(),
        nn.Linear(144, 5, bias=False), BatchRenorm1d(5), nn.ReLU(),
    )  # fmt: skip
    with torch.no_grad():
        for _ in range(2):
            net(torch.randn(8, 1, 6, 6) + 0.5)
    options = LoadOptions(input_shapes=(InputShape((1, 6, 6)),))
    loaded = from_module(net, path=tmp_path / "net.pt", kind="a module", options=options)
    assert [n.op_type for n in loaded.model.graph].count("BatchNormalization") == 2
    result = fold(loaded)
    assert result.proof.passed
    assert "BatchNormalization" not in {n.op_type for n in result.model.graph}
