"""Pad in float64 against onnxruntime, with amounts of both signs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from converter.proof import Oracle
from patterns.graphs import Graph, feeds, ort_run

AMOUNTS = [
    [0, 0, 1, 1, 0, 0, 1, 1],
    [0, 0, -1, -1, 0, 0, 1, 1],
    [0, 1, 2, 0, 0, -1, -2, -1],
    [0, 0, -2, 0, 0, 0, -1, -3],
]


def check(g: Graph, y: str) -> None:
    g.output(y)
    model = g.model()
    given = feeds(model)
    (found,) = Oracle(model).run(given).values()
    (expected,) = ort_run(model, given)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("amounts", AMOUNTS)
@pytest.mark.parametrize("value", [None, 0.0, -1.5])
@pytest.mark.parametrize("opset", [11, 13, 20])
def test_constant(amounts: list[int], value: float | None, opset: int) -> None:
    g = Graph(opset=opset)
    more = [] if value is None else [g.const(np.array(value))]
    check(g, g.op("Pad", g.input("x", 2, 3, 6, 7), g.const(np.array(amounts)), *more))


@pytest.mark.parametrize("mode", ["reflect", "edge", "wrap"])
def test_modes(mode: str) -> None:
    g = Graph()
    amounts = g.const(np.array([0, 0, 2, 1, 0, 0, 1, 3]))
    check(g, g.op("Pad", g.input("x", 2, 3, 6, 7), amounts, mode=mode))


def test_named_axes() -> None:
    g = Graph()
    x, amounts, axes = g.input("x", 2, 3, 6, 7), g.const(np.array([1, -2, 0, 3])), [-1, 2]
    check(g, g.op("Pad", x, amounts, "", g.const(np.array(axes))))


def test_amounts_as_attributes() -> None:
    g = Graph("float32", opset=10)
    attributes: dict[str, Any] = {"pads": [0, 0, -1, 2, 0, 0, 1, 0], "value": 0.5}
    check(g, g.op("Pad", g.input("x", 2, 3, 6, 7), **attributes))


def test_integers_stay_integers() -> None:
    g = Graph()
    x = g.input("x", 2, 3, dtype="int64")
    g.output(g.op("Pad", x, g.const(np.array([0, -1, 1, 1]))), dtype="int64")
    model = g.model()
    (found,) = Oracle(model).run({"x": np.arange(6).reshape(2, 3)}).values()
    np.testing.assert_array_equal(found, [[1, 2, 0], [4, 5, 0], [0, 0, 0]])
    assert found.dtype == np.int64
