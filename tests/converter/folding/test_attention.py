"""Products of two computed matrices: what passes, on which axis, and what a Softmax changes."""

from __future__ import annotations

import pytest

from converter.evaluation.normalize import normalize
from converter.folding import Refusal
from patterns.graphs import (
    Graph,
    assert_equal,
    batchnorms,
    count,
    distance,
    feeds,
    fold,
    ort_run,
)
from tests.converter.folding.forward_cases import norm


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


def heads_apart(g: Graph, *, folded: bool, batch: int | str = "N", softmax: bool = True) -> str:
    """softmax(q k') v by convolutions, 2 heads of 3 features on 4x5 positions, as an image again;
    `folded`: heads and batch are one axis, as in a bottleneck transformer."""
    x = g.input("x", batch, 4, 4, 5)
    rows: list[int] = [-1] if folded else [0, 2]
    name = (2 * batch,) if isinstance(batch, int) else (f"2*{batch}",)
    lead = name if folded else (batch, 2)

    def part() -> str:
        y = g.op("Reshape", g.op("Conv", x, g.weight(6, 4, 1, 1)), g.const([*rows, 3, 20]))
        return g.annotate(y, *lead, 3, 20)

    swap = [0, 2, 1] if folded else [0, 1, 3, 2]
    a = g.op("MatMul", g.op("Transpose", part(), perm=swap), part())
    a = g.annotate(g.op("Softmax" if softmax else "Sigmoid", a), *lead, 20, 20)
    y = g.op("MatMul", a, g.op("Transpose", part(), perm=swap))
    y = g.op("Transpose", g.annotate(y, *lead, 20, 3), perm=swap)
    return g.annotate(g.op("Reshape", y, g.const([-1, 6, 4, 5])), batch, 6, 4, 5)


@pytest.mark.parametrize("batch", ["N", 2])
@pytest.mark.parametrize("shift", [True, False])
@pytest.mark.parametrize("softmax", [True, False])
@pytest.mark.parametrize("folded", [True, False])
def test_on_heads_and_their_features(
    folded: bool, softmax: bool, shift: bool, batch: int | str
) -> None:
    """The map of the last image is on (heads, features), and one on the channels of v's conv."""
    g = Graph()
    y = heads_apart(g, folded=folded, batch=batch, softmax=softmax)
    g.output(g.op("Tanh", norm(g, y, 6, shift=shift)))
    stays(g, int(shift and not softmax))


@pytest.mark.parametrize("folded", [True, False])
def test_forward_on_heads_and_their_features(folded: bool) -> None:
    """From v to the convolution behind."""
    g = Graph()
    x = g.input("x", "N", 6, 4, 5)
    lead = ("2*N",) if folded else ("N", 2)
    rows: list[int] = [-1] if folded else [0, 2]
    swap = [0, 2, 1] if folded else [0, 1, 3, 2]
    v = g.op("Reshape", norm(g, g.op("Sigmoid", x), 6), g.const([*rows, 3, 20]))
    v = g.op("Transpose", g.annotate(v, *lead, 3, 20), perm=swap)
    q = g.annotate(g.op("Reshape", x, g.const([*rows, 20, 3])), *lead, 20, 3)
    a = g.op("MatMul", q, g.op("Transpose", q, perm=swap))
    a = g.annotate(g.op("Softmax", a), *lead, 20, 20)
    y = g.op("Transpose", g.annotate(g.op("MatMul", a, v), *lead, 20, 3), perm=swap)
    y = g.annotate(g.op("Reshape", y, g.const([-1, 6, 4, 5])), "N", 6, 4, 5)
    g.output(g.op("Conv", y, g.weight(4, 6, 1, 1)))
    stays(g, 0)


@pytest.mark.parametrize("what", ["query", "batch", "reader", "unknown"])
def test_what_stops_it_on_heads_and_their_features(what: str) -> None:
    g = Graph()
    lead = (1 if what == "batch" else "2*N",)
    x = g.op("Sigmoid", g.input("x", "N", 6, 4, 5))
    q = g.annotate(g.op("Reshape", x, g.const([-1, 20, 3])), "2*N", 20, 3)
    a = g.op("Softmax", g.op("MatMul", q, g.op("Transpose", q, perm=[0, 2, 1])))
    a = g.annotate(a, "2*N", 20, 20)
    if what == "batch":  # one v for all heads and samples
        v = g.op("MatMul", g.input("v", 1, 20, 2), g.weight(2, 3))
    else:
        v = g.op("Reshape", g.op("Conv", g.input("v", "N", 6, 4, 5), g.weight(6, 6, 1, 1)),
                 g.const([-1, 20, 3] if what == "query" else [-1, 3, 20]))  # fmt: skip
        v = v if what == "query" else g.op("Transpose", v, perm=[0, 2, 1])
    if what != "unknown":
        g.annotate(v, *lead, 20, 3)
    y = g.op("MatMul", a, v)
    if what == "reader":
        g.output(g.op("Tanh", y))
    y = g.op("Transpose", g.annotate(y, "2*N", 20, 3), perm=[0, 2, 1])
    y = g.annotate(g.op("Reshape", y, g.const([-1, 6, 4, 5])), "N", 6, 4, 5)
    g.output(g.op("Tanh", norm(g, y, 6)))
    stays(g, 1)


def test_onnxruntime() -> None:
    g = Graph("float32")
    y = g.op("MatMul", *attention(g))
    g.output(heads(g, y, [0, 3, 1, 2], 4))
    model = g.model()
    after = fold(model).model
    assert batchnorms(after) == 0
    given = feeds(model)
    assert distance(ort_run(model, given)[0], ort_run(after, given)[0]) < 1e-5
