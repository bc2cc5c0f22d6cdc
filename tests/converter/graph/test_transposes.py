"""Transposes that cancel: every entry of the table against onnxruntime, in random layouts."""

from __future__ import annotations

import itertools

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest

from converter.evaluation.normalize import normalize
from converter.graph.transpose_rules import RULES, compose, inverse
from converter.graph.transposes import CancelTransposesPass
from patterns.graphs import Graph

NHWC, NCHW = (0, 2, 3, 1), (0, 3, 1, 2)
SIZES = (3, 4, 5)  # C, H, W


def run(model: ir.Model, batch: int = 2) -> list[np.ndarray]:
    random = np.random.default_rng(5)
    feeds = {
        str(v.name): random.standard_normal(
            [d if isinstance(d, int) else batch for d in v.shape or ()]
        ).astype(np.float32)
        for v in model.graph.inputs
    }
    content = ir.to_proto(model).SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return session.run(None, feeds)


def transposes(model: ir.Model) -> int:
    return sum(node.op_type == "Transpose" for node in model.graph)


def assert_cancelled(g: Graph, left: int) -> ir.Model:
    model = normalize(g.model())
    before = ir.to_proto(model).SerializeToString()
    after = CancelTransposesPass()(model).model
    assert ir.to_proto(model).SerializeToString() == before
    assert transposes(after) == left
    for mine, theirs in zip(run(after), run(model), strict=True):
        assert mine.shape == theirs.shape
        np.testing.assert_allclose(mine, theirs, rtol=1e-6, atol=1e-6)
    return after


def image(g: Graph, name: str = "x") -> str:
    return g.input(name, "N", *SIZES)


def last(g: Graph, value: str) -> str:
    return g.op("Transpose", value, perm=NHWC)


def first(g: Graph, value: str) -> str:
    return g.op("Transpose", value, perm=NCHW)


UNARY = [
    "Abs",
    "Ceil",
    "Celu",
    "Elu",
    "Erf",
    "Exp",
    "Floor",
    "HardSigmoid",
    "HardSwish",
    "LeakyRelu",
    "Neg",
    "Reciprocal",
    "Relu",
    "Round",
    "Selu",
    "Sigmoid",
    "Sign",
    "Softplus",
    "Softsign",
    "Tanh",
    "ThresholdedRelu",
]


@pytest.mark.parametrize("op", UNARY)
def test_elementwise(op: str) -> None:
    g = Graph("float32")
    g.output(first(g, g.op(op, last(g, image(g)))))
    assert_cancelled(g, 0)


@pytest.mark.parametrize("op", ["Add", "Div", "Max", "Min", "Mul", "PRelu", "Sub", "Sum"])
@pytest.mark.parametrize("shape", [(), (1,), (3,), (1, 1, 1, 3), (5, 1), (4, 5, 3)])
def test_a_constant_is_transposed_with_it(op: str, shape: tuple[int, ...]) -> None:
    g = Graph("float32")
    constant = g.const(np.random.default_rng(2).uniform(1, 2, shape).astype(np.float32))
    g.output(first(g, g.op(op, last(g, image(g)), constant)))
    assert_cancelled(g, 0)


@pytest.mark.parametrize("op", ["Add", "Max", "Mul", "Sub"])
def test_two_values_in_one_layout(op: str) -> None:
    g = Graph("float32")
    a, b = last(g, image(g)), last(g, image(g, "y"))
    g.output(first(g, g.op("Relu", g.op(op, a, g.op("Sigmoid", b)))))
    assert_cancelled(g, 0)


def test_a_small_value_in_another_layout_is_transposed_itself() -> None:
    """Squeeze and excite: moving (N, 1, 1, C) is cheaper than moving the image."""
    g = Graph("float32")
    gate = g.input("gate", "N", 1, 1, 3)
    g.output(first(g, g.op("Mul", last(g, image(g)), gate)))
    after = assert_cancelled(g, 1)
    (left,) = [node for node in after.graph if node.op_type == "Transpose"]
    assert left.inputs[0] is not None
    assert left.inputs[0].name == "gate"


@pytest.mark.parametrize("keepdims", [0, 1])
@pytest.mark.parametrize("axes", [[1], [3], [1, 2], [-2, -3], [0, 3], [1, 2, 3]])
@pytest.mark.parametrize("op", ["ReduceMean", "ReduceMax", "ReduceL2", "ReduceSum"])
def test_reductions(op: str, axes: list[int], keepdims: int) -> None:
    g = Graph("float32")
    y = g.op(op, last(g, image(g)), g.const(axes), keepdims=keepdims)
    g.output(g.op("Relu", y))
    model = normalize(g.model())
    after = CancelTransposesPass()(model).model
    for mine, theirs in zip(run(after), run(model), strict=True):
        assert mine.shape == theirs.shape
        np.testing.assert_allclose(mine, theirs, rtol=1e-6)
    assert transposes(after) <= transposes(model)


def test_global_average_pooling_needs_none() -> None:
    g = Graph("float32")
    y = g.op("Relu", last(g, image(g)))
    g.output(g.op("ReduceMean", y, g.const([1, 2]), keepdims=0))
    assert_cancelled(g, 0)


@pytest.mark.parametrize("axis", [0, 1, 2, 3, -1])
def test_concat_and_softmax(axis: int) -> None:
    g = Graph("float32")
    y = g.op("Concat", last(g, image(g)), last(g, image(g, "y")), axis=axis)
    g.output(first(g, g.op("Softmax", y, axis=axis)))
    assert_cancelled(g, 0)


@pytest.mark.parametrize("op", ["Softmax", "LogSoftmax"])
@pytest.mark.parametrize(("axis", "left"), [(0, 0), (1, 0), (2, 2), (3, 2), (-1, 2), (None, 0)])
def test_before_opset_13_a_softmax_is_over_all_axes_from_its_own_on(
    op: str, axis: int | None, left: int
) -> None:
    """The axes from 1 on of (N, H, W, C) are those of (N, C, H, W); those from 2 on are not."""
    g = Graph("float32", opset=11)
    y = g.op(op, last(g, image(g)), **({} if axis is None else {"axis": axis}))
    g.output(first(g, y))
    assert_cancelled(g, left)


def test_split() -> None:
    g = Graph("float32")
    a, b = g.op("Split", last(g, image(g)), g.const([1, 2]), axis=-1, outputs=2)
    g.output(first(g, a))
    g.output(first(g, b))
    assert_cancelled(g, 0)


def test_pad() -> None:
    g = Graph("float32")
    pads = g.const([0, 1, 2, 0, 0, 3, 4, 0])
    g.output(first(g, g.op("Pad", last(g, image(g)), pads)))
    assert_cancelled(g, 0)


def test_clip_and_where() -> None:
    g = Graph("float32")
    y = g.op("Clip", last(g, image(g)), g.const(np.float32(0)), g.const(np.float32(6)))
    positive = g.op("Greater", y, g.const(np.float32(1)))
    g.output(first(g, g.op("Where", positive, y, g.const(np.float32([1, 2, 3])))))
    assert_cancelled(g, 0)


def test_nothing_is_done_where_nothing_is_gained() -> None:
    g = Graph("float32")
    g.output(g.op("Relu", last(g, image(g))))
    model = normalize(g.model())
    assert not CancelTransposesPass()(model).modified


def test_results_of_the_graph_keep_their_names_and_layouts() -> None:
    g = Graph("float32")
    y = g.op("Relu", last(g, image(g)))
    g.output(y)
    g.output(first(g, g.op("Tanh", y)))
    model = normalize(g.model())
    after = assert_cancelled(g, 1)
    assert [v.name for v in after.graph.outputs] == [v.name for v in model.graph.outputs]
    assert [v.shape for v in after.graph.outputs] == [v.shape for v in model.graph.outputs]


def test_a_pair_that_is_a_result_itself() -> None:
    g = Graph("float32")
    x = g.op("Relu", image(g))
    g.output(first(g, last(g, x)))
    g.output(g.op("Tanh", first(g, last(g, x))))
    model = normalize(g.model())
    after = CancelTransposesPass()(model).model
    for mine, theirs in zip(run(after), run(model), strict=True):
        np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize("seed", range(40))
def test_random_graphs(seed: int) -> None:
    """Values in any layout meet in any op of the table; the result is the same to the bit."""
    random = np.random.default_rng(seed)
    g = Graph("float32")
    perms = list(itertools.permutations(range(4)))
    side = 3  # all axes alike, so that any layout meets any other
    values = [g.op("Relu", g.input(f"x{i}", side, side, side, side)) for i in range(2)]
    for _ in range(10):
        a, b = (values[random.integers(len(values))] for _ in range(2))
        axis = int(random.integers(4))
        match random.integers(7):
            case 0 | 1 | 2:
                values.append(g.op("Transpose", a, perm=perms[random.integers(24)]))
            case 3:
                values.append(g.op("Tanh", a))
            case 4:
                values.append(g.op("Add", a, b))
            case 5:
                constant = g.const(random.random((side,) * int(random.integers(1, 5))).astype("f4"))
                values.append(g.op("Mul", constant, a))
            case 6:
                values.append(g.op("ReduceMean", a, g.const([axis]), keepdims=1))
                values[-1] = g.op("Add", values[-1], b)
    for value in values[-2:]:
        g.output(g.op("Neg", value))
    model = normalize(g.model())
    after = CancelTransposesPass()(model).model
    assert transposes(after) <= transposes(model) or after is not model
    for mine, theirs in zip(run(after), run(model), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-6)


def test_permutations() -> None:
    x = np.arange(24).reshape(1, 2, 3, 4)
    for p, q in itertools.product(itertools.permutations(range(4)), repeat=2):
        assert np.array_equal(x.transpose(p).transpose(q), x.transpose(compose(p, q)))
        assert np.array_equal(x.transpose(p).transpose(inverse(p)), x)


def test_the_table_is_what_the_tests_know() -> None:
    assert {*UNARY, "Add", "Concat", "Pad", "ReduceMean", "Softmax", "Split", "Where"} <= set(RULES)
