"""Weights of every float type: computed in float64, rounded once, in the type they had."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx_ir as ir
import pytest

from converter.graph.rounding import round_once
from patterns.graphs import (
    Graph,
    assert_equal,
    batchnorms,
    distance,
    feeds,
    fold,
    ort_run,
)

FLOATS = ["float16", "bfloat16", "float32", "float64"]
ROUNDOFF = {"float16": 2.0**-11, "bfloat16": 2.0**-8, "float32": 2.0**-24, "float64": 2.0**-53}


def net(dtype: str) -> Graph:
    g = Graph(dtype, opset=22)
    y = g.op("Conv", g.input("x", "N", 3, 5, 5), g.weight(4, 3, 3, 3, name="conv.weight"))
    y = g.op("Relu", g.bn(y, 4, name="bn1"))
    y = g.op("Flatten", g.op("GlobalAveragePool", y))
    y = g.bn(g.op("MatMul", y, g.weight(4, 6, name="fc.weight")), 6, name="bn2")
    g.output(y, shape=["N", 6])
    return g


def numbers(model: ir.Model, name: str) -> np.ndarray:
    value = model.graph.initializers[name].const_value
    assert value is not None
    return np.asarray(value.numpy())


@pytest.mark.parametrize("dtype", FLOATS)
def test_the_same_up_to_one_rounding_of_each_weight(dtype: str) -> None:
    model = net(dtype).model()
    after = fold(model).model
    assert batchnorms(after) == 0
    for value in after.graph.initializers.values():
        assert value.dtype == model.graph.initializers["conv.weight"].dtype
    # Every weight is off by at most u relatively, and the network adds up about 30 of them.
    assert_equal(model, after, rtol=60 * ROUNDOFF[dtype])


@pytest.mark.parametrize("dtype", FLOATS)
def test_every_weight_is_rounded_exactly_once(dtype: str) -> None:
    """Two batch-norms in a row: rounding between them would show in some of 500 weights."""
    g = Graph(dtype, opset=22)
    y = g.op("Conv", g.input("x", "N", 10, 5, 5), g.weight(50, 10, 1, 1, name="w"))
    for name in ("a", "b"):
        y = g.bn(y, 50, name=name, epsilon=2.0**-10)
    g.output(y)
    model = g.model()
    found = numbers(fold(model).model, "w")
    scale = np.ones(50)
    for name in ("a", "b"):
        gamma = numbers(model, f"{name}.weight").astype(np.float64)
        var = numbers(model, f"{name}.running_var").astype(np.float64)
        scale = gamma / np.sqrt(var + 2.0**-10) * scale
    exact = numbers(model, "w").astype(np.float64) * scale.reshape(-1, 1, 1, 1)
    if dtype == "float64":
        np.testing.assert_allclose(found, exact, rtol=4 * ROUNDOFF[dtype])
    else:
        np.testing.assert_array_equal(found, round_once(exact, found.dtype))


def test_float16_runs_in_onnxruntime() -> None:
    model = net("float16").model()
    after = fold(model).model
    given = feeds(model)
    assert distance(ort_run(model, given)[0], ort_run(after, given)[0]) < 20 * 2.0**-11


def test_float32_statistics_of_a_float16_net() -> None:
    """BatchNormalization-15 allows wider statistics; the weights keep their own type."""
    g = Graph("float16")
    y = g.op("Conv", g.input("x", "N", 3, 5), g.weight(4, 3, 3, name="w"))
    parts = [g.const(g.rng.uniform(0.5, 2, 4), f"s{i}", dtype="float32") for i in range(4)]
    g.output(g.op("BatchNormalization", y, *parts))
    model = g.model()
    after = fold(model).model
    assert batchnorms(after) == 0
    assert {numbers(after, name).dtype for name in after.graph.initializers} == {np.dtype("f2")}
    assert_equal(model, after, rtol=10 * 2.0**-11)


def test_a_tiny_variance_in_float16_is_not_lost() -> None:
    """epsilon = 1e-5 is below float16's normal numbers: the sum is made in float64."""
    g = Graph("float16")
    y = g.op("Conv", g.input("x", "N", 3, 5), g.weight(2, 3, 1))
    parts = g.statistics(2, var=[2.0**-24, 0.0], gamma=[0.01, 0.02])
    g.output(g.op("BatchNormalization", y, *parts))
    model = g.model()
    after = fold(model).model
    assert batchnorms(after) == 0
    assert_equal(model, after, rtol=10 * 2.0**-11)


def test_bfloat16_weights_stay_bfloat16() -> None:
    after = fold(net("bfloat16")).model
    assert numbers(after, "conv.weight").dtype == ml_dtypes.bfloat16


@pytest.mark.parametrize("taker", ["Conv", "BatchNormalization"])
def test_the_default_of_epsilon_is_a_float32(taker: str) -> None:
    """Said or not, it is the same number: float32(1e-5) is 1,300 roundings of float64 from 1e-5."""
    weights = []
    for said in ({}, {"epsilon": 1e-5}):  # an attribute is stored as a float32
        g = Graph("float64")
        y = g.op("Relu", g.input("x", "N", 4, 5, 5))
        if taker == "Conv":
            y = g.op("Conv", y, g.weight(4, 4, 1, 1, name="w"))
        else:
            y = g.op("BatchNormalization", y, *g.statistics(4, "a", var=np.full(4, 1e-6)), **said)
        y = g.op("BatchNormalization", y, *g.statistics(4, "b", var=np.full(4, 1e-6)), **said)
        g.output(y)
        after = fold(g.model()).model
        assert batchnorms(after) == (taker != "Conv")
        constants = after.graph.initializers.items()
        weights.append({name: numbers(after, name).tobytes() for name, _ in constants})
        assert_equal(g.model(), after, rtol=1e-13)
    assert weights[0] == weights[1]
