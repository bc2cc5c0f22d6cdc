"""What must stay, stays, with the code and a sentence that names what stands in the way."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import get_args

import numpy as np
import onnx
import pytest

from converter.folding import Refusal
from converter.folding.refusal import Code
from converter.sources import LoadOptions, load
from patterns.graphs import Graph, assert_equal, batchnorms, fold, refusal

CASES: dict[str, tuple[str, str, Callable[[], Graph]]] = {}


def case(code: str, names: str) -> Callable[[Callable[[Graph], str]], None]:
    """Register a graph whose first batch-norm stays for `code`; its sentence holds `names`."""

    def register(build: Callable[[Graph], str]) -> None:
        def made() -> Graph:
            g = Graph()
            g.output(build(g))
            return g

        CASES[f"{code}-{build.__name__}"] = code, names, made

    return register


def conv(g: Graph, channels: int = 4, x: str = "") -> str:
    x = x or g.input("x", "N", 3, 5, 5)
    return g.op("Conv", x, g.weight(channels, 3, 1, 1, name="conv1.weight"))


@case("training-mode", "statistics of each batch")
def attribute(g: Graph) -> str:
    return g.bn(conv(g), 4, training_mode=1)


@case("training-mode", "statistics of each batch")
def running_outputs(g: Graph) -> str:
    y = g.op("BatchNormalization", conv(g), *g.statistics(4), outputs=3, training_mode=1)
    g.output(y[1], shape=[4])
    return y[0]


@case("training-mode", "statistics of each batch")
def opset_9_with_outputs_that_nobody_reads(g: Graph) -> str:
    """torch leaves them dangling; onnxruntime then normalises with the batch's statistics."""
    g.opset = 9
    return g.op("BatchNormalization", conv(g), *g.statistics(4), outputs=5)[0]


@case("training-mode", "Dropout")
def dropout(g: Graph) -> str:
    return g.bn(g.op("Dropout", conv(g), g.const(0.5), g.const(np.array(True))), 4)


@case("training-mode", "Dropout")
def dropout_by_input(g: Graph) -> str:
    return g.bn(g.op("Dropout", conv(g), g.const(0.5), g.input("t", dtype="bool")), 4)


@case("batch-statistics", "no running statistics")
def computed_mean(g: Graph) -> str:
    y = conv(g)
    axes = g.const([0, 2, 3])
    mean = g.op("ReduceMean", y, axes, keepdims=0)
    square = g.op("ReduceMean", g.op("Mul", y, y), axes, keepdims=0)
    var = g.op("Sub", square, g.op("Mul", mean, mean))
    return g.op("BatchNormalization", y, *g.statistics(4)[:2], mean, var)


@case("computed-parameters", "weight")
def gamma_of_an_input(g: Graph) -> str:
    gamma = g.op("Relu", g.input("style", 4))
    return g.op("BatchNormalization", conv(g), gamma, *g.statistics(4)[1:])


@case("computed-parameters", "bias")
def beta_is_an_input(g: Graph) -> str:
    gamma, _, mean, var = g.statistics(4)
    return g.op("BatchNormalization", conv(g), gamma, g.input("style", 4), mean, var)


@case("bad-statistics", "negative")
def negative_variance(g: Graph) -> str:
    return g.op("BatchNormalization", conv(g), *g.statistics(4, var=[1.0, -0.5, 1, 1]))


@case("bad-statistics", "not finite")
def nan(g: Graph) -> str:
    return g.op("BatchNormalization", conv(g), *g.statistics(4, mean=[0, np.nan, 0, 0]))


@case("bad-statistics", "not finite")
def zero_variance_without_epsilon(g: Graph) -> str:
    return g.op("BatchNormalization", conv(g), *g.statistics(4, var=np.zeros(4)), epsilon=0.0)


@case("unsupported-form", "spatial=0")
def per_position(g: Graph) -> str:
    g.opset = 8
    parts = [g.weight(4, 5, 5), g.weight(4, 5, 5), g.weight(4, 5, 5), g.const(np.ones((4, 5, 5)))]
    return g.op("BatchNormalization", conv(g), *parts, spatial=0)


@case("unsupported-form", "opset 6")
def opset_6(g: Graph) -> str:
    g.opset = 6
    return g.bn(conv(g), 4, is_test=1)


@case("unsupported-form", "no channel axis")
def rank_1(g: Graph) -> str:
    return g.bn(g.op("Relu", g.input("x", "N")), 1)


@case("unsupported-form", "one number per channel")
def one_number_for_all(g: Graph) -> str:
    return g.op("BatchNormalization", conv(g), *g.statistics(4, gamma=[2.0]))


@case("unsupported-form", "not a matrix")
def vector_weight(g: Graph) -> str:
    y = g.op("MatMul", g.input("x", "N", 4, 3), g.weight(3))
    return g.bn(y, 4)


@case("shared-value", "Relu act")
def two_readers(g: Graph) -> str:
    y = conv(g)
    z = g.bn(y, 4)
    return g.op("Add", z, g.op("Relu", y, node="act"))


@case("shared-value", "BatchNormalization")
def two_batchnorms_of_one_value(g: Graph) -> str:
    y = conv(g)
    return g.op("Add", g.bn(y, 4), g.bn(y, 4))


@case("shared-value", "Neg inside")
def captured_by_a_body(g: Graph) -> str:
    y = conv(g)
    a, b = g.body(), g.body()
    a.output(a.op("Neg", y, node="inside"), shape=["N", 4, 5, 5])
    b.output(b.op("Identity", g.weight(1, 4, 5, 5)), shape=[1, 4, 5, 5])
    c = g.input("c", dtype="bool")
    taken = g.op("If", c, then_branch=a.graph(), else_branch=b.graph())
    return g.op("Add", g.bn(y, 4), taken)


@case("graph-output", "'features'")
def conv_is_an_output(g: Graph) -> str:
    y = conv(g)
    g.rename(y, "features")
    g.output("features")
    return g.bn("features", 4)


@case("graph-output", "'early'")
def behind_a_folded_batchnorm_that_is_an_output(g: Graph) -> str:
    y = g.op("Relu", conv(g))
    g.rename(y, "early")
    g.output("early")
    return g.bn("early", 4)


@case("graph-input", "'x'")
def first_of_all(g: Graph) -> str:
    return g.bn(g.input("x", "N", 4, 5), 4)


@case("subgraph", "no bias")
def a_product_outside_of_the_branch_without_a_bias(g: Graph) -> str:
    """The Add would run whichever branch is taken."""
    y = g.op("MatMul", g.input("x", "N", 3), g.weight(3, 4))
    a, b = g.body(), g.body()
    a.output(a.bn(y, 4), shape=["N", 4])
    b.output(b.op("Identity", g.weight(1, 4)), shape=[1, 4])
    return g.op("If", g.input("c", dtype="bool"), then_branch=a.graph(), else_branch=b.graph())


@case("shared-value", "Tanh")
def conv_outside_that_the_other_branch_reads(g: Graph) -> str:
    y = conv(g)
    a, b = g.body(), g.body()
    a.output(a.bn(y, 4), shape=["N", 4, 5, 5])
    b.output(b.op("Tanh", y), shape=["N", 4, 5, 5])
    return g.op("If", g.input("c", dtype="bool"), then_branch=a.graph(), else_branch=b.graph())


@case("computed-weights", "Conv")
def weights_of_an_input(g: Graph) -> str:
    w = g.op("Relu", g.input("w", 4, 3, 1, 1))
    return g.bn(g.op("Conv", g.input("x", "N", 3, 5, 5), w), 4)


@case("computed-weights", "bias of Gemm")
def bias_of_an_input(g: Graph) -> str:
    return g.bn(g.op("Gemm", g.input("x", "N", 3), g.weight(3, 4), g.input("b", 4)), 4)


@case("computed-weights", "MatMul")
def product_of_two_values(g: Graph) -> str:
    x = g.input("x", 2, 4)
    return g.bn(g.op("MatMul", x, g.op("MatMul", g.op("Transpose", x), x)), 4)


@case("wrong-axis", "MatMul")
def weight_on_the_left(g: Graph) -> str:
    return g.bn(g.op("MatMul", g.weight(2, 5), g.input("x", 5, 4)), 4)


@case("overridable-weights", "caller may replace")
def weight_with_default(g: Graph) -> str:
    w = g.weight(4, 3, 1, 1, overridable=True)
    return g.bn(g.op("Conv", g.input("x", "N", 3, 5, 5), w), 4)


@case("overridable-weights", "running mean")
def statistics_with_default(g: Graph) -> str:
    gamma, beta, _, var = g.statistics(4)
    mean = g.weight(4, overridable=True)
    return g.op("BatchNormalization", conv(g), gamma, beta, mean, var)


@case("wrong-axis", "MatMul")
def rank_3_with_as_many_steps_as_features(g: Graph) -> str:
    """(N, 5, 5): the batch-norm acts on the steps, and the weight has as many columns."""
    return g.bn(g.op("MatMul", g.input("x", "N", 5, 3), g.weight(3, 5)), 5)


@case("wrong-axis", "Conv")
def transposed_square(g: Graph) -> str:
    return g.bn(g.op("Transpose", conv(g, 5), perm=[0, 2, 1, 3]), 5)


@case("not-linear", "Relu")
def activation(g: Graph) -> str:
    return g.bn(g.op("Relu", conv(g)), 4)


@case("sign", "MaxPool")
def pool(g: Graph) -> str:
    return g.bn(g.op("MaxPool", conv(g), kernel_shape=[2, 2]), 4)


@case("shared-value", "Relu")
def residual(g: Graph) -> str:
    x = g.input("x", "N", 3, 5, 5)
    return g.bn(g.op("Add", conv(g, 3, g.op("Relu", x)), x), 3)


@case("shared-value", "Conv")
def concat(g: Graph) -> str:
    x = g.input("x", "N", 3, 5, 5)
    return g.bn(g.op("Concat", conv(g, 3, x), x, axis=1), 6)


@case("unknown-shape", "Reshape")
def target_of_an_input(g: Graph) -> str:
    return g.bn(g.op("Reshape", conv(g), g.input("shape", "R", dtype="int64")), 4)


@case("unknown-shape", "Add")
def constant_makes_the_channels(g: Graph) -> str:
    x = g.op("MatMul", g.input("x", "N", 3), g.weight(3, 1))
    return g.bn(g.op("Add", x, g.weight(4)), 4)


@case("not-per-channel", "Flatten")
def differs_inside_a_channel(g: Graph) -> str:
    return g.bn(g.op("Flatten", conv(g)), 100)


@case("not-per-channel", "Unsqueeze")
def one_channel_from_nowhere(g: Graph) -> str:
    x = g.op("MatMul", g.input("x", "N", 4), g.weight(4))
    return g.bn(g.op("Unsqueeze", x, g.const([1])), 1)


@case("dearer", "Add")
def constant_would_grow(g: Graph) -> str:
    return g.bn(g.op("Add", conv(g), g.weight(1, 1, 5, 5)), 4)


@case("dearer", "Gemm")
def bias_would_grow(g: Graph) -> str:
    return g.bn(g.op("Gemm", g.input("x", 3, 5), g.weight(5, 4), g.weight(3, 1)), 4)


@pytest.mark.parametrize("name", CASES)
def test_it_stays_and_says_why(name: str) -> None:
    code, names, build = CASES[name]
    found = refusal(build())
    assert found.code == code, found
    assert names in found.sentence
    assert found.sentence.endswith(".")


# Random, or not finite, or of a form that has no float64 reference.
UNMEASURED = (
    "bad-statistics",
    "dropout",
    "opset_6",
    "one_number_for_all",
    "target_of_an_input",
    "rank_1",
)


@pytest.mark.parametrize("name", [n for n in CASES if not any(word in n for word in UNMEASURED)])
def test_it_still_computes_the_same(name: str) -> None:
    model = CASES[name][2]().model()
    after = fold(model).model
    assert batchnorms(after) > 0
    assert_equal(model, after)


# Reasons of the way forward are tested in test_forward.py.
ELSEWHERE = {"overflow", "skipped", "padding"}


@pytest.mark.parametrize("code", sorted({*get_args(Code)} - ELSEWHERE))
def test_every_code_has_a_case(code: str) -> None:
    assert any(code == covered for covered, _, _ in CASES.values())


def test_skipped() -> None:
    g = Graph()
    y = g.op("Relu", g.bn(conv(g), 4, name="layer1.bn1"))
    g.output(g.bn(g.op("Conv", y, g.weight(4, 4, 1, 1)), 4, name="layer2.bn1"))
    for options in ({"skip": ["layer1.*"]}, {"only": ["layer2.*"]}):
        first, second = fold(g, **options).plan.decisions
        assert isinstance(first.outcome, Refusal)
        assert first.outcome.code == "skipped"
        assert second.folded


def test_float16_overflow() -> None:
    """60,000 times 100 is no float16: that batch-norm stays, the others go."""
    g = Graph("float16")
    y = g.op("Conv", g.input("x", "N", 1, 4), g.const(np.full((2, 1, 1), 6e4), name="big.weight"))
    y = g.op("BatchNormalization", y, *g.statistics(2, gamma=[100.0, 1]))
    y = g.op("Conv", g.op("Relu", y), g.weight(2, 2, 1))
    g.output(g.bn(y, 2))
    model = g.model()
    first, second = fold(model).plan.decisions
    assert isinstance(first.outcome, Refusal)
    assert first.outcome.code == "overflow"
    assert "Conv big" in first.outcome.sentence
    assert "float16" in first.outcome.sentence
    assert second.folded


def test_before_ir_version_4_initializers_are_inputs_but_constants(tmp_path: Path) -> None:
    """Then every initializer had to be listed; the loader knows, so the batch-norm folds."""
    g = Graph("float32", opset=8, ir_version=3)
    x = g.input("x", "N", 3, 5, 5)
    w = g.weight(4, 3, 1, 1, overridable=True)
    parts = [g.const(np.ones(4) * 2, f"p{i}", overridable=True) for i in range(4)]
    g.output(g.op("BatchNormalization", g.op("Conv", x, w), *parts), shape=["N", 4, 5, 5])
    onnx.save(g.proto(), tmp_path / "old.onnx")
    model = load(tmp_path / "old.onnx", LoadOptions()).model
    after = fold(model).model
    assert batchnorms(after) == 0
    assert_equal(model, after, rtol=1e-6)
