"""Values of a tensor on the same elements in another shape: sizes that are not fixed, periods."""

from __future__ import annotations

import numpy as np
import pytest

from converter.folding.axes import relay

N = 6  # what the sizes that are not fixed stand for


def full(values: np.ndarray, shape: list[object], sizes: list[int]) -> np.ndarray:
    """`values`, repeated along axes of unknown size, spread over a tensor."""
    for axis, size in enumerate(sizes):
        held = values.shape[axis]
        if held not in {1, size}:
            assert not isinstance(shape[axis], int)
            values = np.take(values, np.arange(size) % held, axis=axis)
    return np.broadcast_to(values, sizes)


CASES: list[tuple[list[object], list[int], list[object], list[int], tuple[int, ...]]] = [
    (["N", 12, 2, 5], [N, 12, 2, 5], ["4*N", 3, 10], [4 * N, 3, 10], (1, 12, 1, 1)),
    (["4*N", 3, 10], [4 * N, 3, 10], ["N", 12, 2, 5], [N, 12, 2, 5], (4, 3, 1)),
    (["4*N", 3, 10], [4 * N, 3, 10], [None, 6, 10], [2 * N, 6, 10], (4, 3, 1)),
    (["4*N", 3, 10], [4 * N, 3, 10], ["12*N", 10], [12 * N, 10], (4, 3, 1)),
    (["12*N", 10], [12 * N, 10], ["N", 3, 4, 10], [N, 3, 4, 10], (12, 1)),
    (["N", 12, 5], [N, 12, 5], ["3*N", 4, 5], [3 * N, 4, 5], (1, 12, 5)),
    ([2, 12, 5], [2, 12, 5], [8, 3, 5], [8, 3, 5], (1, 12, 1)),
    ([2, 12, 5], [2, 12, 5], [None, 3, 5], [8, 3, 5], (1, 12, 1)),
    ([None, 3, 5], [8, 3, 5], [2, 12, 5], [2, 12, 5], (4, 3, 1)),
    ([None, 3], [8, 3], [8, 3], [8, 3], (4, 3)),
    ([6, 4], [6, 4], [2, 3, 2, 2], [2, 3, 2, 2], (6, 1)),
    (["N", 6], [N, 6], ["M", 4], [N * 6 // 4, 4], (1, 6)),
]


@pytest.mark.parametrize(("old", "sizes", "new", "others", "held"), CASES)
def test_the_same_elements_have_the_same_values(
    old: list[object], sizes: list[int], new: list[object], others: list[int], held: tuple[int, ...]
) -> None:
    values = np.random.default_rng(0).standard_normal(held)
    found = relay(values, old, new)
    assert not isinstance(found, str), found
    assert np.array_equal(full(values, old, sizes).reshape(others), full(found, new, others))


@pytest.mark.parametrize(("old", "new", "held"), [
    ([3, "N", 4], ["M", 4, 3], (3, 1, 1)),  # it is not the first axis of its block
    ([2, 3, "N"], ["M", 6], (2, 3, 1)),
    (["N", "M", 4], ["K", 4], (1, 3, 1)),
    ([None, 3], [9, 3], (4, 1)),  # 9 is no multiple of 4
    (["N", 4], ["N", 4], (4,)),
    (["N", 2**12 + 1], ["M", 2**12 - 1], (1, 2**12 + 1)),  # too many numbers
])  # fmt: skip
def test_what_cannot_be_told(old: list[object], new: list[object], held: tuple[int, ...]) -> None:
    assert isinstance(relay(np.arange(np.prod(held), dtype=float).reshape(held), old, new), str)
