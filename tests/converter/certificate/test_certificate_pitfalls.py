"""What was a false certificate once, in a prototype: one test each, with the right graph beside."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest

from converter.certificate import NotCertified, certify
from converter.certificate.forms import Form
from converter.certificate.verdict import Differs, near
from patterns.graphs import Graph
from tests.converter.certificate.pairs import accepted, doubted, refused, written

U = 2.0**-24


def split(place: int) -> Callable[[Graph], str]:
    def build(g: Graph) -> str:
        return str(g.op("Split", g.input("x", "N", 4), outputs=2, axis=1, num_outputs=2)[place])

    return build


def test_the_results_of_a_split_are_not_one_value() -> None:
    accepted(written(split(0)), written(split(0)))
    refused(written(split(0)), written(split(1)))


def test_the_default_of_an_input_is_part_of_the_graph() -> None:
    def build(default: float) -> Callable[[Graph], str]:
        def inner(g: Graph) -> str:
            c = g.const(np.full(4, default), "c", overridable=True)
            return str(g.op("Add", g.input("x", "N", 4), c))

        return inner

    accepted(written(build(1.0)), written(build(1.0)))
    assert "default" in refused(written(build(1.0)), written(build(2.0))).reason


@pytest.mark.parametrize("op", ["Max", "Min"])
def test_the_largest_number_is_no_infinity_on_the_wrong_side(op: str) -> None:
    largest = float(np.finfo(np.float32).max) * (1 if op == "Max" else -1)

    def clamped(g: Graph) -> str:
        return str(g.op(op, g.input("x", "N", 4), g.const(np.full((), largest))))

    refused(written(lambda g: str(g.op("Identity", g.input("x", "N", 4)))), written(clamped))
    accepted(written(clamped), written(clamped))


def test_an_infinite_bound_on_the_wrong_side_is_refused() -> None:
    def clamped(g: Graph) -> str:
        return str(g.op("Max", g.input("x", "N", 4), g.const(np.full((), np.inf))))

    assert "wrong side" in doubted(written(clamped), written(clamped)).reason


def test_a_negative_bound_allows_nothing() -> None:
    one = np.ones(1)
    with pytest.raises(Differs, match="negative"):
        near(one, one, -one, "it")
    assert near(one, one, np.ones(3), "it") == 0.0  # a bound of more numbers than are compared
    with pytest.raises(AssertionError):
        Form((1,), {}, one, -one)


def test_what_a_graph_declares_of_its_outputs_is_not_believed() -> None:
    def build(op: str) -> ir.Model:
        g = Graph("float32")
        g.output(g.rename(g.op(op, g.input("x", "N", 2, 2)), "y"), shape=["N", 4])
        return g.model()

    accepted(build("Flatten"), build("Flatten"))
    refused(build("Flatten"), build("Identity"))


def test_magnitudes_of_the_original_excuse_nothing() -> None:
    """1e6 - 1e6 is exact in the original; the other graph has only 0.51 to round."""

    def through(g: Graph) -> str:
        x = g.op("Add", g.input("x", "N", 4), g.const(np.full(4, 1e6)))
        return str(g.op("Add", x, g.const(np.full(4, -1e6 + 0.5))))

    def direct(number: float) -> Callable[[Graph], str]:
        return lambda g: str(g.op("Add", g.input("x", "N", 4), g.const(np.full(4, number))))

    accepted(written(through), written(direct(0.5)))
    refused(written(through), written(direct(0.501)))


def chain(last: float) -> Callable[[Graph], str]:
    """Linear layers with large biases, and a small one at the end."""

    def build(g: Graph) -> str:
        x = g.input("x", "N", 8)
        for _ in range(6):
            x = g.op("Add", g.op("MatMul", x, g.weight(8, 8)), g.const(np.full(8, 100.0)))
        return str(g.op("Add", g.op("MatMul", x, g.weight(8, 8)), g.const(np.full(8, last))))

    return build


def test_a_bias_is_checked_by_itself_behind_a_chain_of_linear_ops() -> None:
    accepted(written(chain(1e-3)), written(chain(1e-3 * (1 + U))))
    refused(written(chain(1e-3)), written(chain(1e-3 * (1 + 40 * U))))


def test_a_size_that_holds_for_one_batch_is_refused() -> None:
    def build(first: int) -> Callable[[Graph], str]:
        def inner(g: Graph) -> str:
            return str(g.op("Reshape", g.input("x", "N", 2, 3), g.const([first, 6])))

        return inner

    accepted(written(build(-1)), written(build(0)))
    refused(written(build(-1)), written(build(2)))


def test_a_slice_that_is_whole_for_small_batches_is_refused() -> None:
    def build(g: Graph) -> str:
        x = g.input("x", "N", 4)
        return str(g.op("Slice", x, g.const([0]), g.const([3]), g.const([0])))

    refused(written(lambda g: str(g.op("Identity", g.input("x", "N", 4)))), written(build))


def test_heads_that_are_merged_with_the_batch_keep_their_scales() -> None:
    def build(scales: list[float], *, before: bool) -> Callable[[Graph], str]:
        def inner(g: Graph) -> str:
            x, to = g.input("x", "N", 2, 3, 4), g.const([-1, 3, 4])
            factor = g.const(np.array(scales).reshape(1, 2, 1, 1))
            if before:
                return str(g.op("Reshape", g.op("Mul", x, factor), to))
            y = g.op("Mul", g.op("Reshape", g.op("Reshape", x, to), g.const([-1, 2, 3, 4])), factor)
            return str(g.op("Reshape", y, to))

        return inner

    one = written(build([2.0, 3.0], before=True))
    accepted(one, written(build([2.0, 3.0], before=False)))
    refused(one, written(build([3.0, 2.0], before=False)))
    refused(one, written(build([3.0, 2.0], before=True)))


def test_a_drift_that_is_the_same_in_every_layer_is_seen_at_the_end() -> None:
    def build(factor: float) -> Callable[[Graph], str]:
        def inner(g: Graph) -> str:
            x = g.input("x", "N", 4)
            for _ in range(40):
                x = g.op("Relu", g.op("MatMul", x, g.const(g.rng.standard_normal((4, 4)) * factor)))
            return str(g.op("Sigmoid", x))

        return inner

    one = written(build(1.0))
    accepted(one, written(build(1 + U)))  # each is one rounding off, and is taken for that
    refused(one, written(build(1 + 6 * U)))


def test_the_default_of_epsilon_is_a_float32() -> None:
    """In float64 1e-5 is another number: 1,300 roundings."""
    gamma, beta, mean, var = np.ones(4), np.zeros(4), np.zeros(4), np.full(4, 1e-3)

    def norm(g: Graph) -> str:
        parts = [g.const(values) for values in (gamma, beta, mean, var)]
        return str(g.op("BatchNormalization", g.input("x", "N", 4), *parts))

    def folded(epsilon: float) -> Callable[[Graph], str]:
        def inner(g: Graph) -> str:
            return str(g.op("Mul", g.input("x", "N", 4), g.const(gamma / np.sqrt(var + epsilon))))

        return inner

    one = written(norm, "float64")
    accepted(one, written(folded(float(np.float32(1e-5))), "float64"))
    refused(one, written(folded(1e-5), "float64"))


def test_a_subnormal_weight_is_rounded_by_half_of_the_smallest_number() -> None:
    factor = np.full(4, 1e-40)

    def apart(g: Graph) -> str:
        y = g.op("MatMul", g.input("x", "N", 4), g.weight(4, 4))
        return str(g.op("Mul", g.op("Mul", y, g.const(np.full(4, 1e-20))),
                        g.const(factor / 1e-20)))  # fmt: skip

    def folded(more: float) -> Callable[[Graph], str]:
        def inner(g: Graph) -> str:
            x = g.input("x", "N", 4)
            weight = g.rng.standard_normal((4, 4)).astype(np.float32).astype(float)
            small = np.float64(np.float32(1e-20)) * np.float64(np.float32(1e-40 / 1e-20))
            return str(g.op("MatMul", x, g.const(weight * small * more)))

        return inner

    accepted(written(apart), written(folded(1.0)))
    refused(written(apart), written(folded(1.01)))


def test_any_exception_means_not_certified() -> None:
    found = certify(None, None)  # type: ignore[arg-type]
    assert isinstance(found, NotCertified)
    assert "the check failed" in found.reason


def test_float64_has_roundings_of_its_own() -> None:
    def build(factor: float) -> Callable[[Graph], str]:
        return lambda g: str(
            g.op("MatMul", g.input("x", "N", 4), g.const(g.rng.standard_normal((4, 4)) * factor))
        )

    one = written(build(1.0), "float64")
    accepted(one, written(build(1 + 2.0**-50), "float64"))
    refused(one, written(build(1 + 2.0**-40), "float64"))


def test_a_branch_that_is_never_taken_is_checked() -> None:
    def build(number: float) -> ir.Model:
        g = Graph("float32")
        condition, x = g.input("condition", dtype="bool"), g.input("x", "N", 4)
        one, two = g.body(), g.body()
        one.output(one.op("Relu", x), shape=["N", 4])
        two.output(two.op("Mul", x, two.const(np.full(4, number))), shape=["N", 4])
        g.output(g.op("If", condition, then_branch=one.graph(), else_branch=two.graph()))
        return g.model()

    accepted(build(2.0), build(2.0))
    refused(build(2.0), build(2.001))


def test_random_numbers_are_not_certified() -> None:
    def build(g: Graph) -> str:
        return str(g.op("Add", g.input("x", 2, 4), g.op("RandomNormalLike", "x")))

    assert "random" in doubted(written(build), written(build)).reason


def test_a_difference_is_told_where_it_is() -> None:
    def build(last: float) -> Callable[[Graph], str]:
        def inner(g: Graph) -> str:
            bias = np.array([1.0, 2.0, 3.0, last])
            y = g.op("Add", g.op("MatMul", g.input("x", "N", 4), g.weight(4, 4)), g.const(bias))
            return str(g.op("Sigmoid", y))

        return inner

    found = refused(written(build(4.0)), written(build(5.0)))
    assert (found.op, found.channel, found.expected, found.found) == ("Sigmoid", 3, 4.0, 5.0)
    assert found.value in found.reason
    assert "channel 3" in found.reason


def test_a_concat_of_one_value_is_that_value() -> None:
    def joined(g: Graph) -> str:
        return str(g.op("Concat", g.op("Relu", g.input("x", "N", 4)), axis=1))

    def twice(g: Graph) -> str:
        y = g.op("Relu", g.input("x", "N", 4))
        return str(g.op("Concat", y, y, axis=1))

    one = written(lambda g: str(g.op("Relu", g.input("x", "N", 4))))
    accepted(written(joined), one)
    refused(written(twice), one)


@pytest.mark.parametrize("op", ["MatMul", "Gemm", "Conv"])
@pytest.mark.parametrize("last", [True, False], ids=["an output", "in between"])
def test_a_dead_channel_is_no_channel_of_the_input(op: str, last: bool) -> None:
    """Its weights are all zero: it is its bias, whatever the input, and nothing else is."""

    def build(dead: bool, bias: float) -> Callable[[Graph], str]:
        def inner(g: Graph) -> str:
            weight = np.random.default_rng(5).standard_normal((4, 3))
            weight[2] *= not dead
            shift = np.array([0.5, -1.0, bias, 2.0])
            if op == "Conv":
                x = g.input("x", "N", 3, 5, 5)
                y = g.op("Conv", x, g.const(weight.reshape(4, 3, 1, 1), "w"), g.const(shift, "b"))
            elif op == "Gemm":
                y = g.op("Gemm", g.input("x", "N", 3), g.const(weight.T, "w"), g.const(shift, "b"))
            else:
                y = g.op("MatMul", g.input("x", "N", 3), g.const(weight.T, "w"))
                y = g.op("Add", y, g.const(shift, "b"))
            return str(y if last else g.op("Neg", g.op("Sigmoid", y)))

        return inner

    accepted(written(build(True, 0.3)), written(build(True, 0.3)))
    refused(written(build(True, 0.3)), written(build(False, 0.3)))
    refused(written(build(False, 0.3)), written(build(True, 0.3)))
    refused(written(build(True, 0.3)), written(build(True, 0.31)))


@pytest.mark.parametrize("places", [False, True], ids=["a bias", "a number a place"])
def test_the_channel_of_a_matmul_of_three_axes_is_its_last_axis(places: bool) -> None:
    def build(last: float) -> Callable[[Graph], str]:
        def inner(g: Graph) -> str:
            bias = np.arange(1.0, 16.0).reshape(5, 3) if places else np.array([1.0, 2.0, 3.0])
            bias[..., 2][..., None][-1:] = last
            y = g.op("MatMul", g.input("x", "N", 5, 4), g.weight(4, 3))
            return str(g.op("Sigmoid", g.op("Add", y, g.const(bias))))

        return inner

    found = refused(written(build(4.0)), written(build(5.0)))
    assert (found.op, found.expected, found.found) == ("Sigmoid", 4.0, 5.0)
    assert found.channel == (None if places else 2)
    assert ("at (0, 4, 2)" if places else "in channel 2") in found.reason


def test_the_bound_of_a_clamp_is_told_with_its_channel() -> None:
    def build(last: float) -> Callable[[Graph], str]:
        def inner(g: Graph) -> str:
            bound = g.const(np.array([1.0, 2.0, last]))
            return str(g.op("Sigmoid", g.op("Max", g.input("x", "N", 5, 3), bound)))

        return inner

    found = refused(written(build(3.0)), written(build(3.5)))
    assert (found.op, found.channel, found.expected, found.found) == ("Max", 2, 3.0, 3.5)
    assert "the lower bound is 3.5" in found.reason


def test_what_a_rounding_too_many_moves_is_told_in_roundings() -> None:
    def build(factor: float) -> Callable[[Graph], str]:
        weight = np.random.default_rng(1).standard_normal((4, 4)).astype(np.float32)
        weight[2, 1] = 1.0
        weight[2, 1] *= factor
        return lambda g: str(g.op("MatMul", g.input("x", "N", 4), g.const(weight)))

    found = refused(written(build(1.0)), written(build(1 + 2.0**-20)))
    assert "16.0 roundings away: 3 are allowed" in found.reason
    assert found.channel == 1
    found = refused(written(build(1.0)), written(build(1.5)))
    assert "roundings" not in found.reason


def test_an_output_is_told_with_its_op_and_channel() -> None:
    def build(last: float) -> Callable[[Graph], str]:
        return lambda g: str(g.op("Add", g.input("x", "N", 3), g.const(np.array([1, 2, last]))))

    found = refused(written(build(3.0)), written(build(4.0)))
    assert (found.value, found.op, found.channel) == ("y", "Add", 2)
    assert (found.expected, found.found) == (3.0, 4.0)


def test_an_op_of_a_runtime_is_named() -> None:
    g = Graph("float32")
    g.output(g.rename(g.op("Relu", g.input("x", "N", 4)), "y"))
    other = g.model().clone()
    (node,) = other.graph
    node.domain, node.op_type = "com.microsoft", "QuickGelu"
    found = refused(g.model(), other)
    assert (found.value, found.op) == ("y", "QuickGelu")
    assert "no op of ONNX" in found.reason
    assert "BASIC" in found.reason
