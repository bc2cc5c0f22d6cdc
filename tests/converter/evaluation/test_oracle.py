"""The float64 oracle: bodies, casts, functions, overridden constants, and what it holds."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, parser

from converter.evaluation.kernels import KERNELS
from converter.proof import Oracle, OracleError
from patterns.graphs import Graph, distance, feeds, ort_run


def text(source: str) -> ir.Model:
    return ir.from_proto(parser.parse_model(source))


@pytest.mark.parametrize("taken", [True, False])
def test_if_reads_what_lies_outside(taken: bool) -> None:
    g = Graph()
    x, w = g.input("x", "N", 3), g.weight(3, 3)
    a, b = g.body(), g.body()
    inner = a.body()
    inner.output(inner.op("MatMul", x, w), shape=["N", 3])
    other = a.body()
    other.output(other.op("Neg", x), shape=["N", 3])
    c = g.input("c", dtype="bool")
    nested = a.op("If", c, then_branch=inner.graph(), else_branch=other.graph())
    a.output(a.op("Relu", nested), shape=["N", 3])
    b.output(b.op("Sigmoid", x), shape=["N", 3])
    g.output(g.op("If", c, then_branch=a.graph(), else_branch=b.graph()))
    g.output(g.op("Relu", x))
    model = g.model()
    given = feeds(model) | {"c": np.array(taken)}
    first, second = Oracle(model).run(given).values()
    weight = np.asarray(model.graph.initializers[w].const_value.numpy())  # type: ignore[union-attr]
    expected = np.maximum(given["x"] @ weight, 0) if taken else 1 / (1 + np.exp(-given["x"]))
    np.testing.assert_allclose(first, expected, rtol=1e-12)
    np.testing.assert_array_equal(second, np.maximum(given["x"], 0))


def test_a_value_that_only_a_later_body_reads_is_kept_for_it() -> None:
    g = Graph()
    y = g.op("Relu", g.input("x", 4))
    z = g.op("Neg", g.op("Neg", y))
    a, b = g.body(), g.body()
    a.output(a.op("Add", y, z), shape=[4])
    b.output(b.op("Sub", y, z), shape=[4])
    c = g.input("c", dtype="bool")
    g.output(g.op("If", c, then_branch=a.graph(), else_branch=b.graph()))
    model = g.model()
    given = feeds(model) | {"c": np.array(False)}
    (found,) = Oracle(model).run(given).values()
    np.testing.assert_array_equal(found, np.zeros(4))


def test_loop_with_captured_values() -> None:
    g = Graph("float32")
    x, w = g.input("x", 2, 3), g.weight(3, 3)
    body = g.body()
    body.input("i", dtype="int64")
    body.input("go", dtype="bool")
    state = body.input("state", 2, 3)
    body.output(body.op("Identity", "go"), dtype="bool", shape=[])
    body.output(body.op("Tanh", body.op("MatMul", state, w)), shape=[2, 3])
    g.output(g.op("Loop", g.const(3), g.const(np.array(True)), x, body=body.graph()))
    model = g.model()
    given = feeds(model)
    (found,) = Oracle(model).run(given).values()
    assert found.dtype == np.float64
    assert distance(found, ort_run(model, given)[0]) < 1e-6
    weight = np.asarray(model.graph.initializers[w].const_value.numpy(), dtype=np.float64)  # type: ignore[union-attr]
    expected = given["x"].astype(np.float64)
    for _ in range(3):
        expected = np.tanh(expected @ weight)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


@pytest.mark.parametrize("opset", [8, 9, 13, 15])
def test_a_batchnorm_in_a_loop(opset: int) -> None:
    g = Graph("float32", opset=opset)
    x = g.input("x", 2, 3, 4)
    body = g.body()
    body.input("i", dtype="int64")
    body.input("go", dtype="bool")
    state = body.input("state", 2, 3, 4)
    body.output(body.op("Identity", "go"), dtype="bool", shape=[])
    body.output(body.bn(state, 3, epsilon=0.25), shape=[2, 3, 4])
    g.output(g.op("Loop", g.const(2), g.const(np.array(True)), x, body=body.graph()))
    model = g.model()
    given = feeds(model)
    (found,) = Oracle(model).run(given).values()
    assert distance(found, ort_run(model, given)[0]) < 1e-6


def test_casts_between_floats_lose_nothing() -> None:
    g = Graph("float32")
    y = g.op("Cast", g.input("x", 5), to=TensorProto.FLOAT16)
    y = g.op("Cast", y, to=TensorProto.BFLOAT16)
    y = g.op("CastLike", y, g.const(1.0))
    g.output(y)
    model = g.model()
    given = {"x": np.linspace(0, 1, 5, dtype=np.float32) / 3}
    (found,) = Oracle(model).run(given).values()
    np.testing.assert_array_equal(found, given["x"].astype(np.float64))


@pytest.mark.parametrize(
    ("to", "dtype"),
    [(TensorProto.INT64, np.int64), (TensorProto.UINT8, np.uint8), (TensorProto.BOOL, np.bool_)],
)
def test_casts_to_other_types_are_made(to: int, dtype: type[np.generic]) -> None:
    g = Graph("float32")
    x = g.input("x", 4)
    g.output(g.op("Cast", x, to=to), dtype="int64")
    g.output(g.op("Cast", g.op("Cast", x, to=to), to=TensorProto.FLOAT))
    model = g.model()
    given = {"x": np.array([0.0, 1.7, 2.5, 250.0], dtype=np.float32)}
    whole, back = Oracle(model).run(given).values()
    np.testing.assert_array_equal(whole, given["x"].astype(dtype))
    assert whole.dtype == dtype
    assert back.dtype == np.float64


def test_functions_are_called() -> None:
    model = text(
        """
        <ir_version: 10, opset_import: ["" : 20, "own" : 1]>
        net (float[N] x) => (float[N] y) { y = own.twice (x) }
        <domain: "own", opset_import: ["" : 20]>
        twice (a) => (b) { two = Constant <value_float: float = 2.0> () b = Mul (a, two) }
        """
    )
    (found,) = Oracle(model).run({"x": np.array([1.0, 3.0])}).values()
    np.testing.assert_array_equal(found, [2.0, 6.0])
    assert model.functions


def test_a_given_input_replaces_its_default() -> None:
    g = Graph()
    x = g.input("x", 2)
    g.output(g.op("Add", x, g.const(np.ones(2), "c", overridable=True)))
    oracle = Oracle(g.model())
    zeros = np.zeros(2)
    np.testing.assert_array_equal(next(iter(oracle.run({"x": zeros}).values())), [1, 1])
    given = {"x": zeros, "c": np.array([5.0, 6.0])}
    np.testing.assert_array_equal(next(iter(oracle.run(given).values())), [5, 6])


def test_values_go_when_their_last_reader_has_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """A chain of 6 products: never are more than an input and an output alive."""
    alive: list[weakref.ref[Any]] = []
    most = 0

    def matmul(node: ir.Node, inputs: Any) -> tuple[Any, ...]:
        nonlocal most
        y = np.asarray(inputs[0]) @ np.asarray(inputs[1])
        gc.collect()
        alive.append(weakref.ref(y))
        most = max(most, sum(ref() is not None for ref in alive))
        return (y,)

    monkeypatch.setitem(KERNELS, "MatMul", matmul)
    g = Graph()
    y = g.input("x", 2, 3)
    for _ in range(6):
        y = g.op("MatMul", y, g.weight(3, 3))
    g.output(y)
    model = g.model()
    Oracle(model).run(feeds(model))
    assert len(alive) == 6
    assert most == 2


def test_an_op_that_nobody_knows_is_named() -> None:
    g = Graph()
    g.nodes.append(
        helper.make_node("Mystery", [g.input("x", 2)], ["y"], "inner.mystery", domain="z")
    )
    g.output("y")
    proto = g.proto()
    proto.opset_import.append(onnx.helper.make_opsetid("z", 1))
    with pytest.raises(OracleError, match=r"Mystery inner\.mystery cannot be evaluated in float64"):
        Oracle(ir.from_proto(proto)).run({"x": np.zeros(2)})


def test_a_missing_input_is_named() -> None:
    g = Graph()
    g.output(g.op("Relu", g.input("x", 2)))
    with pytest.raises(OracleError, match="'x'"):
        Oracle(g.model()).run({})


def test_rounding_every_result() -> None:
    """1 + 1/512 is no bfloat16: rounded after each op, it stays 1."""
    g = Graph("bfloat16", opset=22)
    y = g.op("Add", g.input("x", 1), g.const(np.array([2.0**-9])))
    g.annotate(y, 1)
    g.output(g.op("Sub", y, g.const(np.array([1.0]))))
    model = g.model()
    given = {"x": np.ones(1)}
    name = model.graph.outputs[0].name or ""
    assert Oracle(model).run(given)[name] == 2.0**-9
    assert Oracle(model, rounded=True).run(given)[name] == 0.0


def test_runs_again_with_other_inputs() -> None:
    g = Graph()
    g.output(g.op("Softmax", g.op("Relu", g.input("x", "N", 3))))
    oracle = Oracle(g.model())
    for rows in (1, 4):
        (found,) = oracle.run({"x": np.ones((rows, 3))}).values()
        np.testing.assert_allclose(found, np.full((rows, 3), 1 / 3), rtol=1e-12)


def test_a_sequence_of_tensors_passes_through() -> None:
    g = Graph("float32")
    x = g.input("x", "N", 6, 4)
    parts = g.op("SplitToSequence", x, g.const([2, 4]), axis=1)
    g.output(g.op("SequenceAt", parts, g.const(1)), shape=["N", 4, 4])
    model = g.model()
    given = feeds(model)
    (found,) = Oracle(model).run(given).values()
    assert found.dtype == np.float64
    assert np.array_equal(found, given["x"][:, 2:].astype(np.float64))
