"""Pairs that differ by more than k roundings, made to look as if a rounding excused it."""

from __future__ import annotations

import numpy as np
import pytest

from patterns.graphs import Graph
from tests.converter.certificate.pairs import Build, accepted, refused, written

U = 2.0**-24
LARGE = 1e6


def shifted(*terms: float, first: str = "Identity") -> Build:
    def build(g: Graph) -> str:
        x = g.op(first, g.input("x", "N", 4))
        for term in terms:
            x = g.op("Add", x, g.const(np.full(4, term)))
        return str(g.op("Sigmoid", x))

    return build


@pytest.mark.parametrize("first", ["Identity", "Relu"])
def test_terms_that_cancel_excuse_nothing_that_the_original_does_not_add(first: str) -> None:
    """A rounding of 1e6 is 0.06."""
    one = written(shifted(0.5, first=first))
    refused(one, written(shifted(LARGE, 0.25 - LARGE, first=first)))
    refused(one, written(shifted(LARGE, -LARGE, 0.4, first=first)))
    accepted(one, written(shifted(8.0, 0.5 - 8.0, first=first)))


def test_a_factor_that_is_left_of_large_terms_is_no_factor_that_is_known() -> None:
    def build(of: Build) -> Build:
        def inner(g: Graph) -> str:
            x, z = g.input("x", "N", 4), g.input("z", "N", 4)
            zero = g.op("Mul", z, g.const(np.zeros(4)))
            return str(g.op("Sigmoid", g.op("Mul", x, g.op("Add", zero, of(g)))))

        return inner

    def cancelled(g: Graph) -> str:
        zero = g.op("Mul", "z", g.const(np.zeros(4)))
        large = g.op("Add", zero, g.const(np.full(4, 10 * LARGE)))
        return str(g.op("Add", large, g.const(np.full(4, 1.0 - 10 * LARGE))))

    one = written(build(lambda g: g.const(np.full(4, 0.5))))
    refused(one, written(build(cancelled)))
    refused(one, written(build(lambda g: g.const(np.full(4, 0.5000001)))))


def test_a_bound_that_is_left_of_large_terms_is_refused() -> None:
    """The shift before a Relu is a bound behind it."""

    def build(*terms: float) -> Build:
        def inner(g: Graph) -> str:
            x = g.input("x", "N", 4)
            for term in terms:
                x = g.op("Add", x, g.const(np.full(4, term)))
            return str(g.op("Tanh", g.op("Relu", x)))

        return inner

    refused(written(build(0.5)), written(build(LARGE, 0.45 - LARGE)))


@pytest.mark.parametrize("op", ["MatMul", "Conv"])
@pytest.mark.parametrize("by", [2.0, 6.0, 1e6])
def test_a_weight_is_moved_by_three_roundings_and_no_more(op: str, by: float) -> None:
    def build(more: float) -> Build:
        def inner(g: Graph) -> str:
            weight = np.random.default_rng(3).uniform(1.0, 1.99, (4, 4)).astype(np.float32)
            weight[1, 2] = np.float32(float(weight[1, 2]) * (1 + more * 2 * U))
            if op == "MatMul":
                return str(g.op(op, g.input("x", "N", 4), g.const(weight)))
            return str(g.op(op, g.input("x", "N", 4, 3, 3), g.const(weight.reshape(4, 4, 1, 1))))

        return inner

    if by > 3:
        refused(written(build(0)), written(build(by)))
    else:
        accepted(written(build(0)), written(build(by / 2)))


def test_a_drift_in_one_row_of_every_layer_is_seen() -> None:
    def build(factor: float) -> Build:
        def inner(g: Graph) -> str:
            x = g.input("x", "N", 4)
            for layer in range(12):
                weight = np.random.default_rng(layer).standard_normal((4, 4))
                weight[:, 1] *= factor
                x = g.op("LeakyRelu", g.op("MatMul", x, g.const(weight)), alpha=0.5)
            return str(g.op("Sigmoid", x))

        return inner

    accepted(written(build(1.0)), written(build(1 + U)))
    refused(written(build(1.0)), written(build(1 + 8 * U)))


def test_scales_that_undo_each_other_a_layer_later_are_no_drift() -> None:
    def build(factor: float) -> Build:
        def inner(g: Graph) -> str:
            one, two = (np.random.default_rng(i).standard_normal((4, 4)) for i in (0, 1))
            x = g.op("Relu", g.op("MatMul", g.input("x", "N", 4), g.const(one * factor)))
            return str(g.op("Sigmoid", g.op("MatMul", x, g.const(two / factor))))

        return inner

    accepted(written(build(1.0)), written(build(2.0)))
    refused(written(build(1.0)), written(build(-2.0)))


def test_a_row_that_fits_with_another_factor_is_not_taken_with_it_twice() -> None:
    """Each channel is a multiple of the original's by itself; what reads them must undo that."""

    def build(factors: np.ndarray, back: np.ndarray) -> Build:
        def inner(g: Graph) -> str:
            weight = np.random.default_rng(0).standard_normal((4, 4))
            x = g.op("Relu", g.op("MatMul", g.input("x", "N", 4), g.const(weight * factors)))
            return str(g.op("MatMul", x, g.const(np.eye(4) * back[:, None])))

        return inner

    one, factors = np.ones(4), np.array([1.0, 2.0, 4.0, 8.0])
    accepted(written(build(one, one)), written(build(factors, 1 / factors)))
    refused(written(build(one, one)), written(build(factors, 1 / factors[::-1])))
    refused(written(build(one, one)), written(build(factors, np.array([1, 0.5, 0.25, 0.12501]))))


def test_a_dead_channel_excuses_nothing_behind_it() -> None:
    def build(weight: float, bias: float) -> Build:
        def inner(g: Graph) -> str:
            first = np.array([[1.0, 0.0], [2.0, 0.0]])
            x = g.op("MatMul", g.input("x", "N", 2), g.const(first))
            x = g.op("Add", x, g.const(np.array([0.5, bias])))
            return str(g.op("Tanh", g.op("MatMul", x, g.const(np.array([[1.0], [weight]])))))

        return inner

    one = written(build(3.0, 0.25))
    refused(one, written(build(3.1, 0.25)))
    refused(one, written(build(3.0, 0.26)))
    accepted(one, written(build(1.5, 0.5)))


def test_a_bound_of_a_clip_is_compared_where_it_is_large() -> None:
    def build(high: float) -> Build:
        return lambda g: str(
            g.op("Clip", g.input("x", "N", 4), g.const(np.zeros(())), g.const(np.full((), high)))
        )

    refused(written(build(6.0)), written(build(6.0 * (1 + 10 * U))))
    refused(written(build(3e38)), written(build(2e38)))
    accepted(written(build(6.0)), written(build(6.0)))


@pytest.mark.parametrize("op", ["MatMul", "Conv"])
def test_weights_that_cancel_excuse_nothing(op: str) -> None:
    """A rounding of 2^20 is 0.06."""

    def build(*weights: np.ndarray) -> Build:
        def inner(g: Graph) -> str:
            x = g.input("x", "N", 4) if op == "MatMul" else g.input("x", "N", 4, 3, 3)
            size = (4, 4) if op == "MatMul" else (4, 4, 1, 1)
            y = [g.op(op, x, g.const(weight.reshape(size))) for weight in weights]
            return str(y[0] if len(y) == 1 else g.op("Add", *y))

        return inner

    weight = np.random.default_rng(0).standard_normal((4, 4))
    large, small = np.full((4, 4), 2.0**20), np.full((4, 4), 0.5)
    refused(written(build(weight)), written(build(large, 1.1 * weight - large)))
    refused(written(build(weight)), written(build(large, 1.001 * weight - large)))
    accepted(written(build(weight)), written(build(small, weight - small)))
    accepted(written(build(small, weight - small)), written(build(weight)))


def looked_up(change: float = 0.0, scale: float = 1.0, shift: float = 0.0) -> Build:
    def build(g: Graph) -> str:
        table = np.random.default_rng(0).standard_normal((5, 3))
        table[0] = LARGE
        table[2, 1] += change
        if scale != 1.0:
            table = table * scale + shift
        y = g.op("Gather", g.const(table), g.input("x", "N", dtype="int64"))
        return str(g.op("Sigmoid", y))

    return build


def test_a_large_row_of_a_table_excuses_none_of_the_others() -> None:
    refused(written(looked_up()), written(looked_up(0.1)))
    refused(written(looked_up()), written(looked_up(1e-5)))
    accepted(written(looked_up()), written(looked_up()))


def test_a_table_takes_up_a_factor_and_a_shift() -> None:
    def normalised(g: Graph) -> str:
        table = np.random.default_rng(1).standard_normal((50, 3))
        y = g.op("Gather", g.const(table), g.input("x", "N", dtype="int64"))
        return str(g.op("Sigmoid", g.op("Add", g.op("Mul", y, g.const(np.array([1.5, -2.0, 0.7]))),
                                        g.const(np.array([0.1, 0.2, -0.3])))))  # fmt: skip

    def taken_up(by: float) -> Build:
        def build(g: Graph) -> str:
            table = np.random.default_rng(1).standard_normal((50, 3)).astype(np.float32)
            factor = np.array([1.5, -2.0, 0.7], np.float32).astype(float)
            shift = np.array([0.1, 0.2, -0.3], np.float32).astype(float)
            table = table * factor + shift
            table[7, 1] += by
            y = g.op("Gather", g.const(table), g.input("x", "N", dtype="int64"))
            return str(g.op("Sigmoid", y))

        return build

    accepted(written(normalised), written(taken_up(0.0)))
    refused(written(normalised), written(taken_up(1e-5)))


def test_what_a_convolution_reads_around_a_value_is_not_what_another_one_reads() -> None:
    """One is padded with zeros; the other reads a value that was padded with a half."""

    def build(*, merged: bool) -> Build:
        def inner(g: Graph) -> str:
            x, rng = g.input("x", "N", 2, 5, 5), np.random.default_rng(0)
            one, two = (rng.standard_normal((2, 2, 3, 3)).astype(np.float32) for _ in range(2))
            wide = g.op("Pad", x, g.const([0, 0, 1, 1] * 2), g.const(np.full((), 0.5)))
            if merged:
                return str(g.op("Conv", wide, g.const(one + two)))
            first = g.op("Conv", x, g.const(one), pads=[1, 1, 1, 1])
            return str(g.op("Add", first, g.op("Conv", wide, g.const(two))))

        return inner

    refused(written(build(merged=False)), written(build(merged=True)))
    refused(written(build(merged=True)), written(build(merged=False)))
