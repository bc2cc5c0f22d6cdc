"""QuantizeLinear and DequantizeLinear in float64 against onnxruntime."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from converter.proof import Oracle
from patterns.graphs import Graph, feeds, ort_run

# Powers of two: onnxruntime's float32 divides without rounding, so the steps are the same.
SCALES = np.array([0.25, 2.0, 0.5], dtype=np.float32)
KINDS = {"uint8": [3, 128, 0], "int8": [-7, 0, 100]}


def check(g: Graph, y: str) -> None:
    g.output(y)
    model = g.model()
    given = {name: 20 * array for name, array in feeds(model).items()}
    (found,) = Oracle(model).run(given).values()
    (expected,) = ort_run(model, given)
    np.testing.assert_array_equal(found, expected)


def there_and_back(opset: int, scale: Any, zero: list[Any], **attributes: Any) -> tuple[Graph, str]:
    g = Graph("float32", opset=opset)
    s, *z = g.const(scale), *(g.const(value, dtype=str(value.dtype)) for value in zero)
    q = g.op("QuantizeLinear", g.input("x", 2, 3, 4, 5), s, *z, **attributes)
    return g, g.op("DequantizeLinear", q, s, *z, **attributes)


@pytest.mark.parametrize("opset", [10, 13, 19, 21])
@pytest.mark.parametrize("kind", KINDS)
def test_per_tensor(opset: int, kind: str) -> None:
    check(*there_and_back(opset, np.float32(0.25), [np.array(KINDS[kind][0], dtype=kind)]))


@pytest.mark.parametrize("opset", [10, 13, 21])
def test_no_zero_point_means_unsigned_from_zero(opset: int) -> None:
    check(*there_and_back(opset, np.float32(0.5), []))


@pytest.mark.parametrize("opset", [13, 19, 21])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("axis", [None, 1, -3])
def test_per_channel(opset: int, kind: str, axis: int | None) -> None:
    more = {} if axis is None else {"axis": axis}
    check(*there_and_back(opset, SCALES, [np.array(KINDS[kind], dtype=kind)], **more))


def test_halves_go_to_the_even_and_ends_are_kept() -> None:
    g = Graph("float32", opset=13)
    scale, zero = g.const(np.float32(1.0)), g.const(0, dtype="int8")
    g.output(g.op("QuantizeLinear", g.input("x", 6), scale, zero), dtype="int8")
    x = np.array([0.5, 1.5, -0.5, -2.5, 900, -900], dtype=np.float32)
    (found,) = Oracle(g.model()).run({"x": x}).values()
    assert found.dtype == np.int8
    np.testing.assert_array_equal(found, [0, 2, 0, -2, 127, -128])
    np.testing.assert_array_equal(found, ort_run(g.model(), {"x": x})[0])


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int32"])
def test_weights_that_are_kept_as_integers(dtype: str) -> None:
    rng = np.random.default_rng(3)
    g = Graph("float32", opset=13)
    w = rng.integers(0, 100, size=(3, 3, 3, 3)).astype(dtype)
    constants = g.const(w, dtype=dtype), g.const(SCALES), g.const(np.zeros(3), dtype=dtype)
    weight = g.op("DequantizeLinear", *constants, axis=0)
    g.output(weight)
    (found,) = Oracle(g.model()).run({}).values()
    np.testing.assert_array_equal(found, ort_run(g.model(), {})[0])
