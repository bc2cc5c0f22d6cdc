"""The float64 kernels against onnxruntime in float32 and, where it is right, onnx's reference."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

from converter.proof import Oracle
from patterns.graphs import Array, Graph, distance, feeds, ort_run
from tests.converter.evaluation.nodes import agree, by_kernel, by_reference

SEEDS = range(24)


class Draw:
    """A random window: axes, sizes, kernel, strides, dilations, and pads or auto_pad."""

    def __init__(self, seed: int) -> None:
        self.random, self.rng = random.Random(seed), np.random.default_rng(seed)
        self.axes = self.random.choice([1, 2, 3])
        self.size = self.each(6, 9)
        self.kernel, self.strides, self.dilations = (
            self.each(1, 3),
            self.each(1, 3),
            self.each(1, 2),
        )
        self.auto_pad = self.random.choice(["", "", "SAME_UPPER", "SAME_LOWER", "VALID"])

    def each(self, low: int, high: int) -> list[int]:
        return [self.random.randint(low, high) for _ in range(self.axes)]

    def padding(self, most: int = 2) -> dict[str, Any]:
        """Begin and end differ; a window may never lie wholly in the padding."""
        if self.auto_pad:
            return {"auto_pad": self.auto_pad}
        low = [min(most, k - 1) for k in self.kernel]
        return {"pads": [self.random.randint(0, n) for n in low + low]}

    def array(self, *shape: int) -> Array:
        return self.rng.standard_normal(shape)


@pytest.mark.parametrize("seed", SEEDS)
def test_conv(seed: int) -> None:
    draw = Draw(seed)
    group = draw.random.choice([1, 2, 3])
    inputs, outputs = group * draw.random.randint(1, 2), group * draw.random.randint(1, 2)
    if draw.auto_pad.startswith("SAME"):
        draw.dilations = [1] * draw.axes  # onnxruntime refuses both at once
    arrays = [draw.array(2, inputs, *draw.size), draw.array(outputs, inputs // group, *draw.kernel)]
    if draw.random.random() < 0.5:
        arrays.append(draw.array(outputs))
    agree(
        "Conv", *arrays, group=group, strides=draw.strides, dilations=draw.dilations,
        **draw.padding(),
    )  # fmt: skip


@pytest.mark.parametrize("seed", SEEDS)
def test_conv_same_with_dilations(seed: int) -> None:
    draw = Draw(seed)
    x, w = draw.array(2, 2, *draw.size), draw.array(3, 2, *draw.kernel)
    mode = draw.random.choice(["SAME_UPPER", "SAME_LOWER"])
    more = {"strides": draw.strides, "dilations": draw.dilations, "auto_pad": mode}
    found = by_kernel("Conv", x, w, **more)
    assert distance(found, by_reference("Conv", x, w, **more)) < 1e-12
    assert found.shape[2:] == tuple(
        -(-n // s) for n, s in zip(draw.size, draw.strides, strict=True)
    )


@pytest.mark.parametrize("seed", SEEDS)
def test_conv_transpose(seed: int) -> None:
    """onnx's reference is wrong here for groups, output_padding and SAME."""
    draw = Draw(seed)
    group = draw.random.choice([1, 2, 3])
    inputs, outputs = group * draw.random.randint(1, 2), draw.random.randint(1, 2)
    arrays = [draw.array(2, inputs, *draw.size), draw.array(inputs, outputs, *draw.kernel)]
    if draw.random.random() < 0.5:
        arrays.append(draw.array(group * outputs))
    more = draw.padding()
    if draw.random.random() < 0.5:
        more["output_padding"] = [draw.random.randint(0, s - 1) for s in draw.strides]
    agree(
        "ConvTranspose", *arrays, reference=False, group=group, strides=draw.strides,
        dilations=draw.dilations, **more,
    )  # fmt: skip


@pytest.mark.parametrize("auto_pad", ["NOTSET", "SAME_UPPER", "SAME_LOWER"])
@pytest.mark.parametrize("less", [0, 1, 2, 3])
def test_conv_transpose_output_shape(auto_pad: str, less: int) -> None:
    """(5, 4) with stride 2 and kernel 3 fills (11, 9); less is cropped at both ends."""
    draw = Draw(less)
    x, w = draw.array(2, 4, 5, 4), draw.array(4, 3, 3, 3)
    shape = [11 - less, 9 - min(less, 1)]
    more = {"strides": [2, 2], "output_shape": shape, "auto_pad": auto_pad}
    agree("ConvTranspose", x, w, reference=False, **more)
    assert list(by_kernel("ConvTranspose", x, w, **more).shape[2:]) == shape


@pytest.mark.parametrize("seed", SEEDS)
def test_conv_transpose_is_the_adjoint_of_conv(seed: int) -> None:
    """<conv(x, W), y> = <x, conv_transpose(y, W)>, to float64 (W is (Cout, Cin/g, k..) in both)."""
    draw = Draw(seed)
    group = draw.random.choice([1, 2])
    pads = [min(1, k - 1) for k in draw.kernel] * 2
    # A size at which the windows end exactly at the end, as no output_padding is needed then.
    size = [
        s * draw.random.randint(2, 4) + (k - 1) * d + 1 - 2 * p
        for s, k, d, p in zip(draw.strides, draw.kernel, draw.dilations, pads, strict=False)
    ]
    more = {"group": group, "strides": draw.strides, "dilations": draw.dilations, "pads": pads}
    x, w = draw.array(1, 2 * group, *size), draw.array(3 * group, 2, *draw.kernel)
    there = by_kernel("Conv", x, w, **more)
    y = draw.array(*there.shape)
    back = by_kernel("ConvTranspose", y, w, **more)
    assert back.shape == x.shape
    one, other = float(np.sum(there * y)), float(np.sum(x * back))
    assert abs(one - other) < 1e-12 * float(np.sum(np.abs(there * y)))


def pooling(draw: Draw) -> dict[str, Any]:
    if draw.auto_pad.startswith("SAME"):
        # onnxruntime fails, or gives what the specification does not, where strides > kernel.
        draw.strides = [min(s, k) for s, k in zip(draw.strides, draw.kernel, strict=True)]
        draw.dilations = [1] * draw.axes
    more = {"kernel_shape": draw.kernel, "strides": draw.strides, **draw.padding()}
    return more if draw.auto_pad else {**more, "ceil_mode": draw.random.randint(0, 1)}


@pytest.mark.parametrize("seed", SEEDS)
def test_max_pool(seed: int) -> None:
    draw = Draw(seed)
    more = pooling(draw)
    # The reference gets SAME wrong, and the last window of ceil_mode now and then.
    right = not draw.auto_pad and not more["ceil_mode"]
    x = draw.array(2, 3, *draw.size)
    agree("MaxPool", x, reference=right, dilations=draw.dilations, **more)


@pytest.mark.parametrize("include", [0, 1])
@pytest.mark.parametrize("seed", SEEDS)
def test_average_pool(seed: int, include: int) -> None:
    draw = Draw(seed)
    more = pooling(draw)
    x = draw.array(2, 3, *draw.size)
    right = not draw.auto_pad and not more["ceil_mode"]
    agree("AveragePool", x, reference=right, count_include_pad=include, **more)


def test_average_pool_with_dilations_is_left_to_the_reference() -> None:
    g = Graph("float32")
    x = g.input("x", 1, 2, 9)
    g.output(g.op("AveragePool", x, kernel_shape=[3], dilations=[2]))
    model = g.model()
    given = feeds(model)
    (found,) = Oracle(model).run(given).values()
    assert distance(found, ort_run(model, given)[0]) < 1e-6


@pytest.mark.parametrize("dtype", [np.int8, np.uint8])
def test_max_pool_of_integers_stays_integer(dtype: type[np.generic]) -> None:
    g = Graph("float32")
    x = g.op("Cast", g.input("x", 1, 2, 6, 6), to=3 if dtype is np.int8 else 2)
    g.output(g.op("MaxPool", x, kernel_shape=[2, 2], pads=[1, 1, 0, 0]), dtype="int64")
    model = g.model()
    given = {"x": np.arange(72, dtype=np.float32).reshape(1, 2, 6, 6)}
    (found,) = Oracle(model).run(given).values()
    assert found.dtype == dtype


@pytest.mark.parametrize("opset", [7, 8, 9, 11, 13, 14, 15, 20])
@pytest.mark.parametrize("shape", [(4, 3), (4, 3, 5), (4, 3, 5, 2), (2, 3, 2, 2, 2)])
def test_batch_normalization(opset: int, shape: tuple[int, ...]) -> None:
    g = Graph("float32", opset=opset)
    g.output(g.bn(g.input("x", *shape), 3, epsilon=0.01))
    model = g.model()
    given = feeds(model)
    (found,) = Oracle(model).run(given).values()
    assert distance(found, ort_run(model, given)[0]) < 1e-6


@pytest.mark.parametrize("opset", [9, 13, 14, 15])
def test_batch_normalization_in_training(opset: int) -> None:
    """Before opset 14 five outputs mean training, and onnxruntime does train."""
    g = Graph("float32", opset=opset)
    more = {"training_mode": 1} if opset >= 14 else {}
    x = g.input("x", 4, 3, 5)
    made = g.op(
        "BatchNormalization", x, *g.statistics(3), outputs=3 if more else 5, momentum=0.7, **more
    )
    for name in made if more else made[:1]:
        g.output(name)
    model = g.model()
    given = feeds(model)
    expected = ort_run(model, given)
    for found, other in zip(Oracle(model).run(given).values(), expected, strict=True):
        assert distance(found, other) < 1e-6


def test_batch_normalization_of_every_position() -> None:
    g = Graph("float32", opset=8)
    parts = [g.weight(3, 2, 2) for _ in range(3)] + [g.const(np.full((3, 2, 2), 1.5))]
    g.output(g.op("BatchNormalization", g.input("x", 4, 3, 2, 2), *parts, spatial=0))
    model = g.model()
    given = feeds(model)
    (found,) = Oracle(model).run(given).values()
    assert distance(found, ort_run(model, given)[0]) < 1e-6


@pytest.mark.parametrize("bias", [None, (), (1,), (5,), (1, 5), (3, 1), (3, 5)])
@pytest.mark.parametrize("flips", [(0, 0), (1, 0), (0, 1), (1, 1)])
def test_gemm(bias: tuple[int, ...] | None, flips: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    a = rng.standard_normal((4, 3) if flips[0] else (3, 4))
    b = rng.standard_normal((5, 4) if flips[1] else (4, 5))
    c = [] if bias is None else [rng.standard_normal(bias)]
    agree("Gemm", a, b, *c, transA=flips[0], transB=flips[1], alpha=0.5, beta=-1.5)


@pytest.mark.parametrize(
    ("one", "other"),
    [((3, 4), (4, 5)), ((2, 3, 4), (4, 5)), ((2, 3, 4), (2, 4, 5)), ((4,), (4, 5)), ((3, 4), (4,))],
)
def test_matmul(one: tuple[int, ...], other: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    agree("MatMul", rng.standard_normal(one), rng.standard_normal(other))


@pytest.mark.parametrize("opset", [18, 21])
@pytest.mark.parametrize("groups", [1, 2, 6])
def test_group_normalization(opset: int, groups: int) -> None:
    g = Graph("float32", opset=opset)
    size = groups if opset == 18 else 6
    more = {"num_groups": groups, "epsilon": 1e-2}
    x = g.input("x", 3, 6, 4, 5)
    y = g.output(g.op("GroupNormalization", x, g.weight(size), g.weight(size), **more))
    given = feeds(g.model())
    assert distance(ort_run(g.model(), given)[0], Oracle(g.model()).run(given)[y]) < 1e-5


@pytest.mark.parametrize("op", ["Sigmoid", "Erf"])
def test_elementwise(op: str) -> None:
    x = np.linspace(-30, 30, 101)
    # onnx's reference computes these two to float32's precision or in steps of its own.
    agree(op, x, reference=False)
    if op == "Erf":
        from math import erf

        np.testing.assert_allclose(by_kernel(op, x), [erf(v) for v in x], rtol=1e-14)
    else:
        np.testing.assert_allclose(by_kernel(op, x), 1 / (1 + np.exp(-x)), rtol=1e-14)
