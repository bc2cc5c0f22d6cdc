"""Multiply-adds, counted by hand beside the formula."""

from __future__ import annotations

from typing import Any

import onnx_ir as ir
import pytest

from converter.graph.cost import Cost, cost_of
from patterns.graphs import Graph


def cost(body: Any, *shape: int | str, inputs: dict[str, tuple[int, ...]] | None = None) -> Cost:
    g = Graph("float32")
    g.output(body(g, g.input("x", *shape)))
    return cost_of(g.model(), inputs)


def _lstm(g: Graph, x: str) -> str:
    made = g.op(
        "LSTM", x, g.weight(2, 20, 3), g.weight(2, 20, 5),
        hidden_size=5, direction="bidirectional", outputs=3,
    )  # fmt: skip
    return str(made[0])


def _shapes(g: Graph, x: str) -> str:
    return str(g.op("Reshape", x, g.op("Mul", g.op("Shape", x), g.const([1, 1]))))


COUNTS: dict[str, tuple[tuple[int | str, ...], Any, int]] = {
    "6*6 positions of 8 channels, 3*3*3 products each": (
        ("N", 3, 8, 8),
        lambda g, x: g.op("Conv", x, g.weight(8, 3, 3, 3), g.weight(8)),
        6 * 6 * 8 * 27,
    ),
    "depthwise": (
        ("N", 4, 8),
        lambda g, x: g.op("Conv", x, g.weight(4, 1, 3), group=4, pads=[1, 1]),
        8 * 4 * 3,
    ),
    "transposed: each of 4*5*5 inputs meets 2*3*3 weights": (
        ("N", 4, 5, 5),
        lambda g, x: g.op("ConvTranspose", x, g.weight(4, 2, 3, 3), strides=[2, 2]),
        100 * 18,
    ),
    "gemm": (
        ("N", 7),
        lambda g, x: g.op("Gemm", x, g.weight(3, 7), g.weight(3), transB=1),
        7 * 3,
    ),
    "gemm with transA": (
        (7, 2),
        lambda g, x: g.op("Gemm", x, g.weight(7, 3), transA=1),
        2 * 7 * 3,
    ),
    "matmul": (("N", 5, 7), lambda g, x: g.op("MatMul", x, g.weight(7, 3)), 5 * 7 * 3),
    "a bias, which is free": (
        ("N", 7),
        lambda g, x: g.op("Add", g.weight(3), g.op("MatMul", x, g.weight(7, 3))),
        7 * 3,
    ),
    "a sum, which is not": (("N", 7), lambda g, x: g.op("Add", x, g.weight(7)), 7),
    "a sum of three": (("N", 7), lambda g, x: g.op("Sum", x, g.weight(7), x), 14),
    "a product": (("N", 7), lambda g, x: g.op("Mul", x, x), 7),
    "batch-norm": (("N", 4, 3), lambda g, x: g.bn(x, 4), 12),
    "relu": (("N", 4, 3), lambda g, x: g.op("Relu", x), 0),
    "whole numbers": (("N", 4), _shapes, 0),
    "2 directions of 6 steps, 4 gates of 5, 3 inputs and 5 states": (
        (6, 1, 3),
        _lstm,
        2 * 6 * 20 * 8,
    ),
}


@pytest.mark.parametrize("case", COUNTS)
def test_a_count(case: str) -> None:
    shape, body, expected = COUNTS[case]
    assert cost(body, *shape).multiply_adds == expected


def test_a_fixed_batch_counts_and_one_that_varies_is_one() -> None:
    assert cost(lambda g, x: g.op("Mul", x, x), 5, 7).multiply_adds == 35
    assert cost(lambda g, x: g.op("Mul", x, x), "N", 7).multiply_adds == 7
    assert cost(lambda g, x: g.op("Mul", x, x), "N", 7, inputs={"x": (2, 7)}).multiply_adds == 14


def test_an_unknown_size_is_said_not_guessed() -> None:
    def conv(g: Graph, x: str) -> str:
        return str(g.op("Conv", x, g.weight(4, 3, 3, name="conv.weight")))

    assert cost(conv, "N", 3, "length") == Cost(1, None, ("Conv conv",))
    assert cost(conv, "N", 3, "length", inputs={"x": (1, 3, 10)}).multiply_adds == 8 * 4 * 9


def test_of_an_if_the_dearer_body_counts_and_a_loop_is_not_guessed() -> None:
    g = Graph("float32")
    x, condition = g.input("x", "N", 4), g.input("c", dtype="bool")
    one, two = g.body(), g.body()
    one.output(one.op("MatMul", x, g.weight(4, 4)), shape=["N", 4])
    two.output(two.op("Mul", x, x), shape=["N", 4])
    y = g.op("If", condition, then_branch=one.graph(), else_branch=two.graph())
    g.output(y, shape=["N", 4])
    assert cost_of(g.model()) == Cost(3, 16)

    g = Graph("float32")
    x = g.input("x", 1, 4)
    body = g.body()
    count = body.input("i", dtype="int64")
    keep, state = body.input("keep", dtype="bool"), body.input("state", 1, 4)
    again = body.op("Identity", keep)
    body.output(again, dtype="bool", shape=[])
    body.output(body.op("Mul", state, state), shape=[1, 4])
    assert count
    turns, go = g.const([3]), g.const(True)
    g.output(g.op("Loop", turns, go, x, body=body.graph()), shape=[1, 4])
    found = cost_of(g.model())
    assert found.multiply_adds is None
    assert "repeats its body" in found.uncounted[0]


def test_the_graph_is_not_changed() -> None:
    g = Graph("float32")
    g.output(g.op("Conv", g.input("x", "N", 3, 8), g.weight(4, 3, 3)), shape=["N", 4, "L"])
    model = g.model()
    before = ir.to_proto(model).SerializeToString(deterministic=True)
    cost_of(model)
    assert ir.to_proto(model).SerializeToString(deterministic=True) == before
