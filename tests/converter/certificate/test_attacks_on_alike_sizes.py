"""Pairs that are the same as long as a size is what it is, by chance, at all that are tried."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from converter.certificate.sizes import attempts
from patterns.graphs import Graph
from tests.converter.certificate.pairs import Build, accepted, doubted, refused, written


def strided(stride: int, taps: int = 1, cut: int | None = None) -> ir.Model:
    """A convolution with a large stride, and what a constant bound leaves of its windows."""

    def build(g: Graph) -> str:
        x = g.input("x", "N", 3, "T")
        weight = np.random.default_rng(0).normal(size=(4, 3, taps))
        y = g.op("Conv", x, g.const(weight), strides=[stride])
        if cut is not None:
            y = g.op("Slice", y, g.const([0]), g.const([cut]), g.const([2]))
        return str(y)

    return written(build)


@pytest.mark.parametrize(("stride", "taps"), [(128, 1), (200, 100)])
def test_one_window_at_all_sizes_that_are_tried_is_not_one_window(stride: int, taps: int) -> None:
    refused(strided(stride, taps), strided(stride, taps, cut=1))


def test_where_no_size_tells_nothing_is_certified() -> None:
    """One window at every size that is tried, and more of them at others."""
    found = doubted(strided(20_000), strided(20_000))
    assert "axis 2 of 'y' has the size 1 at all sizes that were tried" in found.reason


def eighth(g: Graph) -> str:
    """ceil(N / 8), which is 1 at the sizes that are tried."""
    size = g.op("Shape", "x", start=0, end=1)
    return str(g.op("Div", g.op("Add", size, g.const([7])), g.const([8])))


def as_number(end: Build) -> Build:
    return lambda g: str(g.op("Add", g.input("x", "N", 4), g.op("Cast", end(g), to=1)))


def as_place(end: Build) -> Build:
    return lambda g: str(g.op("Gather", g.input("x", "N", 4), end(g), axis=1))


def as_bound(end: Build) -> Build:
    def build(g: Graph) -> str:
        x = g.input("x", "N", 4)
        return str(g.op("Slice", x, g.const([0]), end(g), g.const([1])))

    return build


def as_count(end: Build) -> Build:
    """The numbers below it, each as a place."""

    def build(g: Graph) -> str:
        x = g.input("x", "N", 4)
        last = g.op("Squeeze", end(g), g.const([0]))
        places = g.op("Range", g.const(np.array(0)), last, g.const(np.array(1)))
        return str(g.op("Gather", x, places, axis=1))

    return build


def as_output(end: Build) -> Build:
    def build(g: Graph) -> str:
        x = g.input("x", "N", 4)
        return str(g.op("Mul", g.op("Cast", end(g), to=1), g.op("ReduceMean", x, keepdims=0)))

    return build


@pytest.mark.parametrize("read", [as_number, as_place, as_bound, as_count, as_output])
def test_a_number_that_is_one_at_all_sizes_that_are_tried_is_not_one(read: object) -> None:
    assert callable(read)
    doubted(written(read(eighth)), written(read(lambda g: str(g.const([1])))))


def test_a_product_of_sizes_is_no_other_axis() -> None:
    """N * N and 5 * N - 6 are the same for 2 and 3."""

    def square(g: Graph) -> str:
        size = g.op("Shape", "x", start=0, end=1)
        return str(g.op("Mul", size, size))

    def line(g: Graph) -> str:
        size = g.op("Shape", "x", start=0, end=1)
        return str(g.op("Sub", g.op("Mul", size, g.const([5])), g.const([6])))

    refused(written(as_number(line)), written(as_number(square)))
    refused(written(as_number(square)), written(as_number(line)))


def test_a_size_that_a_product_leaves_is_known() -> None:
    """Heads merged with the batch, as exporters write them, and the same in one step."""

    def build(*, two: bool) -> Build:
        def inner(g: Graph) -> str:
            x = g.input("x", "N", 7, 5)
            if not two:
                return str(g.op("Relu", x))
            size = g.op("Shape", x, start=0, end=1)
            merged = g.op("Concat", g.op("Mul", size, g.const([7])), g.const([-1]), axis=0)
            y = g.op("Relu", g.op("Reshape", x, merged))
            return str(g.op("Reshape", y, g.op("Concat", size, g.const([7, -1]), axis=0)))

        return inner

    accepted(written(build(two=True)), written(build(two=False)))
    accepted(written(build(two=True)), written(build(two=True)))


def test_an_axis_may_be_called_as_the_checker_calls_one() -> None:
    """A name of an input's axis that looks like a product of others is no product."""

    def build(target: list[int]) -> Build:
        def inner(g: Graph) -> str:
            x = g.input("x", "N", 3)
            g.input("z", "3 * N", 1)
            return str(g.op("Relu", g.op("Reshape", x, g.const(target))))

        return inner

    accepted(written(build([-1, 1])), written(build([-1, 1])))
    refused(written(build([-1, 1])), written(build([1, -1])))


def looped(grow: int) -> Build:
    """Rounds whose state gets shorter, or another number from its own size, by `grow`."""

    def build(g: Graph) -> str:
        x = g.input("x", "N", 4)
        body = g.body()
        body.input(body.name("round"), dtype="int64")
        going, state = body.name("going"), body.name("state")
        body.input(going, dtype="bool")
        body.input(state, "N", 4)
        size = body.op("Cast", body.op("Shape", state, start=1, end=2), to=1)
        y = body.op("Tanh", body.op("Mul", state, size if not grow else body.const([float(grow)])))
        body.output(body.op("Identity", going), dtype="bool")
        body.output(y, shape=["N", 4])
        times, start = g.const(np.array(3)), g.const(np.array(1), dtype="bool")
        return str(g.op("Loop", times, start, x, body=body.graph()))

    return build


def test_a_state_is_as_long_in_every_round() -> None:
    accepted(written(looped(0)), written(looped(4)))
    accepted(written(looped(4)), written(looped(0)))
    refused(written(looped(0)), written(looped(3)))


def test_a_number_without_an_axis_is_not_one_with() -> None:
    """What has been rearranged of it, too."""

    def build(*ops: str) -> ir.Model:
        def inner(g: Graph) -> str:
            y = g.op("ReduceSum", g.input("x", 2, 4), keepdims=0)
            for op in ops:
                y = g.op(op, y, *([] if op == "Identity" else [g.const([1])]))
            return str(y)

        return written(inner)

    accepted(build(), build("Identity"))
    for number in (build(), build("Identity")):
        refused(number, build("Reshape"))
        refused(build("Reshape"), number)


def placed(*, by_size: bool = False) -> Build:
    """Positions as sines and cosines of what a Range counts, added to what has them."""

    def build(g: Graph) -> str:
        x = g.input("x", "N", "T", 4)
        size = g.op("Shape", x, start=1, end=2)
        last = g.op("Squeeze", size, g.const([0]))
        places = g.op("Range", g.const(np.array(0)), last, g.const(np.array(1)))
        places = g.op("Cast", places, to=1)
        if by_size:
            quotient = g.op("Div", g.op("Add", size, g.const([99_999])), g.const([100_000]))
            places = g.op("Mul", places, g.op("Cast", quotient, to=1))
        angles = g.op("Einsum", places, g.const([1.0, 0.1]), equation="i,j->ij")
        parts = [g.op("Sin", angles), g.op("Cos", angles)]
        return str(g.op("Add", x, g.op("Concat", *parts, axis=-1)))

    return build


def test_positions_are_the_same_at_any_length() -> None:
    accepted(written(placed()), written(placed()))


def test_positions_that_are_multiplied_by_what_is_one_by_chance_are_not() -> None:
    """ceil(T / 100,000) times each place."""
    doubted(written(placed(by_size=True)), written(placed()))
    doubted(written(placed()), written(placed(by_size=True)))


def of_several(read: int, inputs: int = 5, added: int = 1) -> Build:
    """The first of several inputs, or a sum of some, times how many samples the one read has."""

    def build(g: Graph) -> str:
        given = [g.input(f"x{i}", f"N{i}", 4) for i in range(inputs)]
        y = given[0]
        for other in given[1:added]:
            y = g.op("Add", y, other)
        size = g.op("Shape", given[read], start=0, end=1)
        return str(g.op("Mul", y, g.op("Cast", size, to=1)))

    return build


@pytest.mark.parametrize("other", range(1, 5))
def test_no_two_names_have_the_same_sizes(other: int) -> None:
    refused(written(of_several(0)), written(of_several(other)))


def test_no_two_names_of_other_axes_have_the_same_sizes() -> None:
    def build(axis: int) -> Build:
        def inner(g: Graph) -> str:
            x = g.input("x", "N", "A", "B", "C", "D")
            size = g.op("Shape", x, start=axis, end=axis + 1)
            return str(g.op("Mul", x, g.op("Cast", size, to=1)))

        return inner

    for axis in range(2, 5):
        refused(written(build(1)), written(build(axis)))


def test_only_names_that_the_original_needs_equal_are_taken_as_equal() -> None:
    """x0 + x1 says that these two are as long, and nothing of the third."""
    accepted(written(of_several(0, 3, 2)), written(of_several(1, 3, 2)))
    refused(written(of_several(0, 3, 2)), written(of_several(2, 3, 2)))
    accepted(written(of_several(0, 4, 3)), written(of_several(2, 4, 3)))
    refused(written(of_several(0, 4, 3)), written(of_several(3, 4, 3)))


def test_no_two_names_of_any_number_of_them_have_the_same_sizes() -> None:
    names = [f"N{i}" for i in range(12)]

    def build(g: Graph) -> str:
        first, *_ = [g.input(name, name, f"of {name}") for name in names]
        return str(g.op("Relu", first))

    given = written(build)
    runs = next(attempts(given))
    tried = [tuple(run[name] for run in runs) for name in runs[0]]
    assert len(tried) == len(set(tried)) == 2 * len(names)
    assert all(one != other for one, other in tried)


def as_rounds(end: Build) -> Build:
    """So many rounds, each of which adds what the graph around it has."""

    def build(g: Graph) -> str:
        x = g.input("x", "N", 4)
        total = g.op("ReduceSum", x, g.const([0]), keepdims=0)
        body = g.body()
        body.input(body.name("round"), dtype="int64")
        going, state = body.name("going"), body.name("state")
        body.input(going, dtype="bool")
        body.input(state, 4)
        body.output(body.op("Identity", going), dtype="bool")
        body.output(body.op("Tanh", body.op("Add", state, total)), shape=[4])
        times, start = g.op("Squeeze", end(g), g.const([0])), g.const(np.array(1), dtype="bool")
        return str(g.op("Loop", times, start, g.const(np.ones(4)), body=body.graph()))

    return build


def test_a_number_of_rounds_that_is_one_at_all_sizes_that_are_tried_is_not_one() -> None:
    doubted(written(as_rounds(eighth)), written(as_rounds(lambda g: str(g.const([1])))))


def last_of_a_range(how: str) -> Build:
    """(N - 1) / 8, from the last place of a Range of N."""

    def build(g: Graph) -> str:
        size = g.op("Squeeze", g.op("Shape", "x", start=0, end=1), g.const([0]))
        places = g.op("Range", g.const(np.array(0)), size, g.const(np.array(1)))
        if how == "Gather":
            last = g.op("Gather", places, g.const([-1]))
        else:
            bounds = [g.const([n]) for n in (2**40, -(2**40), 0, -1)]
            turned = g.op("Slice", places, *bounds)
            last = g.op("Gather", turned, g.const([0]))
        return str(g.op("Div", last, g.const([8])))

    return build


@pytest.mark.parametrize("how", ["Gather", "Slice"])
def test_the_last_place_is_another_at_another_size(how: str) -> None:
    zero: Build = lambda g: str(g.const([0]))  # noqa: E731
    doubted(written(as_number(last_of_a_range(how))), written(as_number(zero)))


def test_how_long_one_constant_is_does_not_say_how_long_another_is() -> None:
    def build(read: int) -> Build:
        def inner(g: Graph) -> str:
            x = g.input("x", "N", 4)
            size = g.op("Shape", x, start=0, end=1)
            longer = g.op("Sub", g.op("Mul", size, g.const([5])), g.const([6]))
            square = g.op("Mul", size, size)
            zero = g.const([0.0])
            both = [g.op("Expand", zero, n) for n in (longer, square)]
            sizes = [g.op("Cast", g.op("Shape", one), to=1) for one in both]
            sums = [g.op("ReduceSum", one, keepdims=0) for one in both]
            y = g.op("Add", g.op("Add", x, sums[0]), sums[1])
            return str(g.op("Mul", y, sizes[read]))

        return inner

    doubted(written(build(0)), written(build(1)))
    doubted(written(build(1)), written(build(0)))


def test_nor_does_the_second_graph_have_what_is_one_by_chance() -> None:
    """What is added and taken away again has as many windows as a stride leaves."""

    def build(*, more: bool) -> Build:
        def inner(g: Graph) -> str:
            x = g.input("x", "N", 3, "T")
            y = g.op("ReduceMean", x, g.const([2]))
            if more:
                weight = g.const(np.random.default_rng(0).normal(size=(3, 3, 1)))
                z = g.op("Conv", x, weight, strides=[20_000])
                y = g.op("Add", g.op("Sub", y, z), z)
            return str(g.op("Relu", y))

        return inner

    refused(written(build(more=False)), written(build(more=True)))


@pytest.mark.parametrize("read", [as_number, as_place, as_bound, as_count])
def test_nor_does_it_read_what_the_original_computes_for_nothing(read: object) -> None:
    assert callable(read)

    def dead(g: Graph) -> str:
        eighth(g)
        return str(g.const([1]))

    doubted(written(read(dead)), written(read(eighth)))
