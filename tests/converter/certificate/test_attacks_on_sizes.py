"""Pairs that compute the same at the sizes that are tried, and not at others."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest

from converter.certificate import certify
from patterns.graphs import Graph
from tests.converter.certificate.pairs import Build, accepted, doubted, refused, written

END = 2**63 - 1


def size(g: Graph, of: str = "x", axis: int = 0) -> str:
    return str(g.op("Shape", of, start=axis, end=axis + 1))


def cut(end: Build) -> Build:
    """The first samples, as many as `end` says."""

    def build(g: Graph) -> str:
        x = g.input("x", "N", 4)
        return str(g.op("Slice", x, g.const([0]), end(g), g.const([0])))

    return build


def summed(g: Graph) -> str:
    """0 + 1 + .. + N - 1, less 2*N - 4."""
    n = g.op("Squeeze", size(g), g.const([0]))
    total = g.op("ReduceSum", g.op("Range", g.const(np.array(0)), n, g.const(np.array(1))))
    return str(
        g.op(
            "Reshape",
            g.op(
                "Sub",
                total,
                g.op("Sub", g.op("Mul", n, g.const(np.array(2))), g.const(np.array(4))),
            ),
            g.const([1]),
        )
    )


def other_than(number: int, at: int) -> Build:
    def end(g: Graph) -> str:
        there = g.op("Equal", size(g), g.const([at]))
        return str(g.op("Where", there, g.const([number]), g.const([1])))

    return end


FIRST: Build = lambda g: g.const([1])  # noqa: E731 - a table of builds


@pytest.mark.parametrize(
    "end",
    [
        pytest.param(lambda g: g.op("Div", size(g), g.const([2])), id="half of it"),
        pytest.param(summed, id="a sum"),
        pytest.param(lambda g: g.op("Mod", size(g), g.const([1000])), id="a remainder"),
        pytest.param(
            lambda g: g.op("Cast", g.op("Mul", g.op("Cast", size(g), to=1), g.const([0.4])), to=7),
            id="a float that is cut",
        ),
    ],
)
def test_two_sizes_do_not_tell_what_is_computed_of_them(end: Build) -> None:
    refused(written(cut(FIRST)), written(cut(end)))
    accepted(written(cut(end)), written(cut(end)))


@pytest.mark.parametrize(
    "end",
    [
        pytest.param(lambda g: g.op("Gather", g.const([7, 1, 1, 1, 1, 1, 1, 1, 1, 2]), size(g)),
                     id="a table"),
        pytest.param(other_than(2, 100), id="a comparison"),
    ],
)  # fmt: skip
def test_nor_where_it_is_the_same_at_all_that_are_tried(end: Build) -> None:
    refused(written(cut(FIRST)), written(cut(end)))
    doubted(written(cut(end)), written(cut(FIRST)))
    doubted(written(cut(end)), written(cut(end)))


def test_doing_as_much_with_sizes_is_not_doing_the_same() -> None:
    doubted(written(cut(other_than(1, 100))), written(cut(other_than(2, 100))))
    half = lambda g: g.op("Div", size(g), g.const([2]))  # noqa: E731
    rounded_up = lambda g: g.op("Div", g.op("Add", size(g), g.const([1])), g.const([2]))  # noqa: E731
    refused(written(cut(half)), written(cut(rounded_up)))
    doubted(written(cut(other_than(2, 99))), written(cut(other_than(2, 100))))


def test_a_size_that_was_moved_about_is_that_size() -> None:
    def moved(g: Graph) -> str:
        whole = g.op("Concat", g.const([7]), g.op("Shape", "x"), axis=0)
        return str(g.op("Gather", g.op("Cast", whole, to=7), g.const([1])))

    accepted(written(cut(size)), written(cut(moved)))
    accepted(written(cut(moved)), written(cut(size)))


def test_sizes_of_two_names_are_not_numbers_of_one() -> None:
    """2*2 + 1 = 5 and 2*3 + 1 = 7: the second name's sizes where the first one's are 2 and 3."""

    def build(end: Build) -> Build:
        def inner(g: Graph) -> str:
            x, z = g.input("x", "N", 4), g.input("z", "M", 4)
            part = g.op("Slice", z, g.const([0]), end(g), g.const([0]))
            return str(g.op("ReduceSum", g.op("Concat", x, part, axis=0), g.const([0])))

        return inner

    def twice(g: Graph) -> str:
        return str(g.op("Add", g.op("Mul", size(g), g.const([2])), g.const([1])))

    refused(written(build(lambda g: size(g, "z"))), written(build(twice)))


def test_an_attribute_that_only_a_size_reads_is_compared() -> None:
    """Rounding up or down is the same for all even sizes."""

    def build(ceil: int) -> Build:
        def inner(g: Graph) -> str:
            x = g.input("x", "N", 3, "H", "W")
            small = g.op("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2], ceil_mode=ceil)
            to = g.op("Concat", g.op("Shape", x, end=2), g.op("Shape", small, start=2), axis=0)
            return str(g.op("Resize", x, "", "", to, mode="nearest"))

        return inner

    refused(written(build(0)), written(build(1)))


def taken(kind: str) -> Build:
    def build(g: Graph) -> str:
        x, ends = g.input("x", "N", 4), {"but the last": -1, "first": 1, "first two": 2}
        if kind == "half":
            return str(g.op("Split", x, outputs=2, axis=0, num_outputs=2)[0])
        if kind == "every third":
            return str(g.op("Slice", x, g.const([0]), g.const([END]), g.const([0]), g.const([3])))
        if kind == "gathered":
            return str(g.op("Gather", x, g.const([0, 1]), axis=0))
        return str(g.op("Slice", x, g.const([0]), g.const([ends[kind]]), g.const([0])))

    return build


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("half", "but the last"),
        ("every third", "first"),
        ("first", "but the last"),
    ],
)
def test_parts_of_an_axis_of_open_size_are_not_the_same_by_chance(one: str, other: str) -> None:
    for first, second in ((one, other), (other, one)):
        refused(written(taken(first)), written(taken(second)))


def test_a_single_sample_is_tried_where_the_original_can_be_computed_with_it() -> None:
    """It has no second sample to gather, but a Slice takes what is there."""
    refused(written(taken("first two")), written(taken("gathered")))
    accepted(written(taken("gathered")), written(taken("first two")))


@pytest.mark.parametrize("kind", ["half", "every third"])
def test_a_batch_norm_passes_a_part_of_an_axis(kind: str) -> None:
    def build(before: bool) -> Build:
        def inner(g: Graph) -> str:
            factor = g.const(np.array([1.0, 2.0, 3.0, 4.0]))
            y = taken(kind)(g)
            if not before:
                return str(g.op("Mul", y, factor))
            first = g.nodes[0]
            first.input[0] = g.op("Mul", "x", factor)
            g.nodes.append(g.nodes.pop(0))
            return y

        return inner

    accepted(written(build(True)), written(build(False)))


def test_what_is_squeezed_without_axes_depends_on_the_sizes() -> None:
    def build(op: str) -> Build:
        return lambda g: str(g.op(op, g.input("x", "N", 4)))

    doubted(written(build("Squeeze")), written(build("Identity")))
    refused(written(build("Identity")), written(build("Squeeze")))


def test_what_is_squeezed_without_axes_is_known_where_all_sizes_are() -> None:
    def build(*axes: int) -> Build:
        return lambda g: str(g.op("Squeeze", g.input("x", 2, 1, 4), *[g.const([a]) for a in axes]))

    accepted(written(build()), written(build(1)))


def test_a_reshape_to_numbers_fits_one_batch_only() -> None:
    def build(*to: int) -> Build:
        return lambda g: str(g.op("Reshape", g.input("x", "N", 2, 6), g.const(list(to))))

    accepted(written(build(0, -1)), written(build(-1, 12)))
    refused(written(build(0, -1)), written(build(2, -1)))
    refused(written(build(0, 12)), written(build(-1, 6)))


def test_sizes_that_are_named_alike_are_alike() -> None:
    def build(left: int) -> Callable[[], ir.Model]:
        def inner() -> ir.Model:
            g = Graph("float32")
            values = [g.input("x", "N", 4), g.input("z", "N", 4)]
            to = g.op("Concat", size(g, "xz"[left]), g.const([2, 2]), axis=0)
            g.output(g.op("Reshape", g.op("Add", *values), to))
            return g.model()

        return inner

    accepted(build(0)(), build(1)())


def test_an_if_on_a_size_is_in_doubt() -> None:
    def build(number: float) -> ir.Model:
        g = Graph("float32")
        x = g.input("x", "N", 4)
        large = g.op("Greater", g.op("Squeeze", size(g)), g.const(np.array(100)))
        one, two = g.body(), g.body()
        one.output(one.op("Mul", x, one.const(np.full(4, number))), shape=["N", 4])
        two.output(two.op("Relu", x), shape=["N", 4])
        g.output(g.op("If", large, then_branch=one.graph(), else_branch=two.graph()))
        return g.model()

    assert not certify(build(1.0), build(2.0))
