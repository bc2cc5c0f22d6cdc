"""A weight that several ops share is copied only where that is little, or worth it."""

from __future__ import annotations

import numpy as np
import pytest

from converter.folding import Folded, Refusal, Route
from converter.folding.growth import LITTLE
from converter.folding.overflow import MOST_ROUNDS
from patterns.graphs import Graph, assert_equal, batchnorms, count, fold


def checked(g: Graph) -> Folded:
    model = g.model()
    folded = fold(model)
    assert_equal(model, folded.model)
    return folded


def numbers(folded: Folded) -> int:
    values = folded.model.graph.initializers.values()
    return sum(value.const_value.size for value in values if value.const_value is not None)


def pyramid(levels: int, filters: int, taps: int, *, same: bool = False, length: int = 64) -> Graph:
    """One bank of filters on several values, all results scaled by one Mul behind a Concat."""
    g = Graph()
    x = g.op("Relu", g.input("x", "N", 1, length))
    bank = g.weight(filters, 1, taps, name="bank")
    results = []
    for _ in range(levels):
        results.append(g.op("Conv", x, bank))
        x = g.op("Tanh", x)
    scale = g.rng.uniform(0.5, 2, (filters, 1))
    scales = [scale if same else g.rng.uniform(0.5, 2, (filters, 1)) for _ in range(levels)]
    joined = g.op("Concat", *results, axis=1)
    g.output(g.op("Tanh", g.op("Mul", joined, g.const(np.concatenate(scales)))))
    return g


def dearer(folded: Folded, index: int = 0) -> Refusal:
    outcome = folded.plan.decisions[index].outcome
    assert isinstance(outcome, Refusal), outcome
    assert outcome.code == "dearer"
    return outcome


def test_a_bank_of_filters_is_not_copied_for_eight_readers_to_save_one_mul() -> None:
    folded = checked(pyramid(8, 16, 40))
    sentence = dearer(folded).sentence
    assert "shares the constant 'bank' with 7 other ops" in sentence
    assert f"7 more copies of it, {7 * 16 * 40 * 8:,} bytes" in sentence
    assert f"to save {8 * 16 * 25:,} multiply-adds" in sentence
    assert numbers(folded) == 16 * 40 + 8 * 16
    assert count(folded.model, "Mul") == 1


def test_a_longer_signal_does_not_make_many_copies_worth_one_mul() -> None:
    dearer(checked(pyramid(8, 16, 40, length=4000)))


def test_when_all_readers_need_the_same_change_there_is_one_copy() -> None:
    folded = checked(pyramid(8, 16, 40, same=True))
    assert count(folded.model, "Mul") == 0
    assert numbers(folded) == 16 * 40


def test_modules_used_twice_share_what_becomes_of_them() -> None:
    """The same convolution and the same batch-norm: alone neither would be worth a copy."""
    g = Graph()
    w, b, parts = g.weight(64, 64), g.weight(64), g.statistics(64)
    for name in ("left", "right"):
        y = g.op("Gemm", g.input(name, "N", 64), w, b)
        g.output(g.op("Tanh", g.op("BatchNormalization", y, *parts)))
    folded = checked(g)
    assert batchnorms(folded.model) == 0
    assert numbers(folded) == 64 * 64 + 64


@pytest.mark.parametrize(("filters", "mul"), [(LITTLE // 8, 0), (LITTLE // 8 + 1, 1)])
def test_what_is_little(filters: int, mul: int) -> None:
    """Two more copies, of 512 numbers and of 516."""
    folded = checked(pyramid(3, filters, 4))
    assert count(folded.model, "Mul") == mul


@pytest.mark.parametrize(("others", "mul"), [(16 * 2080 - 1820, 0), (16 * 2080 - 1821, 1)])
def test_what_is_little_in_a_large_model(others: int, mul: int) -> None:
    """Two more copies of 1,040 numbers: a sixteenth of all the constants, and more than that."""
    g = pyramid(3, 260, 4)
    g.output(g.op("Sub", g.input("z", others), g.weight(others)))
    assert count(checked(g).model, "Mul") == mul


def two_norms(size: int, *, axes: tuple[int | str, ...] = ()) -> Graph:
    """One weight of size^2 numbers, two batch-norms: one more copy for two that go."""
    g = Graph()
    w = g.weight(size, size, *[1] * len(axes))
    for name in ("left", "right"):
        y = g.op("Conv" if axes else "MatMul", g.input(name, "N", size, *axes), w)
        g.output(g.op("Tanh", g.bn(y, size)))
    return g


@pytest.mark.parametrize(("axes", "left"), [((4, 5), 0), ((4, 4), 2), ((39, "W"), 0), ((1, 1), 2)])
def test_one_copy_for_two_batchnorms_must_be_worth_it(
    axes: tuple[int | str, ...], left: int
) -> None:
    """40*40 numbers against 2 * 40 * 20 multiply-adds, and against 2 * 40 * 16; an axis of unknown
    size counts as large."""
    assert batchnorms(checked(two_norms(40, axes=axes)).model) == left


def test_a_matrix_is_not_doubled_to_save_two_vectors() -> None:
    folded = checked(two_norms(64))
    assert batchnorms(folded.model) == 2
    assert "one more copy of it" in dearer(folded).sentence


def test_where_the_way_back_is_dear_the_way_forward_is_taken() -> None:
    g = pyramid(8, 16, 40)
    g.nodes.pop()
    g.outputs.clear()
    g.output(g.op("Conv", g.nodes[-1].output[0], g.weight(3, 8 * 16, 1)))
    folded = checked(g)
    (outcome,) = (d.outcome for d in folded.plan.decisions)
    assert isinstance(outcome, Route)
    assert outcome.direction == "forward"
    assert count(folded.model, "Mul") == 0


def test_a_batchnorm_on_one_reader_folds_beside_a_mul_that_stays() -> None:
    """The Mul needs a copy for each reader; the batch-norm only one."""
    g = Graph()
    x = g.op("Relu", g.input("x", "N", 1, 1000))
    bank = g.weight(16, 1, 80, name="bank")
    results = [g.op("Conv", g.op("Tanh", x), bank) for _ in range(8)]
    scale = g.const(g.rng.uniform(0.5, 2, (8 * 16, 1)))
    g.output(g.op("Tanh", g.op("Mul", g.op("Concat", *results, axis=1), scale)))
    g.output(g.op("Tanh", g.bn(g.op("Conv", x, bank), 16)))
    folded = checked(g)
    assert batchnorms(folded.model) == 0
    assert count(folded.model, "Mul") == 1
    assert numbers(folded) == 2 * 16 * 80 + 8 * 16 + 16


def test_a_shift_copies_no_weight() -> None:
    """x + b in front of a convolution is a bias behind it: another reader keeps the same weight."""
    g = Graph()
    x, w = g.op("Tanh", g.input("x", "N", 40, 2)), g.weight(40, 40, 1)
    parts = g.statistics(40, gamma=np.ones(40), var=np.ones(40))
    shifted = g.op("BatchNormalization", x, *parts, epsilon=0.0)
    g.output(g.op("Conv", shifted, w))
    g.output(g.op("Conv", x, w))
    folded = checked(g)
    assert batchnorms(folded.model) == 0
    assert numbers(folded) == 40 * 40 + 40


@pytest.mark.parametrize(("size", "merges"), [(11, 0), (12, 1)])
def test_a_merge_that_copies_its_kernel_must_be_worth_it(size: int, merges: int) -> None:
    """16*16*9 numbers against 16 * 12 * 12 additions, and against 16 * 11 * 11."""
    g = Graph()
    x = g.op("Relu", g.input("x", "N", 16, size, size))
    w = g.weight(16, 16, 3, 3)
    g.output(g.op("Add", g.op("Conv", x, w, pads=[1] * 4), x))
    g.output(g.op("Conv", g.op("Tanh", x), w))
    assert len(checked(g).plan.merges) == merges


def test_a_bias_of_many_numbers_is_not_made_to_save_a_small_map() -> None:
    g = Graph()
    x = g.bn(g.op("Tanh", g.input("x", "N", 2)), 2)
    g.output(g.op("MatMul", x, g.weight(2, 3000)))
    (outcome,) = (decision.outcome for decision in checked(g).plan.decisions)
    assert isinstance(outcome, Refusal)
    assert outcome.behind is not None
    assert outcome.behind.code == "dearer"
    assert "2,992 numbers more" in outcome.behind.sentence


def test_one_number_does_not_become_one_for_each_position() -> None:
    g = Graph()
    x = g.bn(g.op("Tanh", g.input("x", "N", 4, 20, 20)), 4)
    y = g.op("Add", g.op("Flatten", x), g.const(np.array(0.7)))
    g.output(g.op("Tanh", g.op("Relu", y)))
    folded = checked(g)
    assert numbers(folded) < 100


def test_many_banks_end_soon() -> None:
    """Each is given up by itself; the plans are bounded."""
    g = Graph()
    x = g.op("Relu", g.input("x", "N", 1, 64))
    for number in range(MOST_ROUNDS + 6):
        bank = g.weight(20, 1, 40, name=f"bank{number}")
        results = [g.op("Conv", g.op("Tanh", x), bank) for _ in range(3)]
        joined = g.op("Concat", *results, axis=1)
        g.output(g.op("Tanh", g.op("Mul", joined, g.weight(60, 1))))
    folded = fold(g)
    assert count(folded.model, "Mul") >= MOST_ROUNDS
    assert numbers(folded) <= (MOST_ROUNDS + 6) * 860 * 17 // 16
