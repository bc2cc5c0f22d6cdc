"""Forward: a batch-norm goes into all that read it, past what commutes with it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from converter.evaluation.normalize import normalize
from converter.folding import Folded, Refusal, moves, ops
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
from tests.converter.folding import forward_cases
from tests.converter.folding.cases import PARTLY

Build = Callable[[Graph, str], str]


def checked(g: Graph, left: int) -> Folded:
    """Fold; `left` batch-norms stay, and float64 sees no difference."""
    before = normalize(g.model())
    folded = fold(g)
    assert batchnorms(folded.model) == left, [str(d.outcome) for d in folded.plan.kept]
    assert_equal(before, folded.model)
    assert count(folded.model) <= count(before)
    return folded


def positive(g: Graph, x: str, channels: int, shift: bool = True) -> str:
    """A batch-norm whose scales are positive; without `shift`, its map is a*x."""
    gamma = g.rng.uniform(0.3, 1.5, channels)
    none = {"beta": np.zeros(channels), "mean": np.zeros(channels)}
    return g.op(
        "BatchNormalization", x, *g.statistics(channels, gamma=gamma, **({} if shift else none))
    )


# --- ops: what follows the batch-norm takes it up ---------------------------------------

SINKS: dict[str, Build] = {
    "Conv": lambda g, x: g.op("Conv", g.bn(x, 4), g.weight(6, 4, 3, 3)),
    "ConvTranspose": lambda g, x: g.op(
        "ConvTranspose",
        g.op(
            "BatchNormalization",
            x,
            *g.statistics(4, beta=np.zeros(4), mean=np.zeros(4)),
        ),
        g.weight(4, 3, 3, 3),
        group=2,
    ),
    "Gemm": lambda g, x: g.op("Gemm", g.bn(flat(g, x), 144), g.weight(144, 5), g.weight(5)),
    "MatMul": lambda g, x: g.op("MatMul", g.bn(flat(g, x), 144), g.weight(144, 5)),
    "Einsum": lambda g, x: g.op("Einsum", g.bn(x, 4), g.weight(4, 3), equation="nchw,co->nohw"),
    "RNN": lambda g, x: recurrent(g, x, "RNN", 1),
    "LSTM": lambda g, x: recurrent(g, x, "LSTM", 4),
    "GRU": lambda g, x: recurrent(g, x, "GRU", 3),
    "Add": lambda g, x: conv2d(g, g.op("Add", g.bn(x, 4), g.weight(4, 1, 1)), 4),
    "Sub": lambda g, x: conv2d(g, g.op("Sub", g.bn(x, 4), g.weight(4, 1, 1)), 4),
    "InstanceNormalization": lambda g, x: g.op(
        "InstanceNormalization", forward_cases.norm(g, x, scale="none"), g.weight(4), g.weight(4)
    ),
}


def flat(g: Graph, x: str) -> str:
    return g.op("Flatten", x)


def recurrent(
    g: Graph, x: str, op: str, gates: int, directions: int = 2, bias: bool = True, **more: Any
) -> str:
    """(N, 4, 6, 6) -> (N, 4, 36) -> batch-norm -> (36, N, 4) -> the recurrent op."""
    sequence = g.op("Reshape", x, g.const([0, 4, 36]))
    steps = g.op("Transpose", g.bn(sequence, 4), perm=[2, 0, 1])
    hidden = 3
    weights = [
        g.weight(directions, gates * hidden, 4),
        g.weight(directions, gates * hidden, hidden),
    ]
    if bias:
        weights.append(g.weight(directions, 2 * gates * hidden))
    return g.op(
        op, steps, *weights, hidden_size=hidden,
        direction="bidirectional" if directions == 2 else "forward", **more,
    )  # fmt: skip


@pytest.mark.parametrize(
    "op", sorted((ops.FORWARD.keys() - PARTLY - {"BatchNormalization"}) | {"Add", "Sub"})
)
def test_every_sink(op: str) -> None:
    g = Graph()
    x = g.op("Relu", g.input("x", "N", 4, 6, 6))
    g.output(SINKS[op](g, x))
    folded = checked(g, left=0)
    (decision,) = folded.plan.decisions
    assert decision.outcome.direction == "forward"
    sides = {edit.update.side for edit in decision.outcome.edits}
    assert sides == (set() if op == "InstanceNormalization" else {"before"})


@pytest.mark.parametrize("op", ["RNN", "LSTM", "GRU"])
@pytest.mark.parametrize("more", [{}, {"bias": False}, {"directions": 1}])
def test_recurrent_in_onnxruntime(op: str, more: dict[str, Any]) -> None:
    """onnxruntime has kernels of its own; float32."""
    g = Graph("float32")
    x = g.op("Relu", g.input("x", "N", 4, 6, 6))
    gates = {"RNN": 1, "LSTM": 4, "GRU": 3}[op]
    g.output(recurrent(g, x, op, gates, **more))
    after = fold(g).model
    assert batchnorms(after) == 0
    given_feeds = feeds(g.model())
    for one, other in zip(
        ort_run(g.model(), given_feeds), ort_run(after, given_feeds), strict=True
    ):
        assert distance(one, other) < 1e-5


@pytest.mark.parametrize("linear_before_reset", [0, 1])
def test_gru_with_either_reset(linear_before_reset: int) -> None:
    g = Graph()
    x = g.op("Relu", g.input("x", "N", 4, 6, 6))
    g.output(recurrent(g, x, "GRU", 3, linear_before_reset=linear_before_reset))
    checked(g, left=0)


@pytest.mark.parametrize("group", [1, 2, 4])
@pytest.mark.parametrize("bias", [False, True])
def test_conv_in_groups(group: int, bias: bool) -> None:
    g = Graph()
    x = g.op("Relu", g.input("x", "N", 4, 6, 6))
    weights = [g.weight(8, 4 // group, 3, 2)] + ([g.weight(8)] if bias else [])
    g.output(g.op("Conv", g.bn(x, 4), *weights, group=group, dilations=[2, 1], strides=[1, 2]))
    checked(g, left=0)


@pytest.mark.parametrize("attributes", [{"pads": [0, 1, 0, 0]}, {"auto_pad": "SAME_UPPER"}])
def test_zero_padding_stops_a_shift_but_not_a_scale(attributes: dict[str, Any]) -> None:
    for shift, left in ((True, 1), (False, 0)):
        g = Graph()
        x = g.op("Relu", g.input("x", "N", 4, 6, 6))
        y = positive(g, x, 4, shift=shift)
        g.output(g.op("Conv", y, g.weight(5, 4, 3, 3), **attributes))
        folded = checked(g, left=left)
        if left:
            behind = folded.plan.kept[0].outcome.behind
            assert behind.code == "padding"
            assert "pads its input with zeros" in behind.sentence


@pytest.mark.parametrize("group", [1, 2])
@pytest.mark.parametrize("bias", [False, True])
def test_a_transposed_convolution_of_single_positions_takes_a_shift(group: int, bias: bool) -> None:
    g = Graph()
    x = g.op("Relu", g.input("x", "N", 4, 6, 6))
    weights = [g.weight(4, 3, 1, 1)] + ([g.weight(3 * group)] if bias else [])
    g.output(g.op("ConvTranspose", g.bn(x, 4), *weights, group=group))
    checked(g, left=0)


@pytest.mark.parametrize(
    "more",
    [{"strides": [2, 2]}, {"pads": [1, 0, 0, 0]}, {"output_padding": [1, 0], "strides": [2, 1]}],
)
def test_other_transposed_convolutions_take_none(more: dict[str, Any]) -> None:
    g = Graph()
    x = g.op("Relu", g.input("x", "N", 4, 6, 6))
    g.output(g.op("ConvTranspose", g.bn(x, 4), g.weight(4, 3, 1, 1), **more))
    checked(g, left=1)


@pytest.mark.parametrize("biased", [False, True])
def test_a_product_with_its_weight_on_the_left(biased: bool) -> None:
    """W x over the channels of (N, 4, 36); a bias of its own would grow only if it is a row."""
    g = Graph()
    x = g.op("Reshape", g.op("Relu", g.input("x", "N", 4, 6, 6)), g.const([0, 4, 36]))
    y = g.op("MatMul", g.weight(5, 4), g.bn(x, 4))
    g.output(g.op("Add", y, g.weight(36)) if biased else y)
    checked(g, left=int(biased))


@pytest.mark.parametrize("shift", [False, True])
def test_a_batched_weight_takes_a_scale(shift: bool) -> None:
    g = Graph()
    x = g.op("Transpose", g.op("Relu", g.input("x", 2, 7, 4)), perm=[0, 2, 1])
    y = g.op("Transpose", forward_cases.norm(g, x, shift=shift), perm=[0, 2, 1])
    g.output(g.op("MatMul", y, g.weight(2, 4, 5)))
    checked(g, left=int(shift))


@pytest.mark.parametrize("op", ["InstanceNormalization", "LayerNormalization"])
def test_a_scale_in_front_of_a_normalisation_meets_its_epsilon(op: str) -> None:
    g = Graph()
    x = g.op("Relu", g.input("x", "N", 4, 6, 6))
    size = 4 if op == "InstanceNormalization" else 6
    g.output(g.op(op, g.bn(x, 4), g.weight(size), g.weight(size)))
    kept = checked(g, left=1).plan.kept[0].outcome
    assert "epsilon" in str(kept)


@pytest.mark.parametrize("transposed", [0, 1])
@pytest.mark.parametrize("bias", ["none", "scalar", "vector", "matrix"])
def test_gemm_forms(transposed: int, bias: str) -> None:
    g = Graph()
    x = g.op("Relu", g.input("x", 3, 4))
    inputs = [g.bn(x, 4), g.weight(*((5, 4) if transposed else (4, 5)))]
    shapes = {"scalar": (), "vector": (5,), "matrix": (3, 5)}
    if bias in shapes:
        inputs.append(g.weight(*shapes[bias]))
    g.output(g.op("Gemm", *inputs, transB=transposed, alpha=0.5, beta=3.0))
    checked(g, left=0)


def test_matmul_gives_its_shift_to_the_add_behind() -> None:
    g = Graph()
    x = g.op("Relu", g.input("x", "N", 7, 4))
    y = g.op("Transpose", g.bn(g.op("Transpose", x, perm=[0, 2, 1]), 4), perm=[0, 2, 1])
    g.output(g.op("Add", g.op("MatMul", y, g.weight(4, 5)), g.weight(5)))
    before = count(normalize(g.model()))
    folded = checked(g, left=0)
    assert count(folded.model) == before - 1
    assert count(folded.model, "Add") == 1


def test_matmul_without_a_bias_gets_one_also_as_an_output() -> None:
    g = Graph()
    x = g.op("Relu", g.input("x", "N", 4))
    g.output(g.rename(g.op("MatMul", g.bn(x, 4), g.weight(4, 5)), "y"))
    folded = checked(g, left=0)
    assert [value.name for value in folded.model.graph.outputs] == ["y"]


def test_two_products_without_a_bias_would_be_dearer() -> None:
    g = Graph()
    y = g.bn(g.op("Relu", g.input("x", "N", 4)), 4)
    for _ in range(2):
        g.output(g.op("Relu", g.op("MatMul", y, g.weight(4, 5))))
    folded = checked(g, left=1)
    assert "would need an Add" in str(folded.plan.kept[0].outcome)


def test_several_readers_all_take_it() -> None:
    g = Graph()
    y = g.bn(g.op("Relu", g.input("x", "N", 4, 6, 6)), 4)
    g.output(g.op("Conv", y, g.weight(5, 4, 1, 1)))
    g.output(g.op("Gemm", flat(g, y), g.weight(144, 3)))
    folded = checked(g, left=0)
    assert len(folded.plan.decisions[0].outcome.into) == 2


def test_one_reader_that_cannot_keeps_it_for_all() -> None:
    g = Graph()
    y = g.bn(g.op("Relu", g.input("x", "N", 4, 6, 6)), 4)
    g.output(g.op("Conv", y, g.weight(5, 4, 1, 1)))
    g.output(g.op("Sigmoid", y))
    folded = checked(g, left=1)
    assert "Sigmoid" in str(folded.plan.kept[0].outcome)


def test_a_result_of_the_model_stays() -> None:
    g = Graph()
    y = g.bn(g.op("Relu", g.input("x", "N", 4, 6, 6)), 4)
    g.output(y)
    g.output(g.op("Conv", y, g.weight(5, 4, 1, 1)))
    checked(g, left=1)


def test_the_input_of_the_model_may_be_normalised_forward() -> None:
    g = Graph()
    g.output(g.op("Conv", g.bn(g.input("x", "N", 4, 6, 6), 4), g.weight(5, 4, 3, 3)))
    checked(g, left=0)


def test_a_chain_of_two_goes_into_one_op() -> None:
    g = Graph()
    x = g.op("Relu", g.input("x", "N", 4, 6, 6))
    g.output(g.op("Conv", g.bn(g.bn(x, 4), 4), g.weight(5, 4, 2, 2)))
    checked(g, left=0)


def test_a_weight_that_another_op_shares_is_copied() -> None:
    g = Graph()
    x, w = g.op("Relu", g.input("x", "N", 4, 6, 6)), g.weight(4, 4, 1, 1)
    g.output(g.op("Relu", g.op("Conv", g.bn(x, 4), w)))
    g.output(g.op("Relu", g.op("Conv", x, w)))
    checked(g, left=0)


def test_forward_and_backward_meet_in_one_convolution() -> None:
    g = Graph()
    x = g.op("Relu", g.input("x", "N", 4, 6, 6))
    g.output(g.op("Relu", g.bn(g.op("Conv", g.bn(x, 4), g.weight(5, 4, 3, 3)), 5)))
    folded = checked(g, left=0)
    assert [d.outcome.direction for d in folded.plan.decisions] == ["forward", "backward"]


def test_both_branches_of_a_merge_take_it() -> None:
    g = Graph()
    y = g.bn(g.op("Relu", g.input("x", "N", 4, 6, 6)), 4)
    total = g.op(
        "Add", g.op("Conv", y, g.weight(4, 4, 1, 1)), g.op("Conv", y, g.weight(4, 4, 1, 1))
    )
    g.output(g.op("Relu", total))
    folded = checked(g, left=0)
    assert count(folded.model, "Conv") == 1


@pytest.mark.parametrize("behind", ["itself", "pools", "both"])
def test_into_a_batch_norm_that_stays(behind: str) -> None:
    """Others read the first one's result, too, so the second one is not folded into it."""
    g = Graph()
    y = g.bn(g.op("Tanh", g.input("x", "N", 4, 6, 6)), 4)
    if behind != "pools":
        g.output(g.op("Tanh", g.bn(y, 4)))
    if behind != "itself":
        pooled = g.op("AveragePool", g.op("Identity", y), kernel_shape=[2, 2])
        g.output(g.op("Sigmoid", g.bn(pooled, 4)))
    g.output(conv2d(g, y, 4))
    checked(g, left=2 if behind == "both" else 1)


@pytest.mark.parametrize("what", ["training", "computed", "skipped", "zero padding"])
def test_not_into_every_batch_norm(what: str) -> None:
    g = Graph()
    y = g.bn(g.op("Tanh", g.input("x", "N", 4, 6, 6)), 4, name="first")
    parts = g.statistics(4, "second")
    if what == "computed":
        parts[0] = g.op("Sigmoid", g.input("gamma", 4))
    attributes = {"training_mode": 1} if what == "training" else {}
    g.output(g.op("Tanh", g.op("BatchNormalization", y, *parts, **attributes)))
    pads = [int(what == "zero padding")] * 4
    g.output(g.op("Conv", y, g.weight(4, 4, 3, 3), pads=pads))
    model = g.model()
    folded = fold(model, skip=["second"] if what == "skipped" else [])
    assert batchnorms(folded.model) == 2, [str(d.outcome) for d in folded.plan.decisions]
    if what != "training":
        assert_equal(model, folded.model)


# --- moves: what it passes ----------------------------------------------------------------


def conv2d(g: Graph, x: str, channels: int) -> str:
    return g.op("Conv", x, g.weight(3, channels, 1, 1))


MOVES: dict[str, Build] = {
    "Identity": lambda g, x: conv2d(g, g.op("Identity", g.bn(x, 4)), 4),
    "Dropout": lambda g, x: conv2d(g, g.op("Dropout", g.bn(x, 4)), 4),
    "MaxPool": lambda g, x: conv2d(
        g, g.op("MaxPool", positive(g, x, 4), kernel_shape=[3, 3], pads=[1, 1, 1, 1]), 4
    ),
    "GlobalMaxPool": lambda g, x: conv2d(g, g.op("GlobalMaxPool", positive(g, x, 4)), 4),
    "AveragePool": lambda g, x: conv2d(
        g, g.op("AveragePool", g.bn(x, 4), kernel_shape=[3, 2], pads=[1, 1, 1, 1]), 4
    ),
    "GlobalAveragePool": lambda g, x: conv2d(g, g.op("GlobalAveragePool", g.bn(x, 4)), 4),
    "Relu": lambda g, x: conv2d(g, g.op("Relu", positive(g, x, 4, shift=False)), 4),
    "LeakyRelu": lambda g, x: conv2d(g, g.op("LeakyRelu", positive(g, x, 4, shift=False)), 4),
    "PRelu": lambda g, x: conv2d(
        g, g.op("PRelu", positive(g, x, 4, shift=False), g.weight(4, 1, 1)), 4
    ),
    "Transpose": lambda g, x: g.op(
        "MatMul", g.op("Transpose", g.bn(x, 4), perm=[0, 2, 3, 1]), g.weight(4, 5)
    ),
    "Reshape": lambda g, x: g.op(
        "Gemm", g.op("Reshape", g.bn(x, 4), g.const([-1, 144])), g.weight(144, 5)
    ),
    "Flatten": lambda g, x: g.op("Gemm", flat(g, g.bn(x, 4)), g.weight(144, 5)),
    "Squeeze": lambda g, x: g.op(
        "Gemm",
        g.op("Squeeze", g.op("GlobalAveragePool", g.bn(x, 4)), g.const([2, 3])),
        g.weight(4, 5),
    ),
    "Unsqueeze": lambda g, x: g.op(
        "Conv", g.op("Unsqueeze", g.bn(x, 4), g.const([2])), g.weight(5, 4, 1, 1, 1)
    ),
    "ReduceMean": lambda g, x: g.op(
        "Gemm", g.op("ReduceMean", g.bn(x, 4), g.const([2, 3]), keepdims=0), g.weight(4, 5)
    ),
    "Concat": lambda g, x: conv2d(g, g.op("Concat", g.op("Sigmoid", x), g.bn(x, 4), x, axis=1), 12),
}


MOVES |= forward_cases.MORE


@pytest.mark.parametrize("op", sorted({*moves.FORWARD, *PARTLY} - {"Clip"}))  # test_through_relu.py
def test_every_move_has_a_case(op: str) -> None:
    assert op in MOVES


@pytest.mark.parametrize("name", MOVES)
def test_every_move(name: str) -> None:
    op = name.split(",")[0]
    g = Graph()
    x = g.op("Sigmoid", g.input("x", "N", 4, 6, 6))
    g.output(MOVES[name](g, x))
    folded = checked(g, left=0)
    if op not in {"Identity", "Dropout"}:  # gone before a plan is made
        assert any(op in step for step in folded.plan.decisions[0].outcome.path)


@pytest.mark.parametrize("name", MOVES)
def test_every_move_in_onnxruntime(name: str) -> None:
    g = Graph("float32", seed=3)
    x = g.op("Sigmoid", g.input("x", "N", 4, 6, 6))
    g.output(MOVES[name](g, x))
    model = g.model()
    given_feeds = feeds(model)
    after = fold(model).model
    exact = Oracle(model).run(given_feeds).values()
    results = ort_run(model, given_feeds), ort_run(after, given_feeds), exact
    for one, other, true in zip(*results, strict=True):
        assert distance(one, other) < 1e-5
        assert distance(true, other) < 1e-5


@pytest.mark.parametrize("op", ["MaxPool", "GlobalMaxPool"])
def test_a_maximum_needs_positive_scales_and_the_sentence_says_so(op: str) -> None:
    g = Graph()
    x = g.op("Sigmoid", g.input("x", "N", 4, 6, 6))
    y = g.op("BatchNormalization", x, *g.statistics(4, gamma=[1.0, 2.0, -0.5, 1.0]))
    more = {"kernel_shape": [2, 2]} if op == "MaxPool" else {}
    g.output(conv2d(g, g.op(op, y, **more), 4))
    behind = checked(g, left=1).plan.kept[0].outcome.behind
    assert behind.code == "sign"
    assert "negative in 1 of 4 channels (the first is 2)" in behind.sentence


@pytest.mark.parametrize(("included", "left"), [(0, 0), (1, 1)])
def test_an_average_over_counted_padding_stops_a_shift(included: int, left: int) -> None:
    g = Graph()
    x = g.op("Sigmoid", g.input("x", "N", 4, 6, 6))
    pooled = g.op(
        "AveragePool", g.bn(x, 4), kernel_shape=[3, 3], pads=[1] * 4, count_include_pad=included
    )
    g.output(conv2d(g, pooled, 4))
    checked(g, left=left)


def test_relu_lets_no_shift_pass() -> None:
    g = Graph()
    x = g.op("Sigmoid", g.input("x", "N", 4, 6, 6))
    g.output(conv2d(g, g.op("Relu", positive(g, x, 4)), 4))
    assert "lets no shift pass" in str(checked(g, left=1).plan.kept[0].outcome)


def test_a_concat_of_another_axis_stops_it() -> None:
    g = Graph()
    x = g.op("Sigmoid", g.input("x", "N", 4, 6, 6))
    g.output(conv2d(g, g.op("Concat", g.bn(x, 4), x, axis=2), 4))
    checked(g, left=1)


def test_a_mean_over_the_channels_stops_it() -> None:
    g = Graph()
    x = g.op("Sigmoid", g.input("x", "N", 4, 6, 6))
    mean = g.op("ReduceMean", g.bn(x, 4), g.const([1]), keepdims=1)
    g.output(g.op("Conv", mean, g.weight(3, 1, 1, 1)))
    checked(g, left=1)


def test_a_parameter_input_is_no_data() -> None:
    g = Graph()
    x = g.op("Sigmoid", g.input("x", "N", 4, 6, 6))
    slope = g.op("GlobalAveragePool", g.bn(x, 4))
    g.output(conv2d(g, g.op("PRelu", x, slope), 4))
    checked(g, left=1)


def test_the_keras_tutorial_net_folds_with_positive_gamma() -> None:
    """Conv-relu-BN-MaxPool-Conv-relu-BN-MaxPool-Flatten-Dense, unpadded."""
    g = Graph()
    x = g.input("x", "N", 1, 14, 14)
    for inputs, outputs in ((1, 4), (4, 6)):
        x = g.op("Relu", g.op("Conv", x, g.weight(outputs, inputs, 3, 3), g.weight(outputs)))
        x = g.op("MaxPool", positive(g, x, outputs), kernel_shape=[2, 2], strides=[2, 2])
    g.output(g.op("Gemm", flat(g, x), g.weight(24, 10), g.weight(10)))
    checked(g, left=0)


def test_a_dense_block_does_not_explode() -> None:
    """Each layer reads all before it: the paths of the first batch-norm double every time."""
    g = Graph()
    x = g.op("Sigmoid", g.input("x", "N", 2, 4, 4))
    y = g.bn(x, 2)
    channels = 2
    for _ in range(12):
        y = g.op("Concat", y, g.op("Identity", y), axis=1)
        channels *= 2
    g.output(g.op("Conv", y, g.weight(1, channels, 1, 1)))
    kept = checked(g, left=1).plan.kept[0].outcome
    assert isinstance(kept, Refusal)
    assert "paths" in str(kept)


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    """A batch-norm, some moves, and linear ops behind them."""
    g = Graph(seed=draw(st.integers(0, 10_000)))
    x = g.op("Sigmoid", g.input("x", "N", 4, 8, 8))
    any_sign = draw(st.booleans())
    y = g.bn(x, 4) if any_sign else positive(g, x, 4, shift=draw(st.booleans()))
    channels = 4
    for move in draw(
        st.lists(st.sampled_from(["max", "average", "relu", "concat", "bn"]), max_size=4)
    ):
        if move == "max":
            y = g.op("MaxPool", y, kernel_shape=[2, 2], pads=[0, 0, 1, 1])
        elif move == "average":
            included = draw(st.integers(0, 1))
            y = g.op(
                "AveragePool", y, kernel_shape=[3, 3], pads=[1] * 4, count_include_pad=included
            )
        elif move == "relu":
            y = g.op("LeakyRelu", y)
        elif move == "concat":
            y, channels = g.op("Concat", y, y, axis=1), channels * 2
        else:
            y = g.bn(y, channels)
    for _ in range(draw(st.integers(1, 2))):
        pads = draw(st.sampled_from([[0] * 4, [1] * 4]))
        z = g.op("Conv", y, g.weight(3, channels, 3, 3), pads=pads)
        g.output(g.op("Relu", g.bn(z, 3) if draw(st.booleans()) else z))
    return g


@given(graphs())
def test_never_wrong(g: Graph) -> None:
    before = normalize(g.model())
    after = fold(g).model
    assert_equal(before, after)
    assert count(after) <= count(before)


def test_two_that_only_together_have_positive_scales() -> None:
    """The second goes into the first, whose map is then positive and passes the maximum."""
    g = Graph()
    y = g.op("Sigmoid", g.input("x", "N", 4, 6, 6))
    for _ in range(2):
        y = g.op("BatchNormalization", y, *g.statistics(4, gamma=[-1.0, -0.5, -2.0, -0.7]))
    g.output(conv2d(g, g.op("MaxPool", y, kernel_shape=[2, 2]), 4))
    checked(g, left=0)
