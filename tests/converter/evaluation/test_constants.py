"""What is made of constants in any way is a constant: evaluated in float64, rounded once, within
bounds; and what is not evaluated is said truly."""

from __future__ import annotations

from collections.abc import Callable

import ml_dtypes
import numpy as np
import onnx_ir as ir
import pytest
from onnx import helper

from converter.evaluation import constants
from converter.evaluation.normalize import normalize
from converter.folding import Refusal
from converter.graph.rounding import round_once
from patterns.graphs import (
    Array,
    Graph,
    assert_equal,
    batchnorms,
    fold,
    refusal,
)

WEIGHTS: dict[str, Callable[[Graph], str]] = {}


def weight(make: Callable[[Graph], str]) -> Callable[[Graph], str]:
    WEIGHTS[make.__name__] = make
    return make


@weight
def spectral_norm(g: Graph) -> str:
    """w / (u . W v), W being w as a matrix."""
    w = g.weight(4, 3, 2, 2)
    seen = g.op("Reshape", w, g.const([4, 12]))
    sigma = g.op("MatMul", g.weight(1, 4), g.op("MatMul", seen, g.weight(12, 1)))
    return str(g.op("Div", w, g.op("Squeeze", sigma)))


@weight
def weight_norm(g: Graph) -> str:
    v = g.weight(4, 3, 2, 2)
    return str(g.op("Mul", g.weight(4, 1, 1, 1), g.op("Div", v, g.op("ReduceL2", v))))


@weight
def ternary(g: Graph) -> str:
    w = g.weight(4, 3, 2, 2)
    mean = g.op("ReduceMean", g.op("Abs", w), g.const([1, 2, 3]))
    return str(g.op("Mul", g.op("Sign", w), mean))


@weight
def bounded(g: Graph) -> str:
    return str(g.op("Mul", g.op("Tanh", g.weight(4, 3, 2, 2)), g.const(np.array(0.1))))


@weight
def of_a_broadcast_product_that_is_reduced(g: Graph) -> str:
    """sum_r u[o, r] v[r, i]: larger on the way than at its ends."""
    product = g.op("Mul", g.weight(4, 9, 1), g.weight(1, 9, 12))
    return str(g.op("Reshape", g.op("ReduceSum", product, g.const([1]), keepdims=0), SHAPE(g)))


@weight
def low_rank(g: Graph) -> str:
    change = g.op("MatMul", g.weight(4, 2), g.weight(2, 12))
    return str(g.op("Reshape", g.op("Add", g.weight(4, 12), change), SHAPE(g)))


@weight
def factors(g: Graph) -> str:
    return str(g.op("Einsum", g.weight(4, 2), g.weight(2, 3, 2, 2), equation="or,rikl->oikl"))


@weight
def repeated(g: Graph) -> str:
    return str(g.op("Expand", g.weight(1, 1, 2, 2), SHAPE(g)))


@weight
def tiled(g: Graph) -> str:
    return str(g.op("Tile", g.weight(4, 1, 2, 2), g.const([1, 3, 1, 1])))


@weight
def of_ones(g: Graph) -> str:
    ones = g.op("ConstantOfShape", SHAPE(g), value=helper.make_tensor("v", 11, [1], [0.25]))
    return str(g.op("Mul", ones, g.weight(4, 1, 1, 1)))


@weight
def split(g: Graph) -> str:
    _, second = g.op("Split", g.weight(8, 3, 2, 2), g.const([4, 4]), outputs=2)
    return str(second)


@weight
def chosen(g: Graph) -> str:
    w = g.weight(4, 3, 2, 2)
    kept = g.op("Greater", g.op("Abs", w), g.const(np.array(0.3)))
    return str(g.op("Where", kept, w, g.const(np.array(0.0))))


@weight
def softmax_of_a_kernel(g: Graph) -> str:
    flat = g.op("Softmax", g.weight(4, 12), axis=-1)
    return str(g.op("Reshape", flat, SHAPE(g)))


@weight
def convolved(g: Graph) -> str:
    """A kernel made of two."""
    kernel = g.op("Conv", g.weight(4, 5, 3, 3), g.weight(3, 5, 2, 2))
    return str(kernel)


@weight
def standardised(g: Graph) -> str:
    w = g.weight(4, 3, 2, 2)
    centred = g.op("Sub", w, g.op("ReduceMean", w, g.const([1, 2, 3])))
    var = g.op("ReduceMean", g.op("Mul", centred, centred), g.const([1, 2, 3]))
    return str(g.op("Div", centred, g.op("Sqrt", g.op("Add", var, g.const(np.array(1e-5))))))


def SHAPE(g: Graph) -> str:  # noqa: N802 - as a constant of each graph
    return g.const([4, 3, 2, 2])


def network(make: Callable[[Graph], str], dtype: str = "float64") -> Graph:
    g = Graph(dtype)
    y = g.op("Conv", g.input("x", "N", 3, 5, 5), make(g))
    g.output(g.op("Relu", g.bn(y, 4)))
    return g


@pytest.mark.parametrize("name", WEIGHTS)
def test_a_weight_of_constants_is_a_constant(name: str) -> None:
    model = network(WEIGHTS[name]).model()
    after = fold(model).model
    assert [node.op_type for node in after.graph] == ["Conv", "Relu"]
    assert_equal(model, after)


def made(model: ir.Model) -> Array:
    value = next(node for node in model.graph if node.op_type == "Conv").inputs[1]
    assert value is not None
    assert value.const_value is not None
    return np.asarray(value.const_value.numpy())


# What jumps reads rounded numbers; Conv and Einsum of that opset are not of bfloat16.
ROUNDED = [
    (name, dtype)
    for name in WEIGHTS
    for dtype in ("float16", "bfloat16", "float32")
    if name not in {"ternary", "chosen"}
    and (dtype != "bfloat16" or name not in {"factors", "convolved"})
]


@pytest.mark.parametrize(("name", "dtype"), ROUNDED)
def test_it_is_rounded_once(name: str, dtype: str) -> None:
    """Each number is that of float64, to the last place: no op on the way has rounded."""
    g = network(WEIGHTS[name], dtype)
    model, wide = g.model(), g.model()
    kind = {"float16": np.float16, "bfloat16": ml_dtypes.bfloat16, "float32": np.float32}[dtype]
    for value in wide.graph.initializers.values():
        held = np.asarray(value.const_value.numpy())  # type: ignore[union-attr]
        if held.dtype == kind:
            value.const_value = ir.tensor(held.astype(np.float64), name=value.name)
            value.dtype = ir.DataType.DOUBLE
    for value in (*wide.graph.inputs, *wide.graph.outputs):
        value.dtype = ir.DataType.DOUBLE
    for node in wide.graph:
        if node.op_type == "ConstantOfShape":
            fill = ir.tensor(np.array([0.25]), name="v")
            node.attributes.add(ir.AttrTensor("value", fill))
    if name == "of_ones":
        fill = ir.tensor(np.array([0.25], kind), name="v")
        for node in model.graph:
            if node.op_type == "ConstantOfShape":
                node.attributes.add(ir.AttrTensor("value", fill))
    expected = round_once(made(normalize(wide)).astype(np.float64), kind)
    np.testing.assert_array_equal(made(normalize(model)), expected)


def test_the_same_bytes_each_time() -> None:
    models = [network(WEIGHTS["spectral_norm"], "float32").model() for _ in range(2)]
    one, other = (ir.to_proto(normalize(m)).SerializeToString(deterministic=True) for m in models)
    assert one == other


def test_what_jumps_reads_what_the_model_computes() -> None:
    """10 * float32(0.7) is 7 in float32, and 6.9999998 in float64."""
    g = Graph("float32")
    size = g.op("Floor", g.op("Mul", g.const(np.array([10.0])), g.const(np.array([0.7]))))
    sizes = g.op("Concat", g.const([-1]), g.op("Cast", size, to=7), axis=0)
    g.output(g.op("Reshape", g.op("Relu", g.input("x", "N", 14)), sizes))
    after = normalize(g.model())
    target = after.graph[-1].inputs[1]
    assert target is not None
    assert target.const_value is not None
    assert target.const_value.numpy().tolist() == [-1, 7]


def test_a_cast_to_half_and_back_rounds() -> None:
    g = Graph("float32")
    held = g.weight(4, 3, 2, 2)
    w = g.op("Cast", g.op("Cast", held, to=10), to=1)
    g.output(g.op("Conv", g.input("x", "N", 3, 5, 5), g.op("Mul", w, g.const(np.array(0.5)))))
    model = g.model()
    half = model.graph.initializers[held].const_value.numpy().astype(np.float16)  # type: ignore[union-attr]
    np.testing.assert_array_equal(made(normalize(model)), half.astype(np.float32) / 2)


@pytest.mark.parametrize(
    ("op", "inputs", "attributes"),
    [
        ("RandomNormal", 0, {"shape": [4, 3, 2, 2], "dtype": 11}),
        ("RandomUniformLike", 1, {}),
        ("Dropout", 3, {}),
    ],
)
def test_random_weights_are_not_drawn(op: str, inputs: int, attributes: dict[str, object]) -> None:
    g = Graph()
    given = [g.weight(4, 3, 2, 2), g.const(np.array(0.5)), g.const(np.array(True))][:inputs]
    w = g.op("Neg", g.op(op, *given, **attributes))
    g.output(g.bn(g.op("Conv", g.input("x", "N", 3, 5, 5), w), 4))
    after = normalize(g.model())
    assert [node.op_type for node in after.graph][:2] == [op, "Neg"]
    why = refusal(g)
    assert why.code == "computed-weights"
    assert ("drawn at random at run time" in why.sentence) is (op != "Dropout")


def test_a_quantised_weight_stays_so_and_the_reason_is_true() -> None:
    g = Graph("float32")
    q = g.const(np.ones((4, 3, 1, 1)), dtype="int8")
    w = g.op("DequantizeLinear", q, g.const(np.array(0.1)))
    g.output(g.bn(g.op("Conv", g.input("x", "N", 3, 5, 5), w), 4))
    assert "is quantised (DequantizeLinear" in refusal(g).sentence


def test_a_weight_that_an_input_reaches_is_computed_at_run_time() -> None:
    g = Graph()
    w = g.op("Mul", g.weight(4, 3, 1, 1), g.input("gain", 1))
    g.output(g.bn(g.op("Conv", g.input("x", "N", 3, 5, 5), w), 4))
    assert "computed at run time" in refusal(g).sentence


@pytest.mark.parametrize("op", ["Expand", "ConstantOfShape", "Tile"])
def test_no_constant_of_gigabytes(op: str) -> None:
    """2^32 numbers of one: not even on the way to a sum of them."""
    g = Graph("float32")
    shape = g.const([2**16, 2**16])
    one = g.const(np.ones((1, 1)))
    large = g.op(op, *{"ConstantOfShape": [shape]}.get(op, [one, shape]))
    total = g.op("ReduceSum", large, keepdims=0)
    g.output(g.op("Mul", g.input("x", "N", 3), total))
    after = normalize(g.model())
    assert [node.op_type for node in after.graph] == [op, "ReduceSum", "Mul"]


@pytest.mark.parametrize(("rows", "constant"), [(2**9, True), (2**9 + 1, False)])
def test_what_a_weight_may_grow_to(rows: int, constant: bool) -> None:
    """2^20 numbers out of a few thousand."""
    g = Graph("float32")
    w = g.op("MatMul", g.weight(rows, 1), g.weight(1, 2**11))
    g.output(g.bn(g.op("Gemm", g.input("x", "N", 2**11), w, transB=1), rows))
    folded = fold(g)
    assert (batchnorms(folded.model) == 0) is constant
    if not constant:
        (outcome,) = (decision.outcome for decision in folded.plan.decisions)
        assert isinstance(outcome, Refusal)
        assert "made of constants by MatMul" in outcome.sentence
        assert "too large" in outcome.sentence


def test_all_that_grows_is_bounded_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "_MOST_GROWTH", 3000)
    g = Graph("float32")
    x = g.input("x", "N", 30)
    for _ in range(5):
        w = g.op("MatMul", g.weight(30, 1), g.weight(1, 40))
        g.output(g.op("MatMul", x, w))
    ops = [node.op_type for node in normalize(g.model()).graph]
    assert ops.count("MatMul") == 5 + 3


def test_what_is_made_on_the_way_to_something_too_large_is_made() -> None:
    g = Graph("float32")
    inner = g.op("Exp", g.op("Tanh", g.weight(1, 50)))
    large = g.op("Expand", inner, g.const([10000, 50]))
    g.output(g.op("Add", g.input("x", 10000, 50), large))
    assert [node.op_type for node in normalize(g.model()).graph] == ["Expand", "Add"]


def test_a_result_that_does_not_fit_its_type_is_left_to_the_runtime() -> None:
    g = Graph("float16")
    w = g.op("Mul", g.const(np.full((4, 3, 1, 1), 6e4)), g.const(np.array(2.0)))
    g.output(g.op("Conv", g.input("x", "N", 3, 5, 5), w))
    assert [node.op_type for node in normalize(g.model()).graph] == ["Mul", "Conv"]


def test_a_constant_inside_of_a_body() -> None:
    g = Graph("float32")
    x, w = g.op("Relu", g.input("x", "N", 3, 5, 5)), g.weight(4, 3, 1, 1)
    bodies = []
    for gain in (1.0, 2.0):
        body = g.body()
        scaled = body.op("Mul", body.op("Tanh", w), body.const(np.array(gain)))
        body.output(body.bn(body.op("Conv", x, scaled), 4), shape=["N", 4, 5, 5])
        bodies.append(body.graph())
    flag = g.input("c", dtype="bool")
    g.output(g.op("If", flag, then_branch=bodies[0], else_branch=bodies[1]))
    model = g.model()
    after = fold(model).model
    assert batchnorms(after) == 0
    assert_equal(model, after, rtol=1e-6)
