"""A Pad of zeros in front of a MaxPool stays zeros in onnxruntime with its optimisations on."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest

from converter.graph.paddings import KeepZeroPaddingsPass
from patterns.graphs import Graph


def padded(opset: int, **attributes: str) -> Graph:
    g = Graph("float32", opset=opset)
    x = g.input("x", "N", 3, 6, 6)
    widths = g.const(np.array([0, 0, 1, 1, 0, 0, 1, 1]))
    y = g.op("Pad", x, widths, **attributes)
    g.annotate(y, "N", 3, 8, 8)
    g.output(g.op("MaxPool", y, kernel_shape=[3, 3], strides=[2, 2]), shape=["N", 3, 3, 3])
    return g


def optimized(model: ir.Model, x: np.ndarray) -> np.ndarray:
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto)
    session = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"x": x})[0])


def test_negative_borders() -> None:
    """The largest of a negative window and padded zeros is zero."""
    x = -np.ones((2, 3, 6, 6), np.float32)
    model = padded(20).model()
    KeepZeroPaddingsPass()(model)
    result = optimized(model, x)
    assert (result[:, :, 0] == 0).all()
    assert (result[:, :, 1:, 1:] == -1).all()


@pytest.mark.parametrize("mode", ["reflect", "edge"])
def test_other_paddings_are_left_alone(mode: str) -> None:
    model = padded(20, mode=mode).model()
    assert not KeepZeroPaddingsPass()(model).modified
    assert len(model.graph[0].inputs) == 2


def test_older_opsets_have_no_axes() -> None:
    model = padded(17).model()
    assert not KeepZeroPaddingsPass()(model).modified
    assert len(model.graph[0].inputs) == 2


def test_twice_is_once() -> None:
    model = padded(20).model()
    assert KeepZeroPaddingsPass()(model).modified
    assert not KeepZeroPaddingsPass()(model).modified
    assert len(model.graph[0].inputs) == 4
    assert len(model.graph.initializers) == 2
