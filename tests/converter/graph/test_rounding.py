"""`round_once` against exact rational arithmetic."""

from __future__ import annotations

from fractions import Fraction

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from converter.graph.rounding import round_once

# (bits of the significand with the hidden one, smallest exponent of a normal number, largest)
FORMATS = {
    "float16": (11, -14, 15),
    "bfloat16": (8, -126, 127),
    "float32": (24, -126, 127),
    "float64": (53, -1022, 1023),
}


def exact(value: float, name: str) -> float:
    """IEEE 754 round to nearest, ties to even, from the definition; infinite beyond the format."""
    bits, smallest, largest = FORMATS[name]
    number = abs(Fraction(value))
    if number == 0:
        return value
    exponent = max(_floor_log2(number), smallest)
    unit = Fraction(2) ** (exponent - bits + 1)
    rounded = round(number / unit) * unit  # Fraction rounds ties to even
    if rounded >= Fraction(2) ** (largest + 1):
        return float("inf") if value > 0 else float("-inf")
    return float(rounded) if value > 0 else -float(rounded)


def _floor_log2(number: Fraction) -> int:
    guess = number.numerator.bit_length() - number.denominator.bit_length()
    return guess if Fraction(2) ** guess <= number else guess - 1


def dtype(name: str) -> np.dtype[np.generic]:
    return np.dtype(ml_dtypes.bfloat16 if name == "bfloat16" else name)


def check(values: list[float], name: str) -> None:
    found = round_once(np.array(values, dtype=np.float64), dtype(name))
    assert found.dtype == dtype(name)
    expected = [exact(value, name) for value in values]
    np.testing.assert_array_equal(found.astype(np.float64), expected)
    np.testing.assert_array_equal(np.signbit(found.astype(np.float64)), np.signbit(values))


@pytest.mark.parametrize("name", list(FORMATS))
@given(values=st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=20))
def test_any_number(name: str, values: list[float]) -> None:
    check(values, name)


@pytest.mark.parametrize("name", list(FORMATS))
@given(
    mantissa=st.integers(1, 2**12),
    exponent=st.integers(-170, 140),
    beside=st.integers(-7, 7),
    scale=st.integers(10, 52),
    negative=st.booleans(),
)
def test_near_halfway(
    name: str, mantissa: int, exponent: int, beside: int, scale: int, negative: bool
) -> None:
    """Few bits, and a little beside them: where rounding twice goes wrong."""
    value = float(mantissa) * 2.0**exponent * (1.0 + beside * 2.0**-scale)
    check([-value if negative else value], name)


@pytest.mark.parametrize("eighths", range(-16, 17))
@pytest.mark.parametrize("odd", [0, 1])
def test_around_the_middle_of_two_bfloat16_numbers(eighths: int, odd: int) -> None:
    """In steps of an eighth of float32's, through which ml_dtypes goes."""
    middle = 1.0 + (2 * odd + 1) * 2.0**-8
    value = middle + eighths * 2.0**-26
    check([value, -value], "bfloat16")


def test_rounding_twice_would_be_wrong() -> None:
    """1 + 2^-8 + 2^-40 lies above the middle of 1 and 1 + 2^-7; in float32 it is the middle."""
    value = 1 + 2.0**-8 + 2.0**-40
    twice = np.array([value]).astype(np.float32).astype(ml_dtypes.bfloat16)
    once = round_once(np.array([value]), ml_dtypes.bfloat16)
    assert float(twice[0]) == 1.0
    assert float(once[0]) == 1 + 2.0**-7


@pytest.mark.parametrize(
    ("name", "largest"), [("float16", 65504.0), ("bfloat16", 3.3895313892515355e38)]
)
def test_the_edge_of_overflow(name: str, largest: float) -> None:
    half = largest - float(np.nextafter(np.array(largest).astype(dtype(name)), dtype(name).type(0)))
    middle = largest + half / 2
    check([largest, float(np.nextafter(middle, 0.0)), middle, 2 * largest, -middle], name)
    assert np.isinf(round_once(np.array([middle]), dtype(name)).astype(float)).all()


@pytest.mark.parametrize("name", list(FORMATS))
def test_subnormals(name: str) -> None:
    bits, smallest, _ = FORMATS[name]
    tiny = 2.0 ** (smallest - bits + 1)
    steps = [tiny, 1.5 * tiny, 2.5 * tiny, 0.0, -0.0] if name != "float64" else [tiny, 0.0]
    check([*steps, *([0.5 * tiny, 0.75 * tiny, -0.75 * tiny] if name != "float64" else [])], name)


@pytest.mark.parametrize("name", list(FORMATS))
def test_what_is_not_finite_stays(name: str) -> None:
    found = round_once(np.array([np.inf, -np.inf, np.nan]), dtype(name)).astype(np.float64)
    np.testing.assert_array_equal(found, [np.inf, -np.inf, np.nan])


@pytest.mark.parametrize("name", list(FORMATS))
def test_shapes_are_kept(name: str) -> None:
    for shape in [(), (0, 3), (2, 3)]:
        assert round_once(np.ones(shape), dtype(name)).shape == shape
