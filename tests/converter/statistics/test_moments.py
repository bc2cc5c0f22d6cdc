"""The merged moments against the concatenated values, whatever the pieces and their order."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from converter.statistics import InstanceMoments, Moments, moments


@settings(max_examples=settings().max_examples // 2, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=6),
    positions=st.sampled_from([(), (1,), (3,), (2, 3), (1, 2, 2)]),
    mean=st.sampled_from([0.0, 1.0, -1e4, 1e7]),
    scale=st.sampled_from([1e-3, 1.0, 1e3]),
    data=st.data(),
)
def test_pieces_in_any_order_are_the_whole(seed, sizes, positions, mean, scale, data) -> None:
    torch.manual_seed(seed)
    batches = [
        torch.randn(n, 3, *positions, dtype=torch.float64) * scale + mean * torch.arange(3).view(
            1, 3, *[1] * len(positions)
        )
        for n in sizes
    ]  # fmt: skip
    total = Moments.none(3)
    for index in data.draw(st.permutations(range(len(batches)))):
        total = total.merge(Moments.of(batches[index]))
    whole = torch.cat(batches).movedim(1, -1).reshape(-1, 3).numpy()
    assert total.count == len(whole)
    np.testing.assert_allclose(total.mean, whole.mean(0), rtol=1e-12, atol=1e-12 * scale)
    # One rounding of a value is u*|value|: no way of summing knows the variance better.
    unknown = 1e-15 * np.abs(whole).max() * scale
    np.testing.assert_allclose(total.variance, whole.var(0), rtol=1e-10, atol=unknown)


def test_a_large_mean_costs_no_digits() -> None:
    """In float32, E[x²] − E[x]² would give 0 or less for half of these channels."""
    torch.manual_seed(0)
    x = torch.randn(5000, 4) + 20_000
    found = Moments.of(x)
    np.testing.assert_allclose(found.variance, x.double().numpy().var(0), rtol=1e-9)
    naive = (x * x).mean(0) - x.mean(0) ** 2
    assert ((naive - found.variance).abs() > 0.1).any()


def test_a_large_batch_is_widened_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(1)
    x = torch.randn(7, 3, 4, 5)
    whole = Moments.of(x)
    monkeypatch.setattr(moments, "PIECE", 130)  # two samples of 60 numbers
    pieces = Moments.of(x)
    assert pieces.count == whole.count == 140
    torch.testing.assert_close(pieces.mean, whole.mean, rtol=1e-13, atol=1e-15)
    torch.testing.assert_close(pieces.squares, whole.squares, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_values_of_any_type_are_summed_in_float64(dtype) -> None:
    x = (torch.rand(3000, 2) + 7).to(dtype)
    found = Moments.of(x)
    assert found.mean.dtype == found.variance.dtype == torch.float64
    np.testing.assert_allclose(found.mean, x.double().numpy().mean(0), rtol=1e-13)


def test_the_variance_is_that_of_the_population() -> None:
    found = Moments.of(torch.tensor([[1.0], [3.0]]))
    assert found.variance.item() == 1.0  # with Bessel's correction it would be 2


def test_nothing_and_something_is_something() -> None:
    some = Moments.of(torch.randn(4, 2))
    assert torch.equal(Moments.none(2).merge(some).mean, some.mean)
    assert Moments.none(2).merge(Moments.none(2)).count == 0
    assert Moments.of(torch.empty(0, 2)).count == 0


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_value_that_is_not_finite_shows(bad) -> None:
    x = torch.zeros(4, 2)
    assert Moments.of(x).finite
    x[1, 1] = bad
    assert not Moments.of(x).finite


def test_an_instance_norm_averages_means_and_variances_of_samples() -> None:
    """As torch does with momentum 1, but for its correction n/(n − 1)."""
    torch.manual_seed(2)
    x = torch.randn(6, 3, 4, 5, dtype=torch.float64) * 2 + torch.arange(6).view(6, 1, 1, 1)
    norm = nn.InstanceNorm2d(3, momentum=1.0, track_running_stats=True, dtype=torch.float64)
    norm(x)
    found = InstanceMoments.of(x[:2]).merge(InstanceMoments.of(x[2:]))
    assert norm.running_mean is not None
    assert norm.running_var is not None
    torch.testing.assert_close(found.mean, norm.running_mean)
    torch.testing.assert_close(found.variance * 20 / 19, norm.running_var)
    assert (Moments.of(x).variance > found.variance + 1).all()  # the samples' means differ
