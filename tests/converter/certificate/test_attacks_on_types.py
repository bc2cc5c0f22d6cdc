"""Pairs that compute different things, made to look the same: types, casts, texts, constants."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import helper, numpy_helper

from converter.certificate import certify
from converter.certificate.arrays import bits
from patterns.graphs import Graph
from tests.converter.certificate.pairs import Build, accepted, doubted, refused, written

WEIGHT = np.random.default_rng(0).standard_normal((4, 4)).astype(np.float32)
HALF, FLOAT, BFLOAT = 10, 1, 16


def multiplied(of: Build) -> Build:
    return lambda g: str(g.op("MatMul", g.input("x", "N", 4), of(g)))


def test_a_value_that_is_cast_like_a_half_is_counted_as_a_cast() -> None:
    def build(half: bool) -> Build:
        def inner(g: Graph) -> str:
            x = g.input("x", "N", 4)
            for dtype in ("float16", "float32") * half:
                x = g.op("CastLike", x, g.const(np.ones(1), dtype=dtype))
            return str(g.op("Relu", x))

        return inner

    assert "casts" in refused(written(build(False)), written(build(True))).reason


@pytest.mark.parametrize("narrow", [HALF, BFLOAT])
def test_a_value_that_is_cast_to_a_narrower_type_is_refused(narrow: int) -> None:
    def build(on: bool) -> Build:
        def inner(g: Graph) -> str:
            x = g.input("x", "N", 4)
            for to in (narrow, FLOAT) * on:
                x = g.op("Cast", x, to=to)
            return str(g.op("Relu", x))

        return inner

    assert "casts" in refused(written(build(False)), written(build(True))).reason
    accepted(written(build(True)), written(build(False)))


@pytest.mark.parametrize("narrow", [HALF, BFLOAT])
def test_a_weight_that_is_cast_to_a_narrower_type_is_rounded_there(narrow: int) -> None:
    def cast(g: Graph) -> str:
        return str(g.op("Cast", g.op("Cast", g.const(WEIGHT), to=narrow), to=FLOAT))

    plain = written(multiplied(lambda g: g.const(WEIGHT)))
    refused(plain, written(multiplied(cast)))
    accepted(written(multiplied(cast)), written(multiplied(cast)))
    if narrow == HALF:
        rounded = WEIGHT.astype(np.float16).astype(np.float32)
        accepted(written(multiplied(cast)), written(multiplied(lambda g: g.const(rounded))))


def test_weights_that_are_stored_in_half_are_not_excused_by_their_type() -> None:
    def stored(g: Graph) -> str:
        return str(g.op("Cast", g.const(WEIGHT.astype(np.float16), dtype="float16"), to=FLOAT))

    refused(written(multiplied(lambda g: g.const(WEIGHT))), written(multiplied(stored)))
    accepted(written(multiplied(stored)), written(multiplied(stored)))


def test_a_constant_of_a_shape_is_of_its_own_type() -> None:
    def build(number: float) -> Build:
        def inner(g: Graph) -> str:
            value = numpy_helper.from_array(np.array([number]), "value")
            return str(g.op("Add", g.input("x", 4, 4), g.op("ConstantOfShape", g.const([4]),
                                                           value=value)))  # fmt: skip

        return inner

    refused(written(build(0.5), "float64"), written(build(0.5 + 5e-8), "float64"))


def test_whole_numbers_that_wrap_around_are_those_numbers() -> None:
    """2^31 in an int32 is -2^31."""

    def build(number: int) -> Build:
        def inner(g: Graph) -> str:
            big = g.op("Mul", g.const(np.array([2**30], np.int32), dtype="int32"),
                       g.const(np.array([2], np.int32), dtype="int32"))  # fmt: skip
            place = g.op("Cast", big, to=7) if number == 0 else g.const([number])
            return str(g.op("Add", g.input("x", "N", 1, dtype="int64"), place))

        return inner

    def of(number: int) -> object:
        g = Graph("float32")
        g.output(g.rename(build(number)(g), "y"), dtype="int64", shape=["N", 1])
        return g.model()

    accepted(of(0), of(-(2**31)))  # type: ignore[arg-type]
    refused(of(0), of(2**31))  # type: ignore[arg-type]


def test_whole_numbers_are_divided_towards_zero() -> None:
    """-3 / 2 is -1: a Gather from the end."""

    def build(of: Build) -> Build:
        return lambda g: str(g.op("Gather", g.input("x", "N", 4), of(g), axis=1))

    divided = build(lambda g: str(g.op("Div", g.const([-3]), g.const([2]))))
    accepted(written(divided), written(build(lambda g: g.const([-1]))))
    refused(written(divided), written(build(lambda g: g.const([-2]))))


def test_a_cast_to_whole_numbers_cuts_off() -> None:
    def build(of: Build) -> Build:
        return lambda g: str(g.op("Gather", g.input("x", "N", 4), of(g), axis=1))

    cast = build(lambda g: str(g.op("Cast", g.const(np.array([1.9, -1.9])), to=7)))
    accepted(written(cast), written(build(lambda g: g.const([1, -1]))))
    refused(written(cast), written(build(lambda g: g.const([2, -2]))))


def test_a_number_that_is_none_is_refused() -> None:
    def build(number: float) -> Build:
        return lambda g: str(g.op("Add", g.input("x", "N", 2), g.const(np.array([1.0, number]))))

    for number in (np.nan, np.inf):
        doubted(written(build(number)), written(build(number)))


def test_texts_are_compared_as_texts() -> None:
    """An array of them holds addresses; that of one that is gone may be another one's."""
    one = bits(np.array([b"a rather long text"], object))
    assert one == bits(np.array([b"a rather " + b"long text"], object))
    assert one != bits(np.array([b"another text"], object))
    assert bits(np.zeros(2, np.int32)) != bits(np.zeros(1, np.int64))
    assert bits(np.zeros((2, 1))) != bits(np.zeros((1, 2)))


def test_a_text_that_is_an_attribute_is_compared() -> None:
    def build(mode: str) -> Build:
        return lambda g: str(g.op("Gelu", g.input("x", "N", 4), approximate=mode))

    refused(written(build("none")), written(build("tanh")))


@pytest.mark.parametrize("what", ["scale", "zero", "weight"])
def test_a_quantized_op_is_the_same_to_the_last_bit(what: str) -> None:
    def build(changed: bool) -> Build:
        def inner(g: Graph) -> str:
            scale = g.const(np.full((), 0.1 * (1 + 2e-7 * (changed and what == "scale"))))
            zero = np.full((), int(changed and what == "zero"), np.int8)
            weight = np.arange(16, dtype=np.int8).reshape(4, 4)
            weight[0, 0] += changed and what == "weight"
            places = [g.const(zero, dtype="int8"), g.const(weight, dtype="int8")]
            x = g.op("QuantizeLinear", g.input("x", "N", 4), scale, places[0])
            y = g.op("QLinearMatMul", x, scale, places[0], places[1], scale, places[0], scale,
                     places[0])  # fmt: skip
            return str(g.op("DequantizeLinear", y, scale, places[0]))

        return inner

    accepted(written(build(False)), written(build(False)))
    refused(written(build(False)), written(build(True)))


def test_a_dequantized_weight_is_a_weight() -> None:
    def build(number: int) -> Build:
        def inner(g: Graph) -> str:
            weight = np.arange(16, dtype=np.int8).reshape(4, 4)
            weight[0, 0] = number
            return str(g.op("DequantizeLinear", g.const(weight, dtype="int8"),
                            g.const(np.full((), 0.1)), g.const(np.zeros((), np.int8),
                                                               dtype="int8")))  # fmt: skip

        return multiplied(inner)

    times = np.arange(16).reshape(4, 4) * np.float64(np.float32(0.1))
    accepted(written(build(0)), written(multiplied(lambda g: g.const(times))))
    refused(written(build(0)), written(build(1)))


@pytest.mark.parametrize("op", ["RandomUniformLike", "Bernoulli", "Dropout"])
def test_what_draws_random_numbers_is_refused(op: str) -> None:
    def build(g: Graph) -> str:
        x = g.input("x", 2, 4)
        more = (g.const(np.full((), 0.5)), g.const(np.array(True))) * (op == "Dropout")
        return str(g.op("Add", x, g.op(op, x, *more)))

    assert "random" in doubted(written(build), written(build)).reason


def test_a_dropout_that_is_asked_to_train_at_run_time_is_refused() -> None:
    def build(g: Graph) -> str:
        x, training = g.input("x", 2, 4), g.input("training", dtype="bool")
        return str(g.op("Dropout", x, g.const(np.full((), 0.5)), training))

    assert "random" in doubted(written(build), written(build)).reason


def test_an_overridable_weight_is_an_input() -> None:
    def build(overridable: bool) -> Build:
        return multiplied(lambda g: g.const(WEIGHT, "w", overridable=overridable))

    accepted(written(build(True)), written(build(True)))
    assert not certify(written(build(False)), written(build(True)))
    assert not certify(written(build(True)), written(build(False)))


def test_before_version_4_of_the_format_every_weight_stands_among_the_inputs() -> None:
    def build(number: float) -> Build:
        return multiplied(lambda g: g.const(WEIGHT * number, "w", overridable=True))

    one = written(build(1.0), ir_version=3, opset=8)
    accepted(one, written(build(1.0), ir_version=3, opset=8))
    refused(one, written(build(1.001), ir_version=3, opset=8))


def test_an_optional_output_is_not_the_first_one() -> None:
    def build(place: int) -> Build:
        def inner(g: Graph) -> str:
            values, places = g.op("TopK", g.input("x", "N", 6), g.const([2]), outputs=2)
            return str((values, g.op("Cast", places, to=FLOAT))[place])

        return inner

    refused(written(build(0)), written(build(1)))


def test_the_values_of_a_sequence_are_told_apart() -> None:
    def taken(place: int) -> Build:
        def build(g: Graph) -> str:
            x = g.input("x", "N", 4)
            made = g.op("SequenceConstruct", x, g.op("Relu", x))
            return str(g.op("SequenceAt", made, g.const(np.array(place))))

        return build

    assert certify(written(taken(1)), written(taken(1)))
    assert not certify(written(taken(1)), written(taken(0)))
    assert not certify(written(taken(2)), written(taken(2)))


def test_an_input_of_another_kind_is_in_doubt() -> None:
    g = Graph("float32")
    g.inputs.append(helper.make_tensor_sequence_value_info("s", FLOAT, ["N"]))
    g.output(g.op("SequenceAt", "s", g.const(np.array(0))))
    assert "no tensor" in doubted(g.model(), g.model()).reason
