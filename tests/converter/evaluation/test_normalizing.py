"""Softmax before opset 13, LRN, MeanVarianceNormalization and GlobalLpPool in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from converter.proof import Oracle
from patterns.graphs import Array, distance
from tests.converter.evaluation.nodes import by_onnxruntime, feeds, one_node


def check(op: str, x: Array, **more: Any) -> Array:
    """The oracle, which chooses by the opset, is what onnxruntime computes."""
    (found,) = (
        Oracle(one_node(op, x, dtype="float64", **more).model())
        .run(feeds((x,), "float64"))
        .values()
    )
    assert found.dtype == np.float64
    assert distance(found, by_onnxruntime(op, x, **more)) < 2e-6
    return found


def drawn(*shape: int) -> Array:
    return np.random.default_rng(0).standard_normal(shape)


@pytest.mark.parametrize("axis", [None, 0, 1, 2, 3, -1, -2])
@pytest.mark.parametrize("op", ["Softmax", "LogSoftmax", "Hardmax"])
@pytest.mark.parametrize("opset", [9, 11, 12, 13, 20])
def test_softmax(op: str, axis: int | None, opset: int) -> None:
    if opset < 11 and axis is not None and axis < 0:
        pytest.skip("negative axes came with opset 11")
    check(op, drawn(2, 3, 4, 5), opset=opset, **({} if axis is None else {"axis": axis}))


def test_softmax_before_13_goes_over_all_axes_behind() -> None:
    whole = check("Softmax", drawn(2, 3, 4), opset=11)
    np.testing.assert_allclose(whole.sum(axis=(1, 2)), 1.0, rtol=1e-14)


@pytest.mark.parametrize("size", [1, 3, 5])
@pytest.mark.parametrize("shape", [(2, 7, 3, 3), (5, 2, 3, 3)])
def test_lrn(size: int, shape: tuple[int, ...]) -> None:
    check("LRN", drawn(*shape), size=size, alpha=0.7, beta=0.6, bias=1.5)


@pytest.mark.parametrize("axes", [None, [2, 3], [1, 2, 3], [0, 2, 3]])
def test_mean_variance_normalization(axes: list[int] | None) -> None:
    more = {} if axes is None else {"axes": axes}
    check("MeanVarianceNormalization", drawn(2, 3, 4, 5), opset=13, **more)


@pytest.mark.parametrize("p", [1, 2, 3])
def test_global_lp_pool(p: int) -> None:
    check("GlobalLpPool", drawn(2, 3, 4, 5), p=p)
