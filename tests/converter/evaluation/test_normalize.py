"""Normalizing changes no number and no name, and leaves nothing that hides a fold."""

from __future__ import annotations

import logging
import warnings

import numpy as np
import onnx_ir as ir
import pytest
from onnx import helper, parser

from converter.evaluation.normalize import normalize
from patterns.graphs import (
    Graph,
    assert_equal,
    count,
    feeds,
    fold,
    ort_run,
    signature,
)


def conv(g: Graph) -> str:
    return g.op("Conv", g.input("x", "N", 3, 5, 5), g.weight(4, 3, 3, 3))


def ops(model: ir.Model) -> list[str]:
    return [node.op_type for node in model.graph]


def test_constant_nodes_become_initializers() -> None:
    g = Graph()
    x = g.input("x", "N", 3)
    c = g.op("Constant", value_floats=[1.0, 2.0, 3.0])
    g.output(g.op("Add", x, g.op("Cast", c, to=11)))
    model = g.model()
    after = normalize(model)
    assert ops(after) == ["Add"]
    assert_equal(model, after)


def test_constant_arithmetic_is_done() -> None:
    """The zero bias that torch's exporter builds: Shape, Gather, Expand, CastLike."""
    g = Graph()
    x, w = g.input("x", "N", 3, 5, 5), g.weight(4, 3, 3, 3)
    size = g.op("Gather", g.op("Shape", w), g.const([0]))
    bias = g.op("CastLike", g.op("Expand", g.const(np.zeros(1), dtype="float32"), size), w)
    g.output(g.op("Conv", x, w, bias))
    model = g.model()
    after = normalize(model)
    assert ops(after) == ["Conv"]
    assert_equal(model, after)


def test_a_transposed_weight_is_a_weight() -> None:
    g = Graph()
    w = g.op("Transpose", g.weight(1000, 3))
    g.output(g.bn(g.op("MatMul", g.input("x", "N", 3), w), 1000))
    model = g.model()
    assert ops(normalize(model)) == ["MatMul", "BatchNormalization"]
    assert ops(fold(model).model) == ["MatMul", "Add"]


@pytest.mark.parametrize("opset", [9, 13, 20])
@pytest.mark.parametrize("training", [False, True])
def test_a_batchnorm_of_a_weight_is_evaluated(opset: int, training: bool) -> None:
    """Weight standardisation (nf_resnet50), then its layout and gain."""
    g = Graph(opset=opset)
    x = g.input("x", "N", 3, 5, 5)
    seen = g.op("Reshape", g.weight(4, 3, 2, 2), g.const(np.array([1, 4, 12])))
    if not training:
        y = g.bn(seen, 4)
    elif opset < 14:
        y, *_ = g.op("BatchNormalization", seen, *g.statistics(4), outputs=5)
    else:
        y = g.op("BatchNormalization", seen, *g.statistics(4), training_mode=1)
    gained = g.op("Mul", y, g.weight(1, 4, 1))
    w = g.op("Reshape", gained, g.const(np.array([4, 3, 2, 2])))
    g.output(g.op("Conv", x, w))
    model = g.model()
    after = normalize(model)
    assert ops(after) == ["Conv"]
    assert_equal(model, after)


@pytest.mark.parametrize("opset", [7, 8, 9, 13, 14, 15, 20])
@pytest.mark.parametrize("empty", [0, 2, 4])
def test_outputs_without_a_name_are_no_training(opset: int, empty: int) -> None:
    g = Graph(opset=opset)
    y = g.bn(conv(g), 4)
    g.nodes[-1].output.extend([""] * (empty if opset < 14 else min(empty, 2)))
    g.output(g.op("Relu", y))
    model = g.model()
    assert ops(fold(model).model) == ["Conv", "Relu"]
    assert_equal(model, fold(model).model)


@pytest.mark.parametrize("opset", [7, 9, 13, 14, 15])
def test_a_named_output_behind_an_empty_one_is_training(opset: int) -> None:
    g = Graph(opset=opset)
    attributes = {"training_mode": 1} if opset >= 14 else {}
    y = g.bn(conv(g), 4, **attributes)
    g.nodes[-1].output.extend(["", "running_var"])
    g.output(g.op("Relu", y))
    g.output("running_var")
    assert "BatchNormalization" in ops(fold(g.model()).model)


def test_a_batchnorm_of_a_weight_that_is_an_output_stays() -> None:
    g = Graph()
    g.output(g.bn(g.weight(1, 4, 3), 4), shape=[1, 4, 3])
    assert ops(normalize(g.model())) == ["BatchNormalization"]


def test_functions_are_inlined() -> None:
    model = ir.from_proto(
        parser.parse_model(
            """
            <ir_version: 10, opset_import: ["" : 20, "own" : 1]>
            net (double[N,2] x) => (double[N,2] y) { y = own.twice (x) }
            <domain: "own", opset_import: ["" : 20]>
            twice (a) => (b) { b = Add (a, a) }
            """
        )
    )
    after = normalize(model)
    assert ops(after) == ["Add"]
    assert not after.functions
    assert_equal(model, after)


def test_shapes_are_inferred() -> None:
    g = Graph()
    g.output(g.op("Relu", conv(g)))
    after = normalize(g.model())
    assert [str(dim) for dim in after.graph[0].outputs[0].shape or ()] == ["N", "4", "3", "3"]


def test_sizes_that_are_known_are_constants() -> None:
    """The Shape that reads the Relu goes, and the Relu, and so nothing is left but the conv."""
    g = Graph()
    y = g.op("Conv", g.input("x", 2, 3, 5, 5), g.weight(4, 3, 3, 3))
    size = g.op("Shape", g.op("Relu", y))
    z = g.bn(y, 4)
    g.output(g.op("Reshape", z, size))
    model = g.model()
    after = fold(model).model
    assert "Relu" not in ops(after)
    assert "BatchNormalization" not in ops(after)
    assert_equal(model, after)


def test_the_given_model_is_not_changed() -> None:
    g = Graph()
    c = g.op("Constant", value_floats=[1.0])
    y = g.op("Add", g.op("Identity", conv(g)), g.op("Cast", c, to=11))
    g.output(g.bn(y, 4))
    model = g.model()
    before = ir.to_proto(model).SerializeToString()
    normalize(model)
    assert ir.to_proto(model).SerializeToString() == before


def test_two_names_of_one_value_stay_two() -> None:
    g = Graph()
    y = conv(g)
    g.output(y)
    g.output(g.op("Identity", y))
    g.output(g.op("Identity", "x"))
    model = g.model()
    after = normalize(model)
    assert [v.name for v in after.graph.outputs] == [v.name for v in model.graph.outputs]
    assert_equal(model, after)


def test_an_identity_between_goes_and_the_output_keeps_name_and_sizes() -> None:
    g = Graph()
    y = g.op("Identity", g.op("Identity", conv(g)))
    g.rename(y, "features")
    g.output("features", shape=["batch", 4, 3, 3])
    model = g.model()
    after = normalize(model)
    assert ops(after) == ["Conv"]
    assert signature(after) == signature(model)


def test_a_body_does_not_return_what_lies_outside() -> None:
    """onnxruntime refuses such a graph."""
    g = Graph("float32")
    y = g.op("Relu", conv(g))
    a, b = g.body(), g.body()
    a.output(a.op("Identity", y), shape=["N", 4, 3, 3])
    b.output(b.op("Identity", b.op("Neg", b.op("Identity", y))), shape=["N", 4, 3, 3])
    c = g.input("c", dtype="bool")
    g.output(g.op("If", c, then_branch=a.graph(), else_branch=b.graph()))
    model = g.model()
    after = normalize(model)
    assert count(after, "Identity") == 1
    for flag in (False, True):
        given = feeds(model) | {"c": np.array(flag)}
        np.testing.assert_array_equal(ort_run(after, given)[0], ort_run(model, given)[0])


def test_what_only_a_dead_body_read_is_dead() -> None:
    """An If that nobody reads, with a body that reads the conv: it must not hold up the fold."""
    g = Graph()
    y = conv(g)
    a, b = g.body(), g.body()
    a.output(a.op("Neg", a.bn(y, 4)), shape=["N", 4, 3, 3])
    b.output(b.op("Relu", g.op("Relu", y)), shape=["N", 4, 3, 3])
    g.op("If", g.input("c", dtype="bool"), then_branch=a.graph(), else_branch=b.graph())
    g.output(g.bn(y, 4))
    model = g.model()
    after = fold(model)
    assert ops(after.model) == ["Conv"]
    assert len(after.model.graph.initializers) == 2
    assert_equal(model, after.model)


@pytest.mark.parametrize("overridable", [True, False])
def test_a_default_that_a_caller_may_replace_is_no_constant(overridable: bool) -> None:
    g = Graph()
    w = g.weight(4, 3, name="W", overridable=overridable)
    g.output(g.op("MatMul", g.input("x", "N", 3), g.op("Transpose", w)))
    model = g.model()
    after = normalize(model)
    assert ops(after) == (["Transpose", "MatMul"] if overridable else ["MatMul"])
    assert ("W" in {value.name for value in after.graph.inputs}) is overridable


def test_a_zero_bias_of_a_wrong_shape_goes() -> None:
    """As torch's exporter gives it to a Conv3d without a bias; onnxruntime refuses it."""
    g = Graph()
    bias = g.const(np.zeros((4, 2), np.float32))
    g.output(g.op("Conv", g.input("x", "N", 2, 3, 3, 3), g.weight(4, 2, 1, 1, 1), bias))
    after = normalize(g.model())
    assert [len(node.inputs) for node in after.graph] == [2]


def test_wrong_annotations_do_not_stop_it() -> None:
    g = Graph()
    y = g.op("Relu", g.input("x", "N", 3))
    g.annotate(y, "N", 3)
    z = g.op("Identity", y)
    g.annotate(z, "N", 3, 1)
    g.output(g.op("Relu", z))
    model = g.model()
    assert_equal(model, normalize(model))


def test_nothing_is_said(caplog: pytest.LogCaptureFixture) -> None:
    """The optimizer's complaints about ops that it does not know are not the user's business."""
    g = Graph()
    y = g.op("Gather", g.weight(2, 3), g.const([5]))  # out of range, when it is evaluated
    g.output(g.op("Add", conv(g), g.op("Reshape", y, g.const([-1, 1, 1]))))
    with caplog.at_level(logging.DEBUG), warnings.catch_warnings():
        warnings.simplefilter("error")
        normalize(g.model())
    assert [r for r in caplog.records if r.levelno >= logging.WARNING] == []
    assert logging.getLogger("onnxscript").level == logging.NOTSET


@pytest.mark.parametrize(
    ("op", "number", "left"),
    [
        ("Add", 0.0, True),
        ("Add", 0.0, False),
        ("Sub", 0.0, False),
        ("Mul", 1.0, True),
        ("Div", 1.0, False),
    ],
)
@pytest.mark.parametrize("shape", [(), (4, 1, 1), (1, 4, 3, 3)])
def test_what_adds_nothing_goes(op: str, number: float, left: bool, shape: tuple[int, ...]) -> None:
    g = Graph()
    y, c = conv(g), g.const(np.full(shape, number))
    g.output(g.op("Relu", g.op(op, c, y) if left else g.op(op, y, c)))
    model = g.model()
    assert ops(normalize(model)) == ["Conv", "Relu"]
    assert_equal(model, normalize(model), rtol=0)


@pytest.mark.parametrize(
    ("op", "number", "left"),
    [("Sub", 0.0, True), ("Div", 1.0, True), ("Add", 1.0, False), ("Mul", 0.0, False)],
)
def test_what_changes_something_stays(op: str, number: float, left: bool) -> None:
    g = Graph()
    y, c = g.op("Exp", conv(g)), g.const(np.array(number))
    g.output(g.op("Relu", g.op(op, c, y) if left else g.op(op, y, c)))
    model = g.model()
    assert ops(normalize(model)) == ["Conv", "Exp", op, "Relu"]
    assert_equal(model, normalize(model))


def test_a_zero_that_enlarges_stays() -> None:
    g = Graph()
    y = g.op("GlobalAveragePool", conv(g))
    g.output(g.op("Relu", g.op("Add", y, g.const(np.zeros((1, 4, 5, 5))))))
    model = g.model()
    assert "Add" in ops(normalize(model))
    assert_equal(model, normalize(model))


def test_the_paddings_of_torchscript_become_constants() -> None:
    """Zeros by ConstantOfShape, joined and permuted: small, so evaluated."""
    g = Graph()
    zeros = g.op("ConstantOfShape", g.const([4]), value=helper.make_tensor("z", 7, [1], [0]))
    pads = g.op("Concat", g.const([1, 1, 1, 1]), zeros, axis=0)
    g.output(g.op("Pad", g.input("x", "N", 4, 5, 5), pads))
    assert [node.op_type for node in normalize(g.model()).graph] == ["Pad"]


def test_large_constants_of_a_shape_stay_computed() -> None:
    g = Graph()
    zeros = g.op("ConstantOfShape", g.const([40, 40]), value=helper.make_tensor("z", 11, [1], [0]))
    g.output(g.op("Add", g.input("x", 40, 40), g.op("Sin", zeros)))
    assert "ConstantOfShape" in [node.op_type for node in normalize(g.model()).graph]
