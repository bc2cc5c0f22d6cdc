"""Resize in float64 against onnxruntime in float32, for every mode that the kernel covers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from converter.proof import Oracle
from patterns.graphs import Graph, distance, feeds, ort_run

TRANSFORMS = ["half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "align_corners",
              "asymmetric"]  # fmt: skip


def compare(more: list[Any], shape: tuple[int, ...] = (2, 3, 5, 7), **attributes: Any) -> None:
    g = Graph("float32", opset=19)
    inputs = [g.const(values) if len(values) else "" for values in more]
    g.output(g.op("Resize", g.input("x", *shape), "", *inputs, **attributes))
    given = feeds(g.model())
    (expected,) = ort_run(g.model(), given)
    found = Oracle(g.model()).run(given)[g.outputs[0].name]
    assert found.dtype == np.float64
    assert distance(expected, found) < 3e-6


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("mode", ["linear", "cubic"])
@pytest.mark.parametrize("factors", [[1.0, 1, 2, 3], [1.0, 1, 1.6, 0.7]])
def test_by_factors(mode: str, transform: str, factors: list[float]) -> None:
    compare([factors], mode=mode, coordinate_transformation_mode=transform)


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
@pytest.mark.parametrize("sizes", [[2, 3, 9, 4], [2, 3, 1, 14], [2, 3, 5, 7]])
def test_to_sizes(mode: str, transform: str, sizes: list[int]) -> None:
    compare([[], sizes], mode=mode, coordinate_transformation_mode=transform)


@pytest.mark.parametrize("rounding", ["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"])
@pytest.mark.parametrize("transform", ["half_pixel", "asymmetric"])
def test_nearest(rounding: str, transform: str) -> None:
    more = {"nearest_mode": rounding, "coordinate_transformation_mode": transform}
    compare([[1.0, 1, 2, 3]], mode="nearest", **more)
    compare([[1.0, 1, 0.5, 1.5]], mode="nearest", shape=(1, 2, 6, 4), **more)


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_cubic_without_what_lies_outside(transform: str) -> None:
    more = {"cubic_coeff_a": -0.5, "coordinate_transformation_mode": transform}
    compare([[1.0, 1, 1.5, 2]], mode="cubic", exclude_outside=1, **more)


@pytest.mark.parametrize("opset", [7, 9, 10])
@pytest.mark.parametrize("mode", ["nearest", "linear"])
def test_before_opset_11(opset: int, mode: str) -> None:
    g = Graph("float32", opset=opset)
    x, factors = g.input("x", 1, 2, 3, 4), [1.0, 1.0, 2.0, 3.0]
    if opset == 7:
        y = g.op("Upsample", x, mode=mode, scales=factors)
    else:
        y = g.op("Upsample" if opset == 9 else "Resize", x, g.const(factors), mode=mode)
    g.output(y)
    given = feeds(g.model())
    assert distance(ort_run(g.model(), given)[0], Oracle(g.model()).run(given)[y]) < 3e-6


def test_named_axes() -> None:
    compare([[2.0, 3]], mode="linear", axes=[-1, 2])


def test_what_is_left_to_the_reference() -> None:
    compare([[1.0, 1, 0.5, 0.5]], mode="linear", antialias=1)
