"""Shapes of Reshapes whose sizes are computed, as exporters write x.view(x.size(0), -1)."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from converter.evaluation.normalize import normalize
from converter.folding import fold_graph
from converter.proof import Oracle
from patterns.graphs import Graph, distance, ort_run


def view(g: Graph, x: str, *sizes: Any) -> str:
    """x.view(..): a number, or ("size", axis) for x.size(axis), as TorchScript's exporter does."""
    parts = []
    for size in sizes:
        if isinstance(size, int):
            parts.append(g.const([size]))
            continue
        one = g.op("Gather", g.op("Shape", x), g.const(size[1]), axis=0)
        parts.append(g.op("Unsqueeze", one, g.const([0])))
    return str(g.op("Reshape", x, g.op("Concat", *parts, axis=0)))


def shape_of(g: Graph, name: str) -> list[Any]:
    model = normalize(g.model())
    (value,) = [v for node in model.graph for v in node.outputs if v.name == name]
    assert value.shape is not None
    return [dim if isinstance(dim, int) else dim.value for dim in value.shape]


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ((("size", 0), -1), ["N", 8 * 5 * 6]),
        ((("size", 0), 8, -1), ["N", 8, 30]),
        ((("size", 0), ("size", 1), 30), ["N", 8, 30]),
        ((("size", 0), 2, 4, ("size", 2), ("size", 3)), ["N", 2, 4, 5, 6]),
        ((-1, 240), [None, 240]),
    ],
)
def test_what_is_made(sizes: tuple[Any, ...], expected: list[Any]) -> None:
    g = Graph()
    found = shape_of(g, g.output(view(g, g.input("x", "N", 8, 5, 6), *sizes)))
    assert [dim if isinstance(dim, int) or dim == "N" else None for dim in found] == expected


@pytest.mark.parametrize(
    ("shape", "sizes"),
    [
        (("N", 8, "H", 6), (("size", 0), -1)),  # H is a part of what remains
        (("N", 8, 5, 6), (("size", 0), 7, -1)),  # does not divide
        ((None, 8, 5, 6), (("size", 0), -1, 1)),  # no name to compare: may be told, never wrongly
    ],
)
def test_what_is_not_known_stays_open(shape: tuple[Any, ...], sizes: tuple[Any, ...]) -> None:
    g = Graph()
    found = shape_of(g, g.output(view(g, g.input("x", *shape), *sizes)))
    assert not isinstance(found[0], int)
    if shape[2] == "H" or 7 in sizes:
        assert not isinstance(found[-1], int)


@pytest.mark.parametrize("opset", [9, 13])
def test_a_slice_of_the_shape(opset: int) -> None:
    """x.view(*x.shape[:2], -1), with the bounds as attributes and as inputs."""
    g = Graph(opset=opset)
    x = g.input("x", "N", 8, 5, 6)
    shape = g.op("Shape", x)
    if opset < 10:
        front = g.op("Slice", shape, starts=[0], ends=[2], axes=[0])
    else:
        front = g.op("Slice", shape, g.const([0]), g.const([2]), g.const([0]))
    out = g.output(g.op("Reshape", x, g.op("Concat", front, g.const([-1]), axis=0)))
    assert shape_of(g, out) == ["N", 8, 30]


def net(kind: str) -> Graph:
    """conv - relu - batch-norm, then a view, and what reads it."""
    g = Graph("float32")
    x = g.op("Conv", g.input("x", "N", 3, 7, 8), g.weight(8, 3, 3, 3))
    y = g.bn(g.op("Relu", x), 8)
    if kind == "flatten":
        out = g.op("MatMul", view(g, y, ("size", 0), -1), g.weight(240, 4))
    else:  # a channel shuffle: what is told of the first Reshape is needed for the second
        y = view(g, y, ("size", 0), 2, 4, 5, 6)
        y = g.op("Transpose", y, perm=[0, 2, 1, 3, 4])
        y = view(g, y, ("size", 0), -1, ("size", 3), ("size", 4))
        out = g.op("Conv", y, g.weight(4, 8, 1, 1))
    g.output(g.op("Tanh", out))
    return g


@pytest.mark.parametrize("kind", ["flatten", "shuffle"])
@pytest.mark.parametrize("batch", [1, 4])
def test_a_batchnorm_passes(kind: str, batch: int) -> None:
    original = normalize(net(kind).model())
    folded = fold_graph(original).model
    assert "BatchNormalization" not in {node.op_type for node in folded.graph}
    feeds = {"x": np.random.default_rng(0).standard_normal((batch, 3, 7, 8)).astype("float32")}
    (truth,) = Oracle(original).run(feeds).values()
    assert distance(truth, ort_run(original, feeds)[0]) < 1e-5
    assert distance(truth, ort_run(folded, feeds)[0]) < 1e-5
    onnx.checker.check_model(ir.to_proto(folded), full_check=True)
