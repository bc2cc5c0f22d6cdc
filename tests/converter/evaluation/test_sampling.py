"""GridSample, and the places of MaxPool, against onnxruntime."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from converter.proof import Oracle
from patterns.graphs import Graph, ort_run
from tests.converter.evaluation.nodes import agree


@pytest.mark.parametrize("align_corners", [0, 1])
@pytest.mark.parametrize("padding_mode", ["zeros", "border", "reflection"])
@pytest.mark.parametrize(
    ("mode", "opset"),
    [
        ("bilinear", 16), ("bicubic", 16), ("nearest", 16),
        ("linear", 20), ("cubic", 20), ("nearest", 22),
    ],
)  # fmt: skip
def test_grid_sample(mode: str, opset: int, padding_mode: str, align_corners: int) -> None:
    rng = np.random.default_rng(0)
    x, grid = rng.standard_normal((2, 3, 6, 5)), rng.uniform(-1.3, 1.3, (2, 4, 7, 2))
    agree(
        "GridSample", x, grid, reference=False, opset=opset, mode=mode, padding_mode=padding_mode,
        align_corners=align_corners,
    )  # fmt: skip


@pytest.mark.parametrize("mode", ["linear", "nearest"])
def test_grid_sample_of_a_volume(mode: str) -> None:
    rng = np.random.default_rng(0)
    x, grid = rng.standard_normal((2, 3, 4, 5, 3)), rng.uniform(-1.1, 1.1, (2, 3, 2, 4, 3))
    agree("GridSample", x, grid, reference=False, opset=20, mode=mode)


@pytest.mark.parametrize(
    "more",
    [
        {"kernel_shape": [2, 2], "strides": [2, 2]},
        {"kernel_shape": [3, 2]},
        {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "strides": [2, 2]},
        {"kernel_shape": [3, 3], "pads": [0, 1, 2, 1], "ceil_mode": 1, "strides": [2, 3]},
        {"kernel_shape": [2, 2], "dilations": [2, 1]},
        {"kernel_shape": [2, 3], "storage_order": 1},
        {"kernel_shape": [3]},
        {"kernel_shape": [2, 2, 2], "strides": [1, 2, 1]},
    ],
)
def test_where_max_pool_found_its_numbers(more: dict[str, Any]) -> None:
    sizes = [6, 7, 5][: len(more["kernel_shape"])]
    g = Graph("float32")
    y, places = g.op("MaxPool", g.input("x", 2, 3, *sizes), outputs=2, **more)
    g.output(y)
    g.output(places, dtype="int64")
    model = g.model()
    feeds = {"x": np.random.default_rng(0).standard_normal((2, 3, *sizes)).astype("float32")}
    found, expected = Oracle(model).run(feeds).values(), ort_run(model, feeds)
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)
