"""Products with constant matrices on the same value, and the value itself, become one."""

from __future__ import annotations

from typing import Any

import pytest

from patterns.graphs import Graph, batchnorms, count, fold
from tests.converter.folding.test_branches import checked


def ops(folded: Any) -> list[str]:
    return [node.op_type for node in folded.model.graph]


def gemm(g: Graph, x: str, bias: tuple[int, ...] | None = (5,), **more: Any) -> str:
    """From 4 (or, transposed, 3) to 5 columns."""
    rows = 3 if more.get("transA") else 4
    weight = g.weight(5, rows) if more.get("transB") else g.weight(rows, 5)
    constants = [weight] if bias is None else [weight, g.weight(*bias)]
    return str(g.op("Gemm", x, *constants, **more))


@pytest.mark.parametrize("turned", [(0, 0), (0, 1), (1, 0), (1, 1)])
@pytest.mark.parametrize("bias", [None, (), (1,), (5,), (1, 5), (1, 1)])
def test_gemms(turned: tuple[int, int], bias: tuple[int, ...] | None) -> None:
    g = Graph()
    x = g.input("x", 3, 4)
    one = g.bn(gemm(g, x, bias, transB=turned[0], alpha=0.5, beta=-2.0), 5)
    other = gemm(g, x, transB=turned[1], alpha=-1.5, beta=0.25)
    g.output(g.op("Sub", one, other))
    folded = checked(g)
    assert ops(folded) == ["Gemm"]


def test_gemms_that_read_x_transposed() -> None:
    g = Graph()
    x = g.input("x", 3, 4)
    g.output(g.op("Add", gemm(g, x, transA=1), gemm(g, x, transA=1, transB=1)))
    assert ops(checked(g)) == ["Gemm"]


def test_a_gemm_that_reads_x_transposed_stays_apart() -> None:
    g = Graph()
    x = g.input("x", 4, 4)
    one = g.op("Gemm", x, g.weight(4, 5), transA=1)
    g.output(g.op("Add", one, gemm(g, x)))
    assert ops(checked(g)).count("Gemm") == 2


def test_a_gemm_that_reads_x_transposed_takes_no_identity() -> None:
    g = Graph()
    x = g.op("Relu", g.input("x", 4, 4))
    g.output(g.op("Add", g.op("Gemm", x, g.weight(4, 4), transA=1), x))
    assert ops(checked(g)) == ["Relu", "Gemm", "Add"]


@pytest.mark.parametrize("bias", [(3, 5), (3, 1)])
def test_a_bias_that_differs_from_row_to_row_stays_apart(bias: tuple[int, ...]) -> None:
    g = Graph()
    x = g.input("x", 3, 4)
    g.output(g.op("Add", gemm(g, x, bias), gemm(g, x)))
    assert ops(checked(g)).count("Gemm") == 2


def test_a_residual_around_a_gemm() -> None:
    g = Graph()
    x = g.op("Relu", g.input("x", "N", 4))
    y = g.op("Gemm", x, g.weight(4, 4), g.weight(4), alpha=3.0)
    g.output(g.op("Sum", y, g.bn(x, 4), x), shape=["N", 4])
    folded = checked(g)
    assert ops(folded) == ["Relu", "Gemm"]
    assert batchnorms(folded.model) == 0


def test_a_residual_around_a_gemm_that_is_not_square_stays() -> None:
    g = Graph()
    x = g.input("x", "N", 1)
    y = g.op("Gemm", x, g.weight(1, 4))
    g.output(g.op("Add", y, x), shape=["N", 4])
    assert ops(checked(g)) == ["Gemm", "Add"]


@pytest.mark.parametrize("rank", [2, 3, 4])
def test_matmuls_and_their_biases(rank: int) -> None:
    """x A + c + x B + d + x: one MatMul, one Add."""
    g = Graph()
    x = g.op("Relu", g.input("x", "N", 4, *[3] * (rank - 2)))
    x = g.op("Transpose", x, perm=[0, *range(2, rank), 1])
    one, other = (g.op("Add", g.op("MatMul", x, g.weight(4, 4)), g.weight(4)) for _ in range(2))
    g.output(g.op("Add", g.op("Add", one, other), x))
    assert ops(checked(g)) == ["Relu", "Transpose", "MatMul", "Add"]


def test_batchnorms_on_branches_of_matmuls() -> None:
    g = Graph()
    x = g.op("Relu", g.input("x", "N", 4))
    one, other = (g.bn(g.op("MatMul", x, g.weight(4, 4)), 4) for _ in range(2))
    g.output(g.op("Sub", g.op("Sub", g.bn(x, 4), one), other), shape=["N", 4])
    folded = checked(g)
    assert ops(folded) == ["Relu", "MatMul", "Add"]
    assert batchnorms(folded.model) == 0


def test_a_batchnorm_on_another_axis_than_the_last_is_no_branch() -> None:
    """(N, 4, 4): the batch-norm scales axis 1, the matrix mixes axis 2."""
    g = Graph()
    x = g.op("Relu", g.input("x", "N", 4, 4))
    g.output(g.op("Add", g.op("MatMul", x, g.weight(4, 4)), g.bn(x, 4)), shape=["N", 4, 4])
    assert batchnorms(checked(g).model) == 1


def test_a_matmul_goes_into_a_gemm() -> None:
    g = Graph()
    x = g.input("x", "N", 4)
    product = g.op("Add", g.op("MatMul", x, g.weight(4, 5)), g.weight(5))
    g.output(g.op("Add", product, gemm(g, x, transB=1)), shape=["N", 5])
    assert ops(checked(g)) == ["Gemm"]


def test_a_bias_alone_is_no_reason_to_merge() -> None:
    """MatMul has no place for it."""
    g = Graph()
    x = g.input("x", "N", 4)
    g.output(g.op("Add", g.op("MatMul", x, g.weight(4, 5)), g.weight(5)), shape=["N", 5])
    assert not fold(g).plan.merges


@pytest.mark.parametrize("stacked", [(4, 4, 4), (4,)])
def test_a_weight_that_is_no_matrix_stays_apart(stacked: tuple[int, ...]) -> None:
    g = Graph()
    x = g.input("x", 4, 4, 4)
    g.output(g.op("Add", g.op("MatMul", x, g.weight(*stacked)), g.op("MatMul", x, g.weight(4, 4))))
    assert count(checked(g).model, "MatMul") == 2


def test_a_matrix_from_the_left_stays_apart() -> None:
    g = Graph()
    x = g.input("x", 4, 4)
    g.output(g.op("Add", g.op("MatMul", g.weight(4, 4), x), g.op("MatMul", x, g.weight(4, 4))))
    assert count(checked(g).model, "MatMul") == 2


def test_matrices_made_at_run_time_stay_apart() -> None:
    g = Graph()
    x, y = g.input("x", 4, 4), g.input("y", 4, 4)
    g.output(g.op("Add", g.op("MatMul", x, y), g.op("MatMul", x, g.weight(4, 4))))
    assert count(checked(g).model, "MatMul") == 2
