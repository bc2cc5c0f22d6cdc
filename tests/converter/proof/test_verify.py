"""A right fold is proven; a wrong one, however small or hidden at the border, is not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto

from converter.evaluation.normalize import normalize
from converter.folding import fold_graph
from converter.proof import Measurement, Proof, verify
from converter.proof.pooling import pool
from converter.sources.inputs import describe, dynamic_batch
from converter.sources.loaded import Reference
from patterns.graphs import Graph


def prove(
    model: ir.Model,
    candidate: ir.Model | None = None,
    reference: ir.Model | None = None,
    **more: Any,
) -> Proof:
    """Of a candidate, which is the right fold unless given."""
    original = reference or normalize(model)
    folded = fold_graph(normalize(model)).model if candidate is None else candidate
    options = {"dynamic_batch": dynamic_batch(model), **more}
    return verify(model, original, folded, describe(model), **options)


def net(dtype: str = "float32", batch: int | str = "N") -> ir.Model:
    g = Graph(dtype, opset=22)
    y = g.op("Conv", g.input("x", batch, 3, 6, 6), g.weight(4, 3, 3, 3, name="conv.weight"))
    y = g.op("Relu", g.bn(y, 4, name="bn1"))
    y = g.op("Flatten", g.op("MaxPool", y, kernel_shape=[2, 2]))
    y = g.bn(g.op("Gemm", y, g.weight(36, 5, name="fc.weight")), 5, name="bn2")
    g.rename(y, "logits")
    g.output("logits", shape=[batch, 5])
    return g.model()


def folded(model: ir.Model) -> ir.Model:
    return fold_graph(normalize(model)).model


def changed(model: ir.Model, name: str, change: Callable[[Any], Any]) -> ir.Model:
    """A copy whose constant `name` is `change` of what it was, in its own type."""
    model = model.clone()
    value = model.graph.initializers[name]
    assert value.const_value is not None
    array = np.array(value.const_value.numpy())
    new = np.asarray(change(array)).astype(array.dtype)
    assert new.tobytes() != array.tobytes()
    value.const_value = ir.tensor(new, name=name)
    return model


def larger(by: float) -> Callable[[Any], Any]:
    """The largest number of an array made larger by a part of itself."""

    def change(array: Any) -> Any:
        array = array.astype(np.float64)
        array.flat[np.argmax(np.abs(array))] *= 1 + by
        return array

    return change


def swapped(array: Any) -> Any:
    return array[[1, 0, *range(2, len(array))]]


def test_a_right_fold_is_proven() -> None:
    proof = prove(net())
    assert proof.passed
    assert proof.failure == ""
    assert [m.inputs for m in proof.measurements] == ["batch 1", "batch 2", "batch 5"]
    assert all(0 < m.candidate_error <= m.allowed < 1e-4 * m.magnitude for m in proof.measurements)
    assert proof.batch_invariant
    assert proof.notes == ()
    assert {name: array.shape[0] for name, array in proof.sample.items()} == {"x": 2}
    assert proof.truth["logits"].shape == (2, 5)
    assert proof.truth["logits"].dtype == np.float64


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("conv.weight", larger(1e-3)), ("conv.weight", swapped), ("conv.weight", np.negative),
        ("conv.bias", larger(1e-3)), ("conv.bias", swapped), ("fc.bias", larger(1e-3)),
        ("fc.weight", lambda w: w[::-1]), ("conv.bias", np.zeros_like),
    ],
)  # fmt: skip
def test_a_changed_weight_is_found(name: str, change: Callable[[Any], Any], dtype: str) -> None:
    if dtype in {"float16", "bfloat16"} and change.__name__ == "change":
        change = larger(5.0 if dtype == "bfloat16" else 0.5)  # it has 8 bits, or 11
    model = net(dtype)
    proof = prove(model, changed(folded(model), name, change))
    assert not proof.passed
    assert proof.failure == ""
    worst = max(proof.measurements, key=lambda m: m.candidate_error - m.allowed)
    assert worst.candidate_error > worst.allowed


def bordered(shift: bool) -> tuple[ir.Model, ir.Model]:
    """A batch-norm before a zero-padded conv, and the naive fold into that conv, which takes the
    shift into the bias: right inside, wrong at the border, where the padding is not shifted."""
    models = []
    for naive in (False, True):
        g = Graph("float32", seed=7)
        x = g.input("x", "N", 3, 16, 16)
        w = g.rng.standard_normal((2, 3, 3, 3))
        a = g.rng.uniform(0.5, 1.5, 3)
        b = 0.05 * g.rng.standard_normal(3) if shift else np.zeros(3)
        if not naive:
            one = np.ones(3)
            parts = g.statistics(3, gamma=a * np.sqrt(1 + 1e-5), beta=b, mean=0 * one, var=one)
            y = g.op("BatchNormalization", x, *parts)
            y = g.op("Conv", y, g.const(w), pads=[1, 1, 1, 1])
        else:
            bias = g.const(np.einsum("oikl,i->o", w, b))
            scaled = g.const(w * a.reshape(1, 3, 1, 1))
            y = g.op("Conv", x, scaled, bias, pads=[1, 1, 1, 1])
        g.rename(y, "y")
        g.output("y", shape=["N", 2, 16, 16])
        models.append(g.model())
    return models[0], models[1]


def test_an_error_at_the_border_only_is_found() -> None:
    model, naive = bordered(shift=True)
    assert not prove(model, naive).passed
    model, right = bordered(shift=False)
    assert prove(model, right).passed


def test_a_map_on_the_wrong_axis_is_found() -> None:
    """The trap of torch's own helpers: (N, L, F) with L = F, a batch-norm on L, folded into F."""
    g = Graph("float32", seed=1)
    y = g.bn(g.op("MatMul", g.input("x", "N", 4, 3), g.weight(3, 4, name="w")), 4, name="bn")
    g.rename(y, "y")
    g.output("y", shape=["N", 4, 4])
    model = g.model()
    h = Graph("float32", seed=1)
    y = h.op("MatMul", h.input("x", "N", 4, 3), h.weight(3, 4, name="w"))
    y = h.op("Transpose", h.bn(h.op("Transpose", y, perm=[0, 2, 1]), 4, name="bn"), perm=[0, 2, 1])
    h.rename(y, "y")
    h.output("y", shape=["N", 4, 4])
    wrong = folded(h.model())
    assert [node.op_type for node in wrong.graph].count("BatchNormalization") == 0
    assert not prove(model, wrong).passed
    assert prove(h.model(), wrong).passed


def test_batch_statistics_are_not_batch_invariant() -> None:
    g = Graph("float32")
    y = g.op("Conv", g.input("x", "N", 3, 5, 5), g.weight(4, 3, 3, 3))
    y, *_ = g.op("BatchNormalization", y, *g.statistics(4), training_mode=1, outputs=3)
    g.output(y, shape=["N", 4, 3, 3])
    proof = prove(g.model())
    assert proof.passed
    assert not proof.batch_invariant
    assert proof.invariance is not None
    assert "others in its batch" in proof.invariance.problem


def test_an_output_without_a_batch_axis_is_not_batch_invariant() -> None:
    g = Graph("float32")
    y = g.op("ReduceMean", g.input("x", "N", 3), keepdims=0)
    g.output(y, shape=[])
    proof = prove(g.model())
    assert proof.passed
    assert not proof.batch_invariant
    assert "no batch axis" in str(proof.invariance)


def test_infinite_alone_but_not_in_a_batch_is_not_batch_invariant() -> None:
    """1 / (N - 1): numbers in any batch but that of one."""
    g = Graph("float32")
    x = g.input("x", "N", 3)
    rows = g.op("Cast", g.op("Gather", g.op("Shape", x), g.const(0)), to=TensorProto.FLOAT)
    g.output(g.op("Add", x, g.op("Reciprocal", g.op("Sub", rows, g.const(1.0)))), shape=["N", 3])
    proof = prove(g.model())
    assert not proof.batch_invariant


def test_a_fixed_batch() -> None:
    proof = prove(net(batch=4))
    assert proof.passed
    assert [m.inputs for m in proof.measurements] == ["the fixed batch"]
    assert proof.sample["x"].shape[0] == 4
    assert proof.invariance is None
    assert not proof.batch_invariant
    assert not prove(net(batch=4), changed(folded(net(batch=4)), "fc.bias", larger(1e-2))).passed


def argmax(sign: float = 1.0) -> ir.Model:
    g = Graph("float32")
    w = g.const(sign * g.rng.standard_normal((3, 4)))
    g.output(g.op("ArgMax", g.op("MatMul", g.input("x", "N", 3), w), axis=1), dtype="int64")
    g.rename(g.outputs[0].name, "label")
    g.outputs[0].name = "label"
    return g.model()


def test_integers_must_be_equal() -> None:
    assert prove(argmax()).passed
    assert prove(argmax()).measurements[0].candidate_error == 0
    assert not prove(argmax(), argmax(-1.0)).passed


def unary(op: str, *more: float) -> ir.Model:
    g = Graph("float32")
    y = g.op(op, g.op("Add", g.input("x", "N", 3), g.const(more[0] if more else 0.0)))
    g.rename(y, "y")
    g.output("y", shape=["N", 3])
    return g.model()


def test_nothing_but_nan_proves_nothing() -> None:
    proof = prove(unary("Log", -1e6))
    assert not proof.passed
    assert "no finite number" in proof.measurements[0].problem


def test_nan_where_the_original_has_numbers_is_found() -> None:
    assert prove(unary("Sqrt")).passed  # half of it is NaN in both
    proof = prove(unary("Exp"), unary("Log"), seed=1)
    assert not proof.passed
    assert any("NaN or infinity" in m.problem for m in proof.measurements)


def test_an_original_without_a_finite_number_proves_nothing() -> None:
    """No float16 is 100,000, so the original says infinity; in float64 the cast changes nothing."""
    g = Graph("float32")
    y = g.op("Cast", g.op("Add", g.input("x", "N", 3), g.const(1e5)), to=TensorProto.FLOAT16)
    g.output(g.op("Cast", y, to=TensorProto.FLOAT), shape=["N", 3])
    proof = prove(g.model())
    assert not proof.passed
    assert "no finite number" in proof.measurements[0].problem


def test_an_original_that_is_far_off_proves_nothing() -> None:
    """A reference that computes something else must not excuse a candidate that does, too."""
    wrong = changed(folded(net()), "fc.weight", np.negative)
    proof = prove(net(), wrong, reference=wrong)
    assert not proof.passed
    assert "away from float64" in proof.measurements[0].problem


def test_other_names_and_types() -> None:
    other = folded(net())
    other.graph.outputs[0].name = "scores"
    assert "the outputs have other names: ['logits'] and ['scores']" in prove(net(), other).failure
    assert "the inputs have other types" in prove(net(), net("float64")).failure
    assert not prove(net(), other).passed


@pytest.mark.parametrize("dtype", ["bfloat16", "float64"])
def test_types_without_kernels_are_emulated_and_noted(dtype: str) -> None:
    proof = prove(net(dtype))
    assert proof.passed
    (note,) = proof.notes
    assert dtype in note
    assert "emulated" in note
    if dtype == "bfloat16":
        errors = [m.candidate_error / m.magnitude for m in proof.measurements]
        assert 1e-4 < max(errors) < 0.1, "rounded to 8 bits"
    assert proof.sample["x"].dtype == np.dtype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)


def test_float16_runs() -> None:
    assert prove(net("float16")).passed
    assert prove(net("float16")).notes == ()
    wrong = changed(folded(net("float16")), "fc.weight", lambda w: w[:, ::-1])
    assert not prove(net("float16"), wrong).passed


def test_a_candidate_that_does_not_run() -> None:
    """Its weight has another size than its input."""
    broken = changed(folded(net()), "fc.bias", lambda b: b * 2)
    value = broken.graph.initializers["conv.weight"]
    value.const_value = ir.tensor(np.ones((4, 2, 3, 3), np.float32), name="conv.weight")
    value.shape = ir.Shape([4, 2, 3, 3])
    proof = prove(net(), broken)
    assert not proof.passed
    assert proof.failure.startswith("onnxruntime: ")


def test_a_graph_that_does_not_run() -> None:
    g = Graph("float32")
    g.output(g.op("Conv", g.input("x", "N", 4, 5), g.weight(2, 3, 1)), shape=["N", 2, 5])
    model = g.model()
    proof = prove(model, model, model)
    assert not proof.passed
    assert proof.verdict == "unmeasured"
    assert "the original model itself does not run on random inputs" in proof.failure
    assert "--data" in proof.failure


def test_your_data_is_measured_too() -> None:
    """A weight that random inputs never reach."""
    g = Graph("float32")
    y = g.op(
        "Mul", g.op("Relu", g.op("Sub", g.input("x", "N", 3), g.const(50.0))), g.weight(1, name="w")
    )
    g.output(g.op("Add", g.op("Relu", "x"), y), shape=["N", 3])
    model = g.model()
    wrong = changed(normalize(model), "w", lambda w: w * 2)
    assert prove(model, wrong).passed
    data = {"x": np.full((7, 3), 60.0, dtype=np.float32)}
    proof = prove(model, wrong, data=data)
    assert not proof.passed
    assert proof.measurements[-1].inputs == "your data, 7 rows"
    assert prove(model, data=data).passed


def test_data_without_rows() -> None:
    g = Graph("float32")
    g.output(g.op("Exp", g.input("x")), shape=[])
    data = {"x": np.array(0.5, dtype=np.float32)}
    proof = prove(g.model(), data=data)
    assert proof.passed
    assert proof.measurements[-1].inputs == "your data"


@pytest.mark.parametrize(("by", "passes"), [(0.0, True), (0.01, False)])
def test_what_the_framework_gave_is_compared(by: float, passes: bool) -> None:
    model = net()
    first = prove(model)
    outputs = {name: (y * (1 + by)).astype(np.float32) for name, y in first.truth.items()}
    proof = prove(model, framework=Reference(inputs=first.sample, outputs=outputs))
    assert len(proof.framework) == 1
    assert proof.passed is passes


def test_the_seed_draws_the_inputs() -> None:
    one, same, other = (prove(net(), seed=seed).sample["x"] for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)


def measured(
    output: str, inputs: str, reference: float, candidate: float, size: float = 1.0, **more: bool
) -> Measurement:
    """Of float32, where 4 * u * max|y| is 2.4e-7 of max|y|."""
    allowed = 2 * reference + 2.4e-7 * size
    return Measurement(output, inputs, size, reference, candidate, allowed, **more)


def pooled(*cases: Measurement) -> list[bool]:
    return [m.passed for m in pool(cases, {"batch 1", "batch 2"})]


def test_a_lucky_original_on_one_input_condemns_no_right_fold() -> None:
    """EfficientNetB0 of Keras at batch 1: 1.4e-7, where it is 4e-7 at batch 2 and 5."""
    lucky = measured("y", "batch 1", 1.4e-7, 7.7e-7, pooled=True)
    usual = measured("y", "batch 2", 4.0e-7, 6.0e-7, pooled=True)
    assert pooled(lucky, usual) == [True, True]
    assert pooled(lucky) == [False]
    assert pooled(lucky, measured("z", "batch 2", 4.0e-7, 0.0, pooled=True)) == [False, True]
    assert pooled(lucky, measured("y", "yours", 1.0, 0.0, pooled=True)) == [False, True]
    assert pooled(measured("y", "yours", 1.4e-7, 7.7e-7, pooled=True), usual) == [True, True]


def test_an_output_near_zero_on_one_input_condemns_no_right_fold() -> None:
    """A single number that cancels at batch 1, and has its usual size at batch 2."""
    small = measured("y", "batch 1", 2.4e-8, 8.4e-8, 0.08, pooled=True)
    assert pooled(small) == [False]
    assert pooled(small, measured("y", "batch 2", 2.4e-8, 2.4e-8, 1.0, pooled=True)) == [True, True]
    assert pooled(small, measured("y", "yours", 0.0, 0.0, 1e6, pooled=True)) == [False, True]


def half(inputs: str, reference: float, candidate: float, size: float = 1.0) -> Measurement:
    """Of float16, where 4 * u * max|y| is 2e-3 of max|y|."""
    allowed = 2 * reference + 2e-3 * size
    return Measurement("y", inputs, size, reference, candidate, allowed, pooled=True, half=True)


def test_an_output_near_zero_on_one_input_condemns_no_right_fold_of_half_types() -> None:
    small, usual = half("batch 1", 1e-5, 9e-4, 0.02), half("batch 2", 4e-4, 8e-4)
    assert pooled(small) == [False]
    assert pooled(small, usual, usual) == [True, True, True]


def test_an_original_that_is_far_off_on_one_input_excuses_no_other() -> None:
    """A quarter of max|y|, where it overflows nearly: then the median counts."""
    wild, usual = half("batch 1", 0.2, 0.3), half("batch 2", 4e-4, 8e-4)
    wrong = half("batch 2", 4e-4, 0.1)
    assert pooled(wild, usual, usual) == [True, True, True]
    assert pooled(wild, usual, wrong) == [True, True, False]
    assert pooled(wild, usual, half("yours", 4e-4, 0.1)) == [True, True, False]


def test_other_types_stand_alone() -> None:
    cases = measured("y", "batch 1", 1.4e-7, 7.7e-7), measured("y", "batch 2", 4.0e-7, 6.0e-7)
    assert pooled(*cases) == [False, True]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("seed", range(4))
def test_a_right_fold_of_half_types_is_proven(dtype: str, seed: int) -> None:
    assert prove(net(dtype), seed=seed).passed
