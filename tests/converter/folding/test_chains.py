"""Constant scales and shifts that are no BatchNormalization nodes: found, folded, or left."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from converter.evaluation.normalize import normalize
from converter.folding import Folded, Refusal, Route
from patterns.graphs import (
    Graph,
    assert_equal,
    count,
    distance,
    feeds,
    fold,
    ort_run,
)

Chain = Callable[[Graph, str, int], str]


def column(g: Graph, channels: int, rank: int = 4, axis: int = 1) -> str:
    """A constant with one number per channel, of both signs and not near zero."""
    values = g.rng.uniform(0.3, 2.0, channels) * np.where(g.rng.random(channels) < 0.5, -1, 1)
    return g.const(values.reshape([-1 if i == axis else 1 for i in range(axis, rank)]))


def one(g: Graph) -> str:
    return g.const(np.array(g.rng.uniform(0.5, 2.0)))


CHAINS: dict[str, Chain] = {
    "frozen": lambda g, x, c: g.op("Add", g.op("Mul", x, column(g, c)), column(g, c)),
    "keras": lambda g, x, c: g.op(
        "Add", g.op("Mul", g.op("Sub", x, column(g, c)), column(g, c)), column(g, c)
    ),
    "keras-parts": lambda g, x, c: g.op(
        "Add",
        g.op("Mul", column(g, c), g.op("Div", g.op("Sub", x, column(g, c)), column(g, c))),
        column(g, c),
    ),
    "tensorflow": lambda g, x, c: g.op("Sub", g.op("Mul", x, column(g, c)), column(g, c)),
    "layer-scale": lambda g, x, c: g.op("Mul", x, column(g, c)),
    "from-the-left": lambda g, x, c: g.op("Sub", column(g, c), g.op("Mul", column(g, c), x)),
    "factors": lambda g, x, _: g.op(
        "Add", g.op("Neg", g.op("Div", g.op("Mul", x, one(g)), one(g))), one(g)
    ),
    "mixed": lambda g, x, c: g.op("Sub", g.op("Mul", g.op("Add", x, one(g)), column(g, c)), one(g)),
}


def arithmetic(folded: Folded) -> int:
    return sum(count(folded.model, op) for op in ("Mul", "Add", "Sub", "Div", "Neg"))


def checked(g: Graph, left: int) -> Folded:
    """Fold; `left` elementwise nodes stay, and float64 sees no difference."""
    before = normalize(g.model())
    folded = fold(g)
    assert arithmetic(folded) == left, [str(d.outcome) for d in folded.plan.decisions]
    assert_equal(before, folded.model)
    assert count(folded.model) <= count(before)
    return folded


@pytest.mark.parametrize("name", CHAINS)
def test_backward_into_a_convolution(name: str) -> None:
    g = Graph()
    y = g.op("Conv", g.input("x", "N", 3, 6, 6), g.weight(4, 3, 3, 3), pads=[1] * 4)
    g.output(g.op("Relu", CHAINS[name](g, y, 4)))
    folded = checked(g, left=0)
    assert [d.folded for d in folded.plan.decisions] == [True]
    assert count(folded.model) == 2


@pytest.mark.parametrize("name", CHAINS)
def test_float32_in_onnxruntime(name: str) -> None:
    g = Graph("float32")
    y = g.op("Conv", g.input("x", "N", 3, 6, 6), g.weight(4, 3, 3, 3), pads=[1] * 4)
    g.output(g.op("Relu", CHAINS[name](g, y, 4)))
    model = g.model()
    given_ = feeds(model)
    assert distance(ort_run(model, given_)[0], ort_run(fold(g).model, given_)[0]) < 1e-5


@pytest.mark.parametrize("name", CHAINS)
def test_forward_into_a_convolution(name: str) -> None:
    """A lone factor behind an activation stays: it may belong to it."""
    g = Graph()
    y = CHAINS[name](g, g.op("Sigmoid", g.input("x", "N", 4, 6, 6)), 4)
    g.output(g.op("Conv", y, g.weight(5, 4, 3, 3)))
    checked(g, left=4 if name == "factors" else 0)


@pytest.mark.parametrize("name", CHAINS)
def test_at_the_start_of_the_graph(name: str) -> None:
    g = Graph()
    y = CHAINS[name](g, g.input("x", "N", 4, 6, 6), 4)
    g.output(g.op("Conv", y, g.weight(5, 4, 3, 3)))
    folded = checked(g, left=0)
    assert {d.site.kind for d in folded.plan.decisions} == {"scale-shift"}


def test_an_input_normalisation_in_front_of_padding_keeps_its_shift_only() -> None:
    """(x - mean)/std: the scale goes on, one Add of two nodes is left."""
    g = Graph()
    y = g.op("Div", g.op("Sub", g.input("x", "N", 3, 6, 6), column(g, 3)), column(g, 3))
    g.output(g.op("Conv", y, g.weight(4, 3, 3, 3), pads=[1] * 4))
    folded = checked(g, left=1)
    assert [node.op_type for node in folded.model.graph] == ["Add", "Conv"]
    (decision,) = folded.plan.decisions
    assert (decision.applied, decision.folded) == (True, False)
    assert decision.remainder is not None
    assert not decision.remainder.scales


def test_a_factor_is_laid_on_the_axis_that_suits() -> None:
    """x/255 of (N, H, W, C) that is transposed for the convolution."""
    g = Graph()
    y = g.op("Div", g.input("x", "N", 6, 6, 3), g.const(np.array(255.0)))
    g.output(g.op("Conv", g.op("Transpose", y, perm=[0, 3, 1, 2]), g.weight(4, 3, 3, 3)))
    checked(g, left=0)


def test_a_decomposed_batchnorm_is_reported_as_one() -> None:
    g = Graph()
    y = g.op("Conv", g.input("x", "N", 3, 6, 6), g.weight(4, 3, 3, 3))
    g.output(CHAINS["keras"](g, y, 4))
    plan = fold(g).plan
    assert len(plan.folded) == 1
    assert not plan.scale_shifts


def test_channels_last() -> None:
    g = Graph()
    y = g.op("MatMul", g.input("x", "N", 5, 3), g.weight(3, 4))
    y = g.op("Add", g.op("Mul", y, g.weight(4)), g.weight(4))
    g.output(g.op("Relu", y))
    folded = fold(g)
    assert_equal(g.model(), folded.model)
    assert [node.op_type for node in folded.model.graph] == ["MatMul", "Add", "Relu"]


def test_a_bias_behind_matmul_and_a_chain() -> None:
    """MatMul, bias, scale, shift: one product and one bias are left."""
    g = Graph()
    y = g.op("Add", g.op("MatMul", g.input("x", "N", 5, 3), g.weight(3, 4)), g.weight(4))
    y = g.op("Add", g.op("Mul", y, g.weight(4)), g.weight(4))
    g.output(g.op("Relu", y))
    folded = fold(g)
    assert_equal(g.model(), folded.model)
    assert [node.op_type for node in folded.model.graph] == ["MatMul", "Add", "Relu"]


def test_a_batchnorm_and_its_chains_fold_together() -> None:
    g = Graph()
    y = g.op("Conv", g.input("x", "N", 3, 6, 6), g.weight(4, 3, 3, 3))
    y = g.op("Mul", g.bn(g.op("Mul", y, column(g, 4)), 4), one(g))
    g.output(g.bn(g.op("Add", y, column(g, 4)), 4))
    folded = fold(g)
    assert_equal(g.model(), folded.model)
    assert count(folded.model) == 1 + (count(folded.model, "Add") > 0)
    assert not folded.plan.kept


@pytest.mark.parametrize("sign", [1, -1])
def test_the_scale_goes_back_through_relu_and_the_shift_on_through_the_sum(sign: int) -> None:
    """y = a*relu(z) + b: a > 0 into z's convolution, b past the Add into an unpadded one."""
    g = Graph()
    x = g.input("x", "N", 4, 6, 6)
    r = g.op("Relu", g.op("Conv", x, g.weight(4, 4, 1, 1)))
    gamma = sign * g.rng.uniform(0.5, 1.5, 4)
    y = g.op("BatchNormalization", r, *g.statistics(4, gamma=gamma))
    total = g.op("Add", y, g.op("Tanh", x))
    g.output(g.op("Conv", total, g.weight(5, 4, 1, 1)))
    folded = fold(g)
    assert_equal(g.model(), folded.model)
    (decision,) = folded.plan.decisions
    if sign < 0:
        assert isinstance(decision.outcome, Refusal)
        assert decision.outcome.code in {"sign", "not-linear"}
        return
    assert isinstance(decision.outcome, Route)
    assert decision.outcome.direction == "both ways"
    assert len(decision.outcome.into) == 2
    assert count(folded.model) == 5


NO_SITES: dict[str, Callable[[Graph, str], str]] = {
    "bias": lambda g, x: g.op("Add", x, column(g, 4)),
    "sign": lambda g, x: g.op("Neg", x),
    "computed": lambda g, x: g.op("Mul", x, g.op("Sigmoid", x)),
    "positions": lambda g, x: g.op("Mul", x, g.weight(4, 6, 6)),
    "enlarged": lambda g, x: g.op("Mul", g.op("GlobalAveragePool", x), g.weight(1, 1, 6, 6)),
    "divided-by-the-data": lambda g, x: g.op("Div", column(g, 4), g.op("Exp", x)),
}


@pytest.mark.parametrize("name", NO_SITES)
def test_what_is_no_scale_per_channel(name: str) -> None:
    g = Graph()
    y = g.op("Conv", g.input("x", "N", 3, 6, 6), g.weight(4, 3, 1, 1))
    g.output(NO_SITES[name](g, y))
    model = g.model()
    folded = fold(g)
    assert folded.plan.decisions == ()
    assert_equal(model, folded.model)


def test_the_end_of_a_layer_norm_is_left_to_the_runtime() -> None:
    g = Graph()
    x = g.input("x", "N", 5, 4)
    mean = g.op("ReduceMean", x, g.const(np.array([-1])))
    d = g.op("Sub", x, mean)
    var = g.op("ReduceMean", g.op("Mul", d, d), g.const(np.array([-1])))
    root = g.op("Sqrt", g.op("Add", var, g.const(np.array(1e-5))))
    y = g.op("Add", g.op("Mul", g.op("Div", d, root), g.weight(4)), g.weight(4))
    g.output(g.op("MatMul", y, g.weight(4, 3)))
    folded = fold(g)
    assert folded.plan.decisions == ()
    assert count(folded.model) == count(normalize(g.model()))


def test_a_value_inside_a_chain_that_others_read_ends_it() -> None:
    g = Graph()
    y = g.op("Conv", g.input("x", "N", 3, 6, 6), g.weight(4, 3, 1, 1))
    inner = g.op("Mul", y, column(g, 4))
    g.output(g.op("Add", inner, column(g, 4)))
    g.output(g.op("Sigmoid", inner))
    folded = fold(g)
    assert_equal(g.model(), folded.model)
    assert count(folded.model, "Mul") == 0
    assert count(folded.model, "Add") == 1


OPS = ["Mul", "Div", "Add", "Sub", "Sub-left", "Neg", "Mul-one", "Relu", "bn", "Conv", "Fork"]


@pytest.mark.slow
@given(st.lists(st.sampled_from(OPS), min_size=1, max_size=9), st.integers(0, 10_000))
def test_any_chain_is_exact(names: list[str], seed: int) -> None:
    g = Graph(seed=seed)
    y = g.op("Conv", g.input("x", "N", 3, 5, 5), g.weight(4, 3, 1, 1))
    for name in names:
        if name == "Relu":
            y = g.op("Relu", y)
        elif name == "bn":
            y = g.bn(y, 4)
        elif name == "Conv":
            y = g.op("Conv", y, g.weight(4, 4, 3, 3), pads=[1] * 4)
        elif name == "Fork":
            y = g.op("Add", y, g.op("Tanh", y))
        elif name == "Neg":
            y = g.op("Neg", y)
        elif name == "Sub-left":
            y = g.op("Sub", column(g, 4), y)
        elif name == "Mul-one":
            y = g.op("Mul", y, one(g))
        else:
            y = g.op(name, y, column(g, 4))
    g.output(y)
    model = g.model()
    folded = fold(model)
    assert_equal(model, folded.model)
    assert count(folded.model) <= count(normalize(model))


def test_nothing_passes_a_chain_of_which_half_stays() -> None:
    """Both give their scale to the convolution and keep their shift, one behind the other."""

    def chain(y: str) -> str:
        return g.op("Mul", g.op("Sub", y, g.weight(4, 1, 1)), g.const(np.full((4, 1, 1), 0.7)))

    g = Graph()
    y = g.op("Relu", g.op("Conv", g.input("x", "N", 4, 6, 6), g.weight(4, 4, 1, 1)))
    y = chain(g.op("LeakyRelu", g.op("MaxPool", chain(y), kernel_shape=[2, 2])))
    g.output(g.op("Add", g.op("Sigmoid", y), y))
    model = g.model()
    assert_equal(model, fold(model).model)


def test_a_shift_does_not_go_into_the_add_that_is_its_own() -> None:
    """The Add behind a product is its bias and the first node of the chain: it stays."""
    g = Graph()
    x = g.op("MatMul", g.weight(1, 3), g.op("Tanh", g.input("x", "N", 3, 4)))
    y = g.op("Mul", g.op("Add", x, g.weight(1, 1, 1)), g.weight(1, 4))
    g.output(g.op("Tanh", y))
    before = normalize(g.model())
    assert_equal(before, fold(g).model)
