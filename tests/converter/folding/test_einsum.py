"""Einsum with a constant operand takes a map up on either side; what is no plain product stays."""

from __future__ import annotations

import numpy as np
import pytest

from converter.evaluation.normalize import normalize
from patterns.graphs import (
    Graph,
    assert_equal,
    batchnorms,
    count,
    distance,
    feeds,
    float32,
    fold,
    ort_run,
    refusal,
)

SIZES = {"n": "N", "c": 4, "h": 2, "w": 3, "o": 5, "d": 3}


def weight(g: Graph, letters: str) -> str:
    return g.weight(*(SIZES[letter] for letter in letters))  # type: ignore[arg-type]


def norm(g: Graph, x: str, channels: int, *, shift: bool = True) -> str:
    given = {} if shift else {"beta": np.zeros(channels), "mean": np.zeros(channels)}
    return g.op("BatchNormalization", x, *g.statistics(channels, **given))


def einsum(g: Graph, x: str, equation: str, *, left: bool = False) -> str:
    terms = equation.split("->")[0].split(",")
    pair = [weight(g, terms[0]), x] if left else [x, weight(g, terms[1])]
    y = g.op("Einsum", *pair, equation=equation)
    return g.annotate(y, *(SIZES[letter] for letter in equation.split("->")[1]))


def check(g: Graph, left: int = 0) -> None:
    model = g.model()
    before = normalize(model)
    folded = fold(model)
    assert batchnorms(folded.model) == left, [str(d.outcome) for d in folded.plan.kept]
    assert count(folded.model) <= count(before)
    assert_equal(before, folded.model)
    one, other = float32(before), float32(folded.model)
    given = feeds(one)
    for a, b in zip(ort_run(one, given), ort_run(other, given), strict=True):
        assert distance(a, b) < 1e-5


def image(g: Graph, letters: str) -> str:
    return g.input("x", *(SIZES[letter] for letter in letters))


@pytest.mark.parametrize("shift", [True, False])
@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize(("equation", "left"), [
    ("nchw,co->nohw", False),
    ("oc,nchw->nohw", True),
    ("nhwc,co->nowh", False),
    ("nchw,chwo->no", False),
    ("nchw,co->noh", False),
    ("noh,oh->noh", False),
    ("noc,o->noc", False),
])  # fmt: skip
def test_behind(equation: str, left: bool, biased: bool, shift: bool) -> None:
    """Where the constant has several axes of the result, the scale alone goes into it."""
    g = Graph()
    terms, result = equation.split("->")
    x = image(g, terms.split(",")[1 if left else 0])
    y = einsum(g, g.op("Tanh", x), equation, left=left)
    if biased:
        y = g.op("Add", y, g.weight(*[SIZES["o"], *[1] * (len(result) - 2)]))  # type: ignore[list-item]
    g.output(g.op("Tanh", norm(g, y, 5, shift=shift)))
    check(g, int(equation == "noh,oh->noh" and shift and not biased))


@pytest.mark.parametrize("shift", [True, False])
@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize(("equation", "left"), [
    ("nchw,co->nohw", False),
    ("oc,nchw->nohw", True),
    ("nchw,chwo->no", False),
    ("nchw,cho->nwo", False),
    ("nch,c->nch", False),
    ("nch,cdo->nhdo", False),
    ("nchw,co->noh", False),
])  # fmt: skip
def test_ahead(equation: str, left: bool, biased: bool, shift: bool) -> None:
    """A shift that would lie along two axes stays, or whose sum is over an axis of the data; and
    one that is an Add on more numbers than the batch-norm was."""
    g = Graph()
    terms, result = equation.split("->")
    x = image(g, terms.split(",")[1 if left else 0])
    y = einsum(g, norm(g, g.op("Tanh", x), 4, shift=shift), equation, left=left)
    if biased and "o" in result:
        y = g.op("Add", y, g.weight(*[1 if letter != "o" else 5 for letter in result[1:]]))
    g.output(g.op("Tanh", y))
    stays = {"nch,cdo->nhdo", "nchw,co->noh"}
    larger = {"nchw,co->nohw", "oc,nchw->nohw"} if not biased else set()  # 4 channels become 5
    check(g, int(shift and equation in stays | larger))


@pytest.mark.parametrize("biased", [True, False])
def test_an_add_behind_it_is_no_bias(biased: bool) -> None:
    """In front of a pooling it would add to more numbers than the batch-norm behind it."""
    g = Graph()
    x = g.op("Tanh", g.input("x", "N", 4, 6, 6))
    y = g.op("Einsum", x, weight(g, "co"), equation="nchw,co->nohw")
    y = g.op("Add", y, g.weight(5, 1, 1)) if biased else y
    y = g.op("AveragePool", y, kernel_shape=[2, 2], strides=[2, 2])
    g.output(g.op("Tanh", norm(g, y, 5)))
    check(g, int(not biased))


def test_both_sides_at_once() -> None:
    g = Graph()
    y = einsum(g, norm(g, g.op("Tanh", image(g, "nchw")), 4), "nchw,co->nohw")
    g.output(g.op("Tanh", norm(g, norm(g, y, 5), 5)))
    check(g)


@pytest.mark.parametrize(("equation", "code"), [
    ("...c,co->...o", "unsupported-form"),
    ("nchw,co", "unsupported-form"),
    ("ncc,co->no", "unsupported-form"),
    ("nhcw,co->nhow", "wrong-axis"),
])  # fmt: skip
def test_what_is_no_plain_product(equation: str, code: str) -> None:
    g = Graph()
    letters = {"...c,co->...o": "nc", "ncc,co->no": "ncc"}.get(equation, equation.split(",")[0])
    x = norm(g, g.op("Tanh", image(g, letters)), SIZES[letters[1]])  # type: ignore[arg-type]
    g.output(g.op("Tanh", g.op("Einsum", x, weight(g, "co"), equation=equation)))
    found = refusal(g)
    assert found.behind is not None
    assert found.behind.code == code
    assert "Einsum" in found.behind.sentence


def test_two_computed_operands() -> None:
    g = Graph()
    x = norm(g, g.op("Tanh", image(g, "nch")), 4)
    y = g.op("Einsum", x, g.op("Sigmoid", g.input("v", 4, 5)), equation="nch,co->noh")
    g.output(g.op("Tanh", y))
    check(g, 1)
