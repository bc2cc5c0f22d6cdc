"""Products of two computed matrices: what passes, on which axis, and what a Softmax changes."""

from __future__ import annotations

import pytest

from converter.folding import Refusal
from converter.normalize import normalize
from tests.converter.folding.forward_cases import norm
from tests.converter.folding.graphs import (
    Graph,
    assert_equal,
    batchnorms,
    count,
    distance,
    feeds,
    fold,
    ort_run,
)


def attention(g: Graph, *, softmax: bool = True, **more: int) -> tuple[str, str]:
    """(N, 3, 5, 5) weights over positions and (N, 3, 5, 4) values, each by a product of its own."""
    x = g.input("x", "N", 3, 5, 6)
    a = g.op("MatMul", x, g.weight(6, 5))
    a = g.op("Softmax", a, **more) if softmax else g.op("Sigmoid", a)
    return a, g.op("MatMul", g.op("Tanh", x), g.weight(6, 4))


def heads(g: Graph, y: str, perm: list[int], channels: int, *, shift: bool = True) -> str:
    """A batch-norm on another axis than 1."""
    return norm(g, g.op("Transpose", y, perm=perm), channels, shift=shift)


def stays(g: Graph, left: int) -> None:
    before = normalize(g.model())
    folded = fold(g)
    assert batchnorms(folded.model) == left, [str(d.outcome) for d in folded.plan.kept]
    assert count(folded.model) <= count(before)
    assert_equal(before, folded.model)


@pytest.mark.parametrize(("softmax", "shift", "left"), [
    (True, True, 0), (True, False, 0), (False, True, 1), (False, False, 0),
])  # fmt: skip
def test_on_the_columns(softmax: bool, shift: bool, left: int) -> None:
    g = Graph()
    y = g.op("MatMul", *attention(g, softmax=softmax))
    g.output(heads(g, y, [0, 3, 1, 2], 4, shift=shift))
    stays(g, left)


@pytest.mark.parametrize(("shift", "left"), [(True, 0), (False, 0)])
def test_on_a_batch_axis(shift: bool, left: int) -> None:
    """The heads of (N, heads, positions, features)."""
    g = Graph()
    x = g.input("x", "N", 6, 5, 5)
    a = g.op("Softmax", g.op("Conv", g.op("Tanh", x), g.weight(3, 6, 1, 1)), axis=3)
    v = g.op("Conv", x, g.weight(3, 6, 1, 1))
    g.output(norm(g, g.op("MatMul", a, v), 3, shift=shift))
    stays(g, left)


@pytest.mark.parametrize("shift", [True, False])
def test_on_the_rows(shift: bool) -> None:
    g = Graph()
    x = g.input("x", "N", 3, 5, 6)
    a = g.op("MatMul", g.weight(7, 5), x)  # (N, 3, 7, 6)
    y = g.op("MatMul", a, g.op("Sigmoid", g.op("MatMul", g.weight(6, 5), x)))
    g.output(heads(g, y, [0, 2, 1, 3], 7, shift=shift))
    stays(g, int(shift))


@pytest.mark.parametrize("axis", [1, 2])
def test_a_softmax_over_another_axis_sums_to_something_else(axis: int) -> None:
    g = Graph()
    y = g.op("MatMul", *attention(g, axis=axis))
    g.output(heads(g, y, [0, 3, 1, 2], 4))
    stays(g, 1)


def test_a_softmax_before_opset_13_is_over_all_axes_from_1_on() -> None:
    g = Graph(opset=12)
    y = g.op("MatMul", *attention(g))
    g.output(heads(g, y, [0, 3, 1, 2], 4))
    stays(g, 1)


@pytest.mark.parametrize(("softmax", "left"), [(True, 0), (False, 1)])
def test_forward_from_the_values(softmax: bool, left: int) -> None:
    """Batch-norm on the features of v; a product behind takes it up."""
    g = Graph()
    x = g.input("x", "N", 4, 5, 1)
    v = g.op("Transpose", norm(g, g.op("Sigmoid", x)), perm=[0, 3, 2, 1])  # (N, 1, 5, 4)
    a = g.op("MatMul", g.op("Transpose", x, perm=[0, 3, 2, 1]), g.weight(4, 5))
    a = g.op("Softmax" if softmax else "Sigmoid", a)
    g.output(g.op("MatMul", g.op("MatMul", a, v), g.weight(4, 2)))
    stays(g, left)


def test_the_axis_that_is_summed_over_stops_it() -> None:
    g = Graph()
    x = g.op("Sigmoid", g.input("x", "N", 4, 5, 5))
    y = g.op("Transpose", norm(g, x, shift=False), perm=[0, 2, 1, 3])  # (N, 5, 4, 5)
    g.output(g.op("MatMul", g.op("Transpose", g.op("Tanh", x), perm=[0, 2, 3, 1]), y))
    (decision,) = fold(g).plan.decisions
    assert isinstance(decision.outcome, Refusal)
    assert decision.outcome.behind is not None
    assert "sums over that axis" in decision.outcome.behind.sentence


def test_onnxruntime() -> None:
    g = Graph("float32")
    y = g.op("MatMul", *attention(g))
    g.output(heads(g, y, [0, 3, 1, 2], 4))
    model = g.model()
    after = fold(model).model
    assert batchnorms(after) == 0
    given = feeds(model)
    assert distance(ort_run(model, given)[0], ort_run(after, given)[0]) < 1e-5
