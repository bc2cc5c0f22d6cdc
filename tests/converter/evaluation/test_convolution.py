"""Convolutions in slabs, pools by taps: the same numbers, in little memory."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest
import torch

from converter.evaluation import convolution
from patterns.graphs import distance
from tests.converter.evaluation.nodes import agree, by_kernel
from tests.converter.evaluation.test_kernels import Draw


@pytest.mark.parametrize("slab", [1, 1000, 20000])
@pytest.mark.parametrize("op", ["Conv", "ConvTranspose"])
@pytest.mark.parametrize("seed", range(12))
def test_slabs_of_any_size_are_the_same(
    seed: int, op: str, slab: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw = Draw(seed)
    group = draw.random.choice([1, 2])
    pads = draw.padding()
    x = draw.array(2, 2 * group, *draw.size)
    w = draw.array(*((4, 2) if op == "Conv" else (2 * group, 3)), *draw.kernel)
    more = {"group": group, "strides": draw.strides, "dilations": draw.dilations, **pads}
    whole = by_kernel(op, x, w, **more)
    monkeypatch.setattr(convolution, "SLAB", slab)
    assert distance(by_kernel(op, x, w, **more), whole) < 1e-13


@pytest.mark.parametrize("pads", [[-1, -2, 0, -1], [-1, 2, 1, -1], [5, 0, 0, 6]])
def test_negative_and_wide_pads(pads: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Pads as wide as the kernel: some windows see nothing but padding, as whole slabs."""
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((1, 2, 9, 8)), rng.standard_normal((3, 2, 3, 3))
    padded = torch.nn.functional.pad(torch.from_numpy(x), (pads[1], pads[3], pads[0], pads[2]))
    expected = torch.nn.functional.conv2d(padded, torch.from_numpy(w)).numpy()
    for slab in (1, 500, 2**20):
        monkeypatch.setattr(convolution, "SLAB", slab)
        assert distance(by_kernel("Conv", x, w, pads=pads), expected) < 1e-13


def test_no_call_lays_out_more_than_a_slab(monkeypatch: pytest.MonkeyPatch) -> None:
    """16 channels of 64^3, kernel 3: the windows of one sample would be 27 maps of 33 MB."""
    sizes = []

    def recording(source: torch.Tensor, kernel: torch.Tensor, *rest: Any, **more: Any) -> Any:
        y = torch.nn.functional.conv3d(source, kernel, *rest, **more)
        sizes.append(8 * y[0, 0].numel() * kernel[0].numel())
        return y

    monkeypatch.setitem(convolution._CONV, 3, recording)
    monkeypatch.setattr(convolution, "SLAB", 4 * 2**20)
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((1, 16, 32, 32, 32)), rng.standard_normal((2, 16, 3, 3, 3))
    by_kernel("Conv", x, w, pads=[1] * 6)
    assert max(sizes) <= 4 * 2**20
    assert len(sizes) > 20


@pytest.mark.parametrize("op", ["MaxPool", "AveragePool", "LpPool"])
@pytest.mark.parametrize("ceil", [0, 1])
def test_a_window_far_larger_than_the_map(op: str, ceil: int) -> None:
    x = np.random.default_rng(0).standard_normal((2, 3, 8, 7))
    more = {"kernel_shape": [640, 640], "pads": [400, 319, 300, 320], "strides": [64, 640]}
    tracemalloc.start()
    found = by_kernel(op, x, ceil_mode=ceil, opset=22, **more)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**20
    whole = {"MaxPool": x.max((2, 3)), "AveragePool": x.mean((2, 3)),
             "LpPool": np.sqrt((x**2).sum((2, 3)))}[op]  # fmt: skip
    assert found.shape[:2] == (2, 3)
    np.testing.assert_allclose(found[..., 0, 0], whole, rtol=1e-12)


@pytest.mark.parametrize("shape", [(2, 3, 7), (2, 3, 5, 6), (2, 3, 4, 5, 3)])
@pytest.mark.parametrize("op", ["GlobalMaxPool", "GlobalAveragePool", "GlobalLpPool"])
def test_global_pools_of_every_rank(op: str, shape: tuple[int, ...]) -> None:
    agree(op, np.random.default_rng(0).standard_normal(shape), reference=False)
