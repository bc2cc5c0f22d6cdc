"""Folded weights that do not fit into half a float: folding ends, keeps what overflows, says why,
and folds the rest."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st

from converter.folding import Folded, Refusal, overflow
from patterns.graphs import Array, Graph, assert_equal, count, fold

HALVES = ["float16", "bfloat16"]
LARGEST = {"float16": 65504.0, "bfloat16": 3.3895e38}
ROUNDOFF = {"float16": 2.0**-11, "bfloat16": 2.0**-8}


def norm(
    g: Graph, x: str, gamma: Array | float, beta: Array | float = 0.0, mean: Array | float = 0.0
) -> str:
    full = {"gamma": gamma, "beta": beta, "mean": mean, "var": 1.0}
    values = {key: np.broadcast_to(value, 2) for key, value in full.items()}
    return str(g.op("BatchNormalization", x, *g.statistics(2, "huge", **values), epsilon=0.0))


def conv(g: Graph, x: str, weight: float = 1.0) -> str:
    return str(g.op("Conv", x, g.const(np.full((2, 2, 1, 1), weight), g.name("conv") + ".weight")))


def weight(g: Graph, x: str, largest: float) -> str:
    return norm(g, conv(g, x, largest / 2), 4.0)


def bias(g: Graph, x: str, largest: float) -> str:
    return norm(g, conv(g, x), 4.0, mean=largest / 2)


def add_that_is_there(g: Graph, x: str, largest: float) -> str:
    product = g.op("MatMul", x, g.const(np.eye(2)))
    y = g.op("Add", product, g.const(np.full(2, largest / 2)))
    return str(g.op("Transpose", norm(g, g.op("Transpose", y, perm=[0, 3, 1, 2]), 4.0)))


def add_that_is_new(g: Graph, x: str, largest: float) -> str:
    y = g.op("Transpose", g.op("MatMul", x, g.const(np.eye(2))), perm=[0, 3, 1, 2])
    return norm(g, y, 4.0, mean=largest / 2)


def remainder(g: Graph, x: str, largest: float) -> str:
    """x*a + b = a*(x + b/a), and b/a is too large."""
    y = g.op("Mul", x, g.op("Sigmoid", x))
    y = g.op("Mul", y, g.const(np.array([1.0, 2**6 / largest]).reshape(1, 2, 1, 1)))
    y = g.op("Add", y, g.const(np.full((1, 2, 1, 1), 2.0**8)))
    return str(g.op("Conv", y, g.const(np.ones((2, 2, 3, 3))), pads=[1] * 4))


def remainder_of_a_chain_that_ends_in_neg(g: Graph, x: str, largest: float) -> str:
    y = g.op("Mul", x, g.op("Sigmoid", x))
    y = g.op("Mul", y, g.const(np.array([1.0, 2**6 / largest]).reshape(1, 2, 1, 1)))
    y = g.op("Neg", g.op("Add", y, g.const(np.full((1, 2, 1, 1), 2.0**8))))
    return str(g.op("Conv", y, g.const(np.ones((2, 2, 3, 3))), pads=[1] * 4))


def forward(g: Graph, x: str, largest: float) -> str:
    return conv(g, norm(g, g.op("Sigmoid", x), 4.0), largest / 2)


def merge(g: Graph, x: str, largest: float) -> str:
    return str(g.op("Add", conv(g, x, largest * 0.75), conv(g, x, largest * 0.75)))


def merge_with_a_batch_norm(g: Graph, x: str, largest: float) -> str:
    return str(g.op("Add", conv(g, x, largest * 0.75), norm(g, x, largest * 0.75)))


# Each with whether a map of the graph is named as what overflows (else a merge is not made).
CASES: dict[str, tuple[Callable[[Graph, str, float], str], bool]] = {
    function.__name__: (function, named)
    for function, named in [
        (weight, True),
        (bias, True),
        (add_that_is_there, True),
        (add_that_is_new, True),
        (remainder, True),
        (remainder_of_a_chain_that_ends_in_neg, True),
        (forward, True),
        (merge, False),
        (merge_with_a_batch_norm, False),
    ]
}


def network(make: Callable[[Graph, str, float], str], dtype: str) -> ir.Model:
    """What overflows, and beside it a convolution and a batch-norm that do not."""
    g = Graph(dtype, opset=22)
    x = g.input("x", "N", 2, 2, 2)
    g.output(make(g, g.op("Relu", x), LARGEST[dtype]))
    g.output(g.op("Relu", g.bn(g.op("Conv", x, g.weight(4, 2, 1, 1)), 4, name="other")))
    return g.model()


def finite(model: ir.Model) -> bool:
    return all(
        np.isfinite(np.asarray(value.const_value.numpy()).astype(float)).all()
        for value in model.graph.initializers.values()
        if value.const_value is not None
    )


def overflows(folded: Folded) -> list[str]:
    return [
        decision.site.name
        for decision in folded.plan.decisions
        if isinstance(decision.outcome, Refusal) and decision.outcome.code == "overflow"
    ]


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("name", CASES)
def test_what_overflows_stays_and_the_rest_folds(name: str, dtype: str) -> None:
    make, named = CASES[name]
    model = network(make, dtype)
    folded = fold(model)
    assert finite(folded.model)
    assert len(overflows(folded)) == named
    assert not folded.plan.merges
    assert [d.site.name for d in folded.plan.folded] == ["other"]
    assert_equal(model, folded.model, rtol=60 * ROUNDOFF[dtype])


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("name", CASES)
def test_the_same_fits_into_float32_or_float64(name: str, dtype: str) -> None:
    wide = {"float16": "float32", "bfloat16": "float64"}[dtype]
    g = Graph(wide)
    g.output(CASES[name][0](g, g.op("Relu", g.input("x", "N", 2, 2, 2)), LARGEST[dtype]))
    folded = fold(g)
    assert not overflows(folded)
    assert folded.plan.applied or folded.plan.merges


@pytest.mark.parametrize("dtype", HALVES)
def test_of_two_maps_in_one_weight_the_one_that_fits_goes(dtype: str) -> None:
    g = Graph(dtype, opset=22)
    y = conv(g, g.input("x", "N", 2, 2, 2), LARGEST[dtype] / 4)
    y = g.op("BatchNormalization", y, *g.statistics(2, "small", gamma=[0.5, 1], mean=[0, 0]))
    g.output(g.op("Relu", norm(g, y, np.array([1e3, 1.0]))))
    folded = fold(g)
    assert [d.site.name for d in folded.plan.folded] == ["small"]
    assert overflows(folded) == ["huge"]


def test_all_that_overflows_is_told_in_one_round() -> None:
    """Forty that do not fit take two rounds, not forty-one."""
    g = Graph("float16")
    x = g.input("x", "N", 2, 2, 2)
    for _ in range(40):
        g.output(g.op("Relu", norm(g, conv(g, x, 4e4), 4.0)))
    rounds = 0
    real = overflow.GivenUp.because_of

    def counted(self: overflow.GivenUp, *arguments: object) -> None:
        nonlocal rounds
        rounds += 1
        real(self, *arguments)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(overflow.GivenUp, "because_of", counted)
        folded = fold(g)
    assert rounds == 1
    assert len(overflows(folded)) == 40


def test_a_weight_that_held_an_infinity_does_not_hide_another() -> None:
    """The second channel overflows; that the first was infinite all along excuses nothing."""
    g = Graph("float16")
    held = np.array([np.inf, 4e4]).reshape(2, 1, 1, 1)
    y = g.op("Conv", g.input("x", "N", 1, 2, 2), g.const(held, "conv.weight"))
    g.output(norm(g, y, 4.0))
    assert overflows(fold(g)) == ["huge"]


@pytest.mark.parametrize("rounds", [1, 2])
def test_at_the_bound_everything_is_left_and_the_sentence_says_so(
    rounds: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One map after the other is given up: four rounds would be needed, then the last fits."""
    monkeypatch.setattr(overflow, "MOST_ROUNDS", rounds)
    g = Graph("float16", opset=22)
    x = g.input("x", "N", 2, 2, 2)
    y = conv(g, x, 4e4)
    for _ in range(3):
        y = norm(g, y, 4.0)
    z = g.bn(g.op("Conv", x, g.weight(4, 2, 1, 1)), 4, name="other")
    g.output(g.op("Relu", y))
    g.output(g.op("Relu", z))
    g.output(g.op("Add", conv(g, x), conv(g, x)))
    model = g.model()
    folded = fold(model)
    assert not folded.plan.applied
    assert not folded.plan.merges
    sentences = {d.site.name: str(d.outcome) for d in folded.plan.decisions}
    assert f"in {rounds} attempts" in sentences["other"]
    assert "all is left as it was" in sentences["other"]
    assert_equal(model, folded.model)


FACTORS = [1e-7, 1e-4, 1.0, 200.0, 6e4]


@st.composite
def wild(draw: st.DrawFn) -> ir.Model:
    """Layers of float16 with factors from all of its range, in a row or summed."""
    g = Graph("float16", opset=22)
    y = x = g.input("x", "N", 2, 2, 2)
    for _ in range(draw(st.integers(2, 6))):
        kind = draw(st.sampled_from(["conv", "norm", "mul", "add", "relu", "silu", "residual"]))
        factor = draw(st.sampled_from(FACTORS))
        held = np.array([factor, draw(st.sampled_from(FACTORS))])
        shaped = g.const(held.reshape(1, 2, 1, 1))
        y = {
            "conv": lambda y, f=factor: conv(g, y, f),
            "norm": lambda y, h=held: norm(g, y, h, beta=h[::-1]),
            "mul": lambda y, s=shaped: g.op("Mul", y, s),
            "add": lambda y, s=shaped: g.op("Add", y, s),
            "relu": lambda y: g.op("Relu", y),
            "silu": lambda y: g.op("Mul", y, g.op("Sigmoid", y)),
            "residual": lambda y, f=factor: g.op("Add", conv(g, y, f), conv(g, x, f)),
        }[kind](y)
    g.output(g.op("Sigmoid", y))
    return g.model()


@given(wild())
def test_folding_ends_whatever_the_factors(model: ir.Model) -> None:
    folded = fold(model)
    assert finite(folded.model)
    assert count(folded.model) <= count(model)
