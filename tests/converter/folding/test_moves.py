"""Every op that a batch-norm passes on its way back to a linear op, and the axis it lands on."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from converter.folding import fold_graph, moves
from converter.proof import Oracle
from patterns.graphs import (
    Graph,
    assert_equal,
    batchnorms,
    count,
    distance,
    feeds,
    fold,
    normalize,
    ort_run,
    refusal,
    signature,
)
from tests.converter.folding import move_cases  # noqa: F401 - more cases
from tests.converter.folding.cases import CASES, PARTLY, case


def convolved(g: Graph, channels: int = 4, height: int | str = 3, width: int | str = 2) -> str:
    x = g.input("x", "N", 3, height, width)
    return g.op("Conv", x, g.weight(channels, 3, 1, 1))


def multiplied(g: Graph, *shape: int | str, columns: int = 5) -> str:
    x = g.input("x", *shape, 4)
    return g.op("MatMul", x, g.weight(4, columns))


def repeated(g: Graph, x: str, channels: int, times: int) -> str:
    """A batch-norm of channels * times numbers, the same ones inside each channel."""
    drawn = {key: g.rng.uniform(0.5, 2.0, channels) for key in ("gamma", "beta", "mean", "var")}
    drawn["gamma"][0] *= -1
    values = {key: np.repeat(value, times) for key, value in drawn.items()}
    return g.op("BatchNormalization", x, *g.statistics(channels * times, **values))


def shaped(op: str, name: str, *target: int, times: int = 1, **attributes: int) -> None:
    """A Reshape of a convolution's (N, 4, 3, 2) to `target`, then a batch-norm."""

    def build(g: Graph) -> str:
        y = g.op("Reshape", convolved(g), g.const(list(target)), **attributes)
        return repeated(g, y, 4, times)

    CASES[f"{op}-{name}"] = op, build


shaped("Reshape", "flatten", -1, 24, times=6)
shaped("Reshape", "copy-zero", 0, 24, times=6)
shaped("Reshape", "zero-and-minus-one", 0, 0, -1)
shaped("Reshape", "merge-spatial", 0, 4, 6)
shaped("Reshape", "split-spatial", 0, 4, 3, 2, 1)
shaped("Reshape", "merge-channel-and-height", 0, 12, 2, times=3)
shaped("Reshape", "allowzero", -1, 24, times=6, allowzero=1)
shaped("Reshape", "ones-in-between", 0, 4, 1, 1, 6)


@case("Identity", "between")
def _(g: Graph) -> str:
    return g.bn(g.op("Identity", convolved(g)), 4)


@case("Dropout", "default")
def _(g: Graph) -> str:
    return g.bn(g.op("Dropout", convolved(g)), 4)


@case("Dropout", "ratio-only")
def _(g: Graph) -> str:
    return g.bn(g.op("Dropout", convolved(g), g.const(0.3)), 4)


@case("Dropout", "training-mode-false")
def _(g: Graph) -> str:
    return g.bn(g.op("Dropout", convolved(g), g.const(0.3), g.const(np.array(False))), 4)


@case("Transpose", "perm")
def _(g: Graph) -> str:
    return g.bn(g.op("Transpose", multiplied(g, "N", 6), perm=[0, 2, 1]), 5)


@case("Transpose", "default-perm")
def _(g: Graph) -> str:
    y = g.op("Transpose", convolved(g))  # (2, 3, 4, N)
    return g.bn(g.op("Transpose", y, perm=[0, 2, 1, 3]), 4)


@case("Transpose", "there-and-back")
def _(g: Graph) -> str:
    y = g.op("Transpose", convolved(g), perm=[0, 2, 3, 1])
    return g.bn(g.op("Transpose", y, perm=[0, 3, 2, 1]), 4)


@case("Transpose", "rank-4")
def _(g: Graph) -> str:
    return g.bn(g.op("Transpose", multiplied(g, "N", 2, 3), perm=[0, 3, 2, 1]), 5)


@case("Flatten", "default-axis")
def _(g: Graph) -> str:
    return repeated(g, g.op("Flatten", convolved(g)), 4, 6)


@case("Flatten", "negative-axis")
def _(g: Graph) -> str:
    return repeated(g, g.op("Flatten", convolved(g), axis=-3), 4, 6)


@case("Flatten", "axis-of-the-columns")
def _(g: Graph) -> str:
    return g.bn(g.op("Flatten", multiplied(g, "N", 6), axis=2), 5)


@case("Squeeze", "axes")
def _(g: Graph) -> str:
    y = convolved(g, height=1, width=2)
    return g.bn(g.op("Squeeze", y, g.const([2])), 4)


@case("Squeeze", "all-ones")
def _(g: Graph) -> str:
    x = g.input("x", 2, 3, 1, 1)
    return g.bn(g.op("Squeeze", g.op("Conv", x, g.weight(4, 3, 1, 1))), 4)


@case("Unsqueeze", "behind")
def _(g: Graph) -> str:
    return g.bn(g.op("Unsqueeze", multiplied(g, "N"), g.const([2, -1])), 5)


@case("Unsqueeze", "before")
def _(g: Graph) -> str:
    """(N, 5) seen as (N, 1, 5) has one channel, whose map all five columns share."""
    return g.bn(g.op("Unsqueeze", multiplied(g, "N"), g.const([1])), 1)


@case("Unsqueeze", "symbolic-length")
def _(g: Graph) -> str:
    y = g.op("Conv", g.input("x", "N", 3, "L"), g.weight(4, 3, 1))
    return g.bn(g.op("Unsqueeze", y, g.const([3])), 4)


@case("Add", "constant-right")
def _(g: Graph) -> str:
    return g.bn(g.op("Add", multiplied(g, "N"), g.weight(5)), 5)


@case("Add", "constant-left")
def _(g: Graph) -> str:
    return g.bn(g.op("Add", g.weight(1, 5), multiplied(g, "N")), 5)


@case("Add", "scalar")
def _(g: Graph) -> str:
    return g.bn(g.op("Add", convolved(g), g.const(0.7)), 4)


@case("Add", "channels")
def _(g: Graph) -> str:
    return g.bn(g.op("Add", convolved(g), g.weight(4, 1, 1)), 4)


@case("Add", "every-element")
def _(g: Graph) -> str:
    return g.bn(g.op("Add", convolved(g), g.weight(1, 4, 3, 2)), 4)


@case("Add", "widens-the-spatial-axes")
def _(g: Graph) -> str:
    return g.bn(g.op("Add", convolved(g, height=1, width=1), g.weight(4, 3, 2)), 4)


@case("Add", "rank-3-then-transposed")
def _(g: Graph) -> str:
    y = g.op("Add", multiplied(g, "N", 6), g.weight(5))
    return g.bn(g.op("Transpose", y, perm=[0, 2, 1]), 5)


@case("Sub", "constant-right")
def _(g: Graph) -> str:
    return g.bn(g.op("Sub", convolved(g), g.weight(4, 1, 1)), 4)


@case("Sub", "constant-left")
def _(g: Graph) -> str:
    return g.bn(g.op("Sub", g.weight(4, 1, 1), convolved(g)), 4)


@case("Sub", "scalar-left-rank-4")
def _(g: Graph) -> str:
    y = g.op("Sub", g.const(1.0), multiplied(g, "N", 2, 3))
    return g.bn(g.op("Transpose", y, perm=[0, 3, 1, 2]), 5)


def prepared(model: ir.Model, name: str) -> ir.Model:
    """Normalized, except that normalizing would remove the very ops that are tested here."""
    return (
        model.clone()
        if name.startswith(("Identity", "Dropout", "Squeeze-all"))
        else normalize(model)
    )


def infer(model: ir.Model) -> ir.Model:
    ir.passes.common.ShapeInferencePass(check_type=False, strict_mode=False)(model)
    return model


# --- ops that keep the channels on their axis: the map in front of them may be any -------


def behind(op: str, *, scale_only: bool = False, positive: bool = True, **more: Any) -> None:
    """A convolution, the op, and a batch-norm that commutes with it."""

    def build(g: Graph) -> str:
        y = g.op("Conv", g.input("x", "N", 3, 6, 6), g.weight(4, 3, 1, 1), g.weight(4))
        extra = [g.weight(4, 1, 1)] if op == "PRelu" else []
        given: dict[str, Any] = {"gamma": g.rng.uniform(0.3, 1.5, 4)} if positive else {}
        if scale_only:
            given |= {"beta": np.zeros(4), "mean": np.zeros(4)}
        return g.op("BatchNormalization", g.op(op, y, *extra, **more), *g.statistics(4, **given))

    case(op, "of a convolution")(build)


behind("MaxPool", kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=[2, 2])
behind("GlobalMaxPool")
behind("AveragePool", positive=False, kernel_shape=[3, 3], pads=[1, 1, 1, 1])
behind("GlobalAveragePool", positive=False)
for homogeneous in ("Relu", "LeakyRelu", "PRelu"):
    behind(homogeneous, scale_only=True)


@case("ReduceMean", "with its axes gone")
def _(g: Graph) -> str:
    y = g.op("Transpose", convolved(g), perm=[0, 2, 1, 3])  # (N, 3, 4, 2)
    return g.bn(g.op("ReduceMean", y, g.const([1]), keepdims=0), 4)


@case("ReduceMean", "with its axes kept")
def _(g: Graph) -> str:
    return g.bn(g.op("ReduceMean", convolved(g), g.const([-1, 2]), keepdims=1), 4)


@case("Concat", "of channels")
def _(g: Graph) -> str:
    x = g.input("x", "N", 3, 5, 5)
    parts = [g.op("Conv", x, g.weight(channels, 3, 1, 1)) for channels in (2, 3, 1)]
    return g.bn(g.op("Concat", *parts, axis=1), 6)


@case("Concat", "of rows")
def _(g: Graph) -> str:
    x = g.input("x", "N", 3, 5, 5)
    parts = [g.op("Conv", x, g.weight(4, 3, 1, 1)) for _ in range(2)]
    return g.bn(g.op("Concat", *parts, axis=2), 4)


@case("Add", "of two convolutions")
def _(g: Graph) -> str:
    x = g.input("x", "N", 3, 5, 5)
    other = g.op("Relu", x)
    parts = [g.op("Conv", value, g.weight(4, 3, 1, 1)) for value in (x, other)]
    return g.bn(g.op("Add", *parts), 4)


@case("Sub", "of two convolutions")
def _(g: Graph) -> str:
    x = g.input("x", "N", 3, 5, 5)
    other = g.op("Relu", x)
    parts = [g.op("Conv", value, g.weight(4, 3, 1, 1)) for value in (x, other)]
    return g.bn(g.op("Sub", *parts), 4)


@pytest.mark.parametrize("name", CASES)
def test_float64(name: str) -> None:
    op, build = CASES[name]
    g = Graph()
    g.output(build(g))
    model = g.model()
    before = infer(prepared(model, name))
    assert count(before, op) > 0, "normalizing removed what is to be tested"
    after = fold_graph(before)
    decision = after.plan.decisions[0]
    assert decision.folded, decision.outcome
    assert batchnorms(after.model) == 0
    assert any(op in sentence for sentence in decision.outcome.path)  # type: ignore[union-attr]
    assert_equal(model, after.model)
    assert count(after.model) <= count(before)
    assert signature(after.model) == signature(before)


@pytest.mark.parametrize("name", CASES)
def test_onnxruntime_float32(name: str) -> None:
    g = Graph("float32", seed=5)
    g.output(CASES[name][1](g))
    model = g.model()
    after = fold(model).model
    assert batchnorms(after) == 0
    given = feeds(model)
    exact = Oracle(model).run(given).values()
    results = ort_run(model, given), ort_run(after, given), exact
    for one, other, true in zip(*results, strict=True):
        assert distance(one, other) < 1e-5
        assert distance(true, other) < 1e-5


@pytest.mark.parametrize("op", sorted({*moves.BACKWARD, *moves.PARTS, *PARTLY} - {"Clip"}))
def test_every_entry_has_a_case(op: str) -> None:
    assert any(op == covered for covered, _ in CASES.values())


def test_a_long_way() -> None:
    """All of them, one after the other; with a fixed batch, (2*4, 6) is 2 times 4 channels."""
    g = Graph()
    y = g.op("Conv", g.input("x", 2, 3, 3, 2), g.weight(4, 3, 1, 1))
    y = g.op("Transpose", y, perm=[0, 2, 1, 3])  # (2, 3, 4, 2)
    y = g.op("Add", y, g.weight(4, 1))
    y = g.op("Unsqueeze", y, g.const([1]))
    y = g.op("Sub", g.const(0.5), y)
    y = g.op("Squeeze", y, g.const([1]))
    y = g.op("Transpose", y, perm=[0, 2, 3, 1])
    y = g.op("Flatten", g.op("Dropout", y), axis=2)  # (8, 6)
    y = g.op("Reshape", g.op("Identity", y), g.const([-1, 4, 6]))
    g.output(g.bn(y, 4))
    model = g.model()
    after = fold(model).model
    assert batchnorms(after) == 0
    assert_equal(model, after)


def test_channels_that_were_merged_into_the_batch() -> None:
    """(N, 4, 6) as (N*4, 6), where the map repeats every 4 rows, and back."""
    g = Graph()
    y = g.op("Flatten", convolved(g), axis=2)
    g.output(g.bn(g.op("Reshape", y, g.const([-1, 4, 6])), 4))
    model = g.model()
    after = fold(model).model
    assert batchnorms(after) == 0
    assert_equal(model, after)


def test_channels_of_two_samples_stay() -> None:
    """(N, 4, 6) as (N/2, 8, 6): the map differs from one sample to the next."""
    g = Graph()
    y = g.op("Flatten", convolved(g), axis=2)
    g.output(g.bn(g.op("Reshape", y, g.const([-1, 8, 6])), 8))
    assert refusal(g).code == "not-per-channel"


def test_a_flattened_map_that_differs_inside_a_channel_stays() -> None:
    g = Graph()
    g.output(g.bn(g.op("Flatten", convolved(g, 1)), 6))
    found = refusal(g)
    assert found.code in {"wrong-axis", "not-per-channel"}


def test_a_flattened_uniform_map_folds() -> None:
    """All 24 values are equal, so each of the 2 channels has one scale and one shift."""
    g = Graph()
    y = g.op("Flatten", convolved(g, 2, 3, 4))
    parts = g.statistics(24, **{key: np.full(24, 0.5) for key in ("gamma", "beta", "mean", "var")})
    g.output(g.op("BatchNormalization", y, *parts))
    model = g.model()
    after = fold(model).model
    assert batchnorms(after) == 0
    assert_equal(model, after)


def test_a_map_that_repeats_along_the_merged_axes_folds() -> None:
    """24 values after a Flatten, equal within each of the 4 channels."""
    g = Graph()
    parts = {"gamma": [1.0, -2, 3, 0.5], "beta": [1.0, 0, -1, 2], "mean": [0.0, 1, 2, 3]}
    values = {key: np.repeat(value, 6) for key, value in parts.items()}
    y = g.op("Flatten", convolved(g))
    g.output(g.op("BatchNormalization", y, *g.statistics(24, var=np.full(24, 2.0), **values)))
    model = g.model()
    after = fold(model).model
    assert batchnorms(after) == 0
    assert_equal(model, after)


def test_a_maximum_stops_a_negative_scale() -> None:
    g = Graph()
    y = g.op("MaxPool", convolved(g), kernel_shape=[2, 2])
    g.output(g.op("BatchNormalization", y, *g.statistics(4, gamma=[1.0, -1.0, 1.0, -2.0])))
    found = refusal(g)
    assert found.code == "sign"
    assert "negative in 2 of 4 channels (the first is 1)" in found.sentence
