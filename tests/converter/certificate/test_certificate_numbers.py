"""Row factors and forms against float64: what is said to be the same is."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from converter.certificate.atoms import Space
from converter.certificate.forms import Form, Known, constant, of_atom
from converter.certificate.intervals import row_factors
from converter.certificate.kernels import Weight
from converter.certificate.verdict import Differs

U = 2.0**-24


def kernel(rows: np.ndarray, rounding: float = 0.0) -> Weight:
    """A matrix with a row for each output."""
    outputs, inputs = rows.shape
    zero = np.zeros(inputs)
    return Weight(
        weight=Known(rows), layout="matrix transposed", shape=(outputs, inputs, 1), group=1,
        rounding=rounding, s=np.ones(inputs), t=zero, t_off=zero, ratio_off=zero, memory={},
    )  # fmt: skip


NUMBERS = st.floats(-1e3, 1e3, allow_nan=False).filter(lambda x: x == 0 or abs(x) > 1e-3)
ROWS = arrays(np.float64, (3, 5), elements=NUMBERS)
FACTORS = arrays(np.float64, 3, elements=NUMBERS)


@given(ROWS, FACTORS, arrays(np.float64, (3, 5), elements=st.floats(-1, 1)))
@settings(max_examples=200, deadline=None)
def test_a_kernel_that_was_scaled_and_rounded_has_factors(
    held: np.ndarray, factors: np.ndarray, moves: np.ndarray
) -> None:
    new = held * factors[:, None] * (1 + U * moves)
    off = 2 * U * np.abs(new)
    found, share = row_factors(kernel(held), kernel(new, 2 * U), [np.ones(3)])
    assert np.all(np.abs(new - found[:, None] * held) <= off + 2.0**-49 * np.abs(new))
    assert share <= 1
    zero = ~new.any(axis=1)
    assert np.all(found[zero] == 0)


@given(ROWS, st.integers(0, 2), st.integers(0, 4), st.floats(1e-5, 1.0))
@settings(max_examples=200, deadline=None)
def test_one_number_that_was_changed_is_found(
    held: np.ndarray, row: int, place: int, change: float
) -> None:
    held = np.where(held == 0, 1.0, held)
    new = held.copy()
    new[row, place] *= 1 + change
    with pytest.raises(Differs):
        row_factors(kernel(held), kernel(new, 3 * U), [np.ones(3)])


def test_a_factor_of_the_first_graph_is_taken_where_it_fits() -> None:
    held = np.array([[1.0, 2.0], [3.0, 4.0]])
    new = held * (1 + U)
    found, _ = row_factors(kernel(held), kernel(new, 2 * U), [np.ones(2)])
    assert found.tolist() == [1.0, 1.0]


def test_a_row_of_zeros_has_the_factor_zero() -> None:
    held = np.array([[1.0, 2.0], [0.0, 0.0]])
    found, _ = row_factors(kernel(held), kernel(np.zeros((2, 2))), [np.ones(2)])
    assert found.tolist() == [0.0, 0.0]
    with pytest.raises(Differs):
        row_factors(kernel(held), kernel(np.ones((2, 2)), 1e-9), [])


VALUES = arrays(np.float64, (2, 3), elements=NUMBERS)


@given(VALUES, VALUES, FACTORS, FACTORS, FACTORS)
@settings(max_examples=100, deadline=None)
def test_forms_compute_what_they_stand_for(
    x: np.ndarray, y: np.ndarray, a: np.ndarray, b: np.ndarray, c: np.ndarray
) -> None:
    """c*(a*x + b + y) + b, number by number."""
    space = Space(3.0)
    atoms = {name: space.fresh(name, (2, 3)) for name in ("x", "y")}
    zero = np.zeros(())
    form = of_atom(atoms["x"], (2, 3)).scaled(a).shifted(b, zero)
    form = form.plus(of_atom(atoms["y"], (2, 3))).scaled(c).plus(constant((2, 3), b, zero))
    values = {atoms["x"]: x, atoms["y"]: y}
    found = _evaluated(form, values)
    expected = c * (a * x + b + y) + b
    size = np.abs(c) * (np.abs(a * x) + np.abs(b) + np.abs(y)) + np.abs(b)
    assert np.all(np.abs(found - expected) <= 1e-14 * size)


def _evaluated(form: Form, values: dict[object, np.ndarray]) -> np.ndarray:
    total = np.broadcast_to(form.t, form.shape)
    for atom, s in form.terms.items():
        total = total + s * values[atom]
    return np.asarray(total)
