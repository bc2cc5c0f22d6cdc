"""With `through_relu`, a whole map passes a Relu or Clip: its thresholds move."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from converter.evaluation.normalize import normalize
from converter.folding import Folded, Refusal
from converter.folding.affine import Affine
from converter.folding.ops.clipping import Thresholds
from converter.proof import Oracle
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
from patterns.random_graphs import RandomGraph

Act = Callable[[Graph, str], str]
SIGNS = {
    "positive": [0.5, 1.2, 2, 1],
    "negative": [-1.0, -0.3, -2, -1],
    "mixed": [1.0, -0.5, 2, -1],
}
ACTS: dict[str, Act] = {
    "Relu": lambda g, x: g.op("Relu", x),
    "Clip": lambda g, x: g.op("Clip", x, g.const(-0.5), g.const(1.5)),
    "Clip from below": lambda g, x: g.op("Clip", x, g.const(-0.25)),
    "Clip from above": lambda g, x: g.op("Clip", x, "", g.const(0.75)),
    "Clip by nothing": lambda g, x: g.op("Clip", x),
    "Max": lambda g, x: g.op("Max", g.weight(1, 4, 1, 1), x),
    "Min": lambda g, x: g.op("Min", x, g.weight(4, 1, 1)),
}


def norm(g: Graph, x: str, gamma: Any) -> str:
    return g.op("BatchNormalization", x, *g.statistics(4, gamma=gamma))


def checked(g: Graph, left: int = 0) -> Folded:
    before = normalize(g.model())
    folded = fold(g, through_relu=True)
    assert batchnorms(folded.model) == left, [str(d.outcome) for d in folded.plan.kept]
    assert count(folded.model) <= count(before)
    assert_equal(before, folded.model)
    return folded


def backward(g: Graph, act: Act, gamma: Any) -> str:
    y = g.op("Conv", g.input("x", "N", 3, 5, 5), g.weight(4, 3, 1, 1), g.weight(4))
    return norm(g, act(g, y), gamma)


def forward(g: Graph, act: Act, gamma: Any) -> str:
    """DenseNet's order: batch-norm, activation, a convolution without padding."""
    x = g.op("Sigmoid", g.input("x", "N", 4, 5, 5))
    return g.op("Conv", act(g, norm(g, x, gamma)), g.weight(3, 4, 1, 1))


WAYS = {"backward": backward, "forward": forward}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("signs", SIGNS)
@pytest.mark.parametrize("act", ACTS)
def test_float64(act: str, signs: str, way: str) -> None:
    g = Graph(seed=3)
    g.output(WAYS[way](g, ACTS[act], SIGNS[signs]))
    checked(g)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("signs", SIGNS)
@pytest.mark.parametrize("act", ACTS)
def test_onnxruntime_float32(act: str, signs: str, way: str) -> None:
    g = Graph("float32", seed=4)
    g.output(WAYS[way](g, ACTS[act], SIGNS[signs]))
    model = g.model()
    after = fold(model, through_relu=True).model
    assert batchnorms(after) == 0
    given_feeds = feeds(model)
    (exact,) = Oracle(model).run(given_feeds).values()
    assert distance(exact, ort_run(after, given_feeds)[0]) < 3e-6


def test_the_ops_that_become_of_a_relu() -> None:
    for signs, ops in (("positive", ["Max"]), ("negative", ["Min"]), ("mixed", ["Max", "Min"])):
        g = Graph()
        g.output(forward(g, ACTS["Relu"], SIGNS[signs]))
        found = [node.op_type for node in fold(g, through_relu=True).model.graph]
        assert found == ["Sigmoid", *ops, "Conv"]


def test_relu6_before_opset_11_has_attributes() -> None:
    g = Graph(opset=10)
    g.output(forward(g, lambda g, x: g.op("Clip", x, min=0.0, max=6.0), SIGNS["mixed"]))
    folded = checked(g)
    assert not any(n.attributes for n in folded.model.graph if n.op_type in {"Max", "Min"})


def test_without_the_option_it_stays_and_the_hint_says_so() -> None:
    for way in WAYS.values():
        g = Graph()
        g.output(way(g, ACTS["Relu"], SIGNS["mixed"]))
        (decision,) = fold(g).plan.decisions
        assert isinstance(decision.outcome, Refusal)
        assert "--through-relu" in decision.outcome.hint


def test_no_hint_where_it_would_not_help() -> None:
    g = Graph()
    x = g.op("Sigmoid", g.input("x", "N", 4, 5, 5))
    g.output(g.op("Conv", g.op("Relu", g.bn(x, 4)), g.weight(3, 4, 3, 3), pads=[1, 1, 1, 1]))
    (decision,) = fold(g).plan.decisions
    assert isinstance(decision.outcome, Refusal)
    assert "--through-relu" not in str(decision.outcome)


def test_what_folds_without_it_keeps_its_relu() -> None:
    g = Graph()
    y = g.op("Conv", g.input("x", "N", 4, 5, 5), g.weight(4, 4, 1, 1))
    y = g.op("Relu", g.bn(y, 4))
    g.output(g.op("Conv", g.bn(y, 4), g.weight(4, 4, 1, 1)))
    folded = checked(g)
    assert count(folded.model, "Relu") == 1
    assert count(folded.model, "Max") == 0


def test_a_dense_layer() -> None:
    """norm-relu-conv1x1-norm-relu-conv3x3 on a concatenation that others read."""
    g = Graph()
    x = g.op("Relu", g.op("Conv", g.input("x", "N", 3, 6, 6), g.weight(4, 3, 1, 1)))
    y = g.op("Conv", g.op("Relu", norm(g, x, SIGNS["mixed"])), g.weight(4, 4, 1, 1))
    y = g.op("Conv", g.op("Relu", norm(g, y, SIGNS["mixed"])), g.weight(2, 4, 3, 3), pads=[1] * 4)
    y = g.op("Concat", x, y, axis=1)
    g.output(g.op("Conv", g.op("Relu", g.bn(y, 6)), g.weight(3, 6, 1, 1)))
    checked(g)


def test_a_scale_of_zero_backward_is_a_constant_channel() -> None:
    g = Graph()
    g.output(backward(g, ACTS["Relu"], [0.0, 1, -1, 0]))
    checked(g)


def test_a_scale_of_zero_forward_stays() -> None:
    g = Graph()
    g.output(forward(g, ACTS["Relu"], [0.0, 1, -1, 0]))
    checked(g, left=1)


def test_a_relu_that_others_read_stays_backward() -> None:
    g = Graph()
    y = g.op("Relu", g.op("Conv", g.input("x", "N", 3, 5, 5), g.weight(4, 3, 1, 1)))
    g.output(g.op("Sigmoid", y))
    g.output(norm(g, y, SIGNS["mixed"]))
    checked(g, left=1)


def test_a_relu_that_is_a_result_stays() -> None:
    g = Graph()
    y = norm(g, g.op("Sigmoid", g.input("x", "N", 4, 5, 5)), SIGNS["mixed"])
    g.output(g.op("Relu", y))
    checked(g, left=1)


def test_two_that_pass_the_same_relu() -> None:
    """Each batch-norm reads a part of what the Relu gives."""
    g = Graph()
    y = g.op("Relu", g.op("Conv", g.input("x", "N", 3, 5, 5), g.weight(8, 3, 1, 1)))
    parts = g.op("Split", y, outputs=2, axis=1, num_outputs=2)
    for part in parts:
        g.output(g.op("Sigmoid", norm(g, part, SIGNS["mixed"])))
    checked(g, left=0)


def test_a_clip_with_computed_bounds_stays() -> None:
    g = Graph()
    x = g.op("Sigmoid", g.input("x", "N", 4, 5, 5))
    low = g.op("ReduceMin", x, keepdims=0)
    g.output(g.op("Conv", g.op("Clip", norm(g, x, SIGNS["mixed"]), low), g.weight(3, 4, 1, 1)))
    checked(g, left=1)


@pytest.mark.parametrize(("gamma", "left"), [(1e-2, 0), (1e-6, 1)])
def test_a_threshold_that_does_not_fit_its_type_is_taken_back(gamma: float, left: int) -> None:
    """-b/a = -1e6 is no float16."""
    g = Graph("float16")
    x = g.op("Sigmoid", g.input("x", "N", 2, 5))
    parts = g.statistics(2, gamma=[gamma, 1], beta=[1.0, 1], mean=np.zeros(2), var=np.ones(2))
    y = g.op("Relu", g.op("BatchNormalization", x, *parts))
    g.output(g.op("Conv", y, g.weight(3, 2, 1)))
    folded = fold(g, through_relu=True)
    assert batchnorms(folded.model) == left
    if left:
        outcome = folded.plan.decisions[0].outcome
        assert isinstance(outcome, Refusal)
        assert outcome.code == "overflow"


@given(
    st.lists(st.tuples(*[st.floats(-3, 3)] * 3), min_size=1, max_size=4),
    st.sampled_from([(0.0, np.inf), (-np.inf, 0.5), (-1.0, 1.0), (-np.inf, np.inf)]),
)
def test_thresholds(maps: list[tuple[float, float, float]], bounds: tuple[float, float]) -> None:
    """after() and before() against their definitions, at random points."""
    scale, shift, x = (np.array(values) for values in zip(*maps, strict=True))
    found = Thresholds(np.full(len(x), bounds[0]), np.full(len(x), bounds[1]))
    affine = Affine(scale, shift, 0)
    after = found.after(affine)
    mapped = np.clip(scale * x + shift, after.low, after.high)
    assert np.allclose(mapped, np.where(scale == 0, shift, scale * np.clip(x, *bounds) + shift))
    if np.all(np.abs(scale) > 1e-3):
        before = found.before(affine)
        mapped = scale * np.clip(x, before.low, before.high) + shift
        assert np.allclose(mapped, np.clip(scale * x + shift, *bounds), atol=1e-9)


@given(st.integers(0, 2**32 - 1), st.integers(5, 14))
def test_random_graphs(seed: int, size: int) -> None:
    model = RandomGraph(seed).model(size)
    before = normalize(model)
    after = fold(model, through_relu=True).model
    assert count(after) <= count(before)
    assert_equal(model, after)
