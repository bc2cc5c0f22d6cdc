"""Constants that are not finite, parts that are empty, casts that do nothing, lengths of Loops."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from patterns.graphs import Graph
from tests.converter.certificate.pairs import Build, accepted, doubted, refused, written

ANGLES = np.array([-0.5, 0.0, 0.25, 0.5])


def windowed(replaced: list[bool] | None, by: float = 1.0, last: float = 0.5) -> Build:
    """x times sin(t)/t, as a resampling filter is written: where t is 0, a Where takes 1."""

    def build(g: Graph) -> str:
        x = g.input("x", "N", 4)
        angles = np.array([*ANGLES[:3], last])
        if replaced is None:
            quotient = np.divide(np.sin(angles), angles, out=np.ones(4), where=angles != 0)
            return str(g.op("Mul", x, g.const(quotient)))
        t = g.const(angles)
        quotient = g.op("Div", g.op("Sin", t), t)
        one = g.const(np.full((), by))
        kernel = g.op("Where", g.const(replaced, dtype="bool"), one, quotient)
        return str(g.op("Mul", x, kernel))

    return build


ZERO = [False, True, False, False]


def test_a_number_that_is_none_may_be_replaced() -> None:
    accepted(written(windowed(ZERO)), written(windowed(None)))
    accepted(written(windowed(None)), written(windowed(ZERO)))


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(windowed([True, False, False, False]), id="another place is replaced"),
        pytest.param(windowed([False] * 4), id="none is"),
        pytest.param(windowed(ZERO, by=1.0001), id="by another number"),
        pytest.param(windowed(ZERO, last=0.501), id="another number is divided"),
    ],
)
def test_what_is_left_of_it_is_compared(other: Build) -> None:
    refused(written(windowed(ZERO)), written(other))


@pytest.mark.parametrize("op", ["Clip", "Max", "Mul", "Equal", "IsNaN"])
def test_nothing_but_a_where_reads_a_number_that_is_none(op: str) -> None:
    """A bound that is none must not be taken for no bound."""

    def build(g: Graph) -> str:
        x = g.input("x", "N", 4)
        zero = g.const(np.zeros(()))
        none = g.op("Div", zero, zero)
        if op in {"Equal", "IsNaN"}:
            told = g.op("IsNaN", none) if op == "IsNaN" else g.op("Equal", none, zero)
            return str(g.op("Where", told, x, g.op("Neg", x)))
        return str(g.op(op, x, none))

    doubted(written(build), written(build))
    doubted(written(lambda g: g.op("Identity", g.input("x", "N", 4))), written(build))


def joined(rows: str, *, ends: int = 0) -> ir.Model:
    """A value beside a constant of as many samples, and of no rows, or of some."""

    def build(g: Graph) -> str:
        x = g.input("x", "N", 3, 2)
        y = g.op("Relu", x)
        if rows == "nothing":
            return str(g.op("Identity", y))
        size = g.op("Shape", x, start=0, end=1)
        count = g.const([ends])
        if rows == "by size":
            line = g.op("Sub", g.op("Mul", size, g.const([5])), g.const([6]))
            count = g.op("Sub", g.op("Mul", size, size), line)
        shape = g.op("Concat", size, count, g.const([2]), axis=0)
        more = g.op("Mul", g.op("ConstantOfShape", shape), g.const(np.full((), -1e9)))
        return str(g.op("Concat", y, more, axis=1))

    return written(build)


def test_a_part_without_a_row_is_none() -> None:
    accepted(joined("as said"), joined("nothing"))


def test_a_part_that_is_empty_at_the_sizes_that_are_tried_is_one() -> None:
    """N * N - 5 * N + 6 rows: none for 2 and 3."""
    doubted(joined("by size"), joined("nothing"))
    doubted(joined("nothing"), joined("by size"))
    refused(joined("as said"), joined("as said", ends=1))


def test_an_empty_part_must_fit() -> None:
    def build(samples: int) -> Build:
        def inner(g: Graph) -> str:
            x = g.op("Relu", g.input("x", 2, 3))
            return str(g.op("Concat", x, g.const(np.zeros((samples, 0))), axis=1))

        return inner

    accepted(written(build(2)), written(build(2)))
    doubted(written(build(2)), written(build(1)))


def lengths(*casts: int) -> ir.Model:
    """The largest of whole numbers, cast once or more before."""

    def build(g: Graph) -> str:
        x = g.input("n", "N", dtype="int64")
        y = x
        for to in casts:
            y = g.op("Cast", y, to=to)
        largest = g.op("ReduceMax", y, keepdims=0)
        return str(g.op("Cast", largest, to=1))

    return written(build)


def test_a_cast_of_whole_numbers_to_the_type_that_they_are_of_is_none() -> None:
    accepted(lengths(7), lengths())
    accepted(lengths(), lengths(7, 7))


@pytest.mark.parametrize("to", [pytest.param(6, id="int32"), pytest.param(9, id="bool")])
def test_a_cast_to_another_type_is_one(to: int) -> None:
    refused(lengths(), lengths(to))
    refused(lengths(to), lengths())
    refused(lengths(7), lengths(to, 7))


def counted(add: float, times: float = 2.0, axis: int = 0) -> ir.Model:
    """What the rounds of a Loop give, whose number a body decides, times how many there were."""

    def build(g: Graph) -> str:
        x = g.input("x", 4)
        body = g.body()
        body.input(body.name("round"), dtype="int64")
        going, state = body.name("going"), body.name("state")
        body.input(going, dtype="bool")
        body.input(state, 4)
        y = body.op("Tanh", body.op("Add", state, body.const(np.full(4, add))))
        more = body.op("Less", body.op("ReduceMax", y, keepdims=0), body.const(np.full((), 0.9)))
        body.output(more, dtype="bool")
        body.output(body.op("Identity", y), shape=[4])
        body.output(body.op("Mul", y, body.const(np.full((), times))), shape=[4])
        limit, start = g.const(np.array(9)), g.const(np.array(1), dtype="bool")
        _, rounds = g.op("Loop", limit, start, x, body=body.graph(), outputs=2)
        size = g.op("Cast", g.op("Shape", rounds, start=axis, end=axis + 1), to=1)
        return str(g.op("Mul", g.op("ReduceSum", rounds, keepdims=0), size))

    return written(build)


def test_how_many_rounds_there_are_is_a_function_of_the_rounds() -> None:
    accepted(counted(0.5), counted(0.5))


@pytest.mark.parametrize("other", [counted(0.501), counted(0.5, times=2.001), counted(0.5, axis=1)])
def test_other_rounds_or_another_axis_of_them_are_seen(other: ir.Model) -> None:
    refused(counted(0.5), other)
