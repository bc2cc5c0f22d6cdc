"""Sums of products of whole numbers that have names, as sizes are computed of sizes.

N + (480000 - N) is 480000 for every N: such a size is a constant, whatever was tried.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

# The names of a product, sorted, and how often it is added up; the constant has no names.
Polynomial = Mapping[tuple[Any, ...], int]

_TERMS, _FACTORS = 32, 64  # more are not followed


def number(value: int) -> Polynomial:
    return {(): value} if value else {}


def named(name: Any) -> Polynomial:
    return {(name,): 1}


def plus(one: Polynomial, other: Polynomial, sign: int = 1) -> Polynomial | None:
    """one + sign * other; None if that is too long."""
    found = Counter(one)
    for names, count in other.items():
        found[names] += sign * count
    return _short(found)


def times(one: Polynomial, other: Polynomial) -> Polynomial | None:
    """The product; None if it is too long."""
    if len(one) * len(other) > _TERMS**2:
        return None
    found: Counter[tuple[Any, ...]] = Counter()
    for names, count in one.items():
        for others, more in other.items():
            found[tuple(sorted((*names, *others)))] += count * more
    return _short(found)


def quotient(whole: Polynomial, part: Polynomial) -> Polynomial | None:
    """whole / part, where part is one product that is in every term; None if it is not."""
    if len(part) != 1:
        return None
    ((names, count),) = part.items()
    found: dict[tuple[Any, ...], int] = {}
    for those, many in whole.items():
        left = Counter(those)
        left.subtract(names)
        if many % count or min(left.values(), default=0) < 0:
            return None
        found[tuple(sorted(left.elements()))] = many // count
    return found


def replaced(given: Polynomial, what: Callable[[Any], Polynomial | None]) -> Polynomial | None:
    """With something for each name; None if there is nothing for one, or it is too long."""
    found: Polynomial | None = {}
    for names, count in given.items():
        term: Polynomial | None = number(count)
        for name in names:
            meant = what(name)
            if meant is None or term is None:
                return None
            term = times(term, meant)
        if term is None or found is None:
            return None
        found = plus(found, term)
    return found


def _short(found: Mapping[tuple[Any, ...], int]) -> Polynomial | None:
    kept = {names: count for names, count in found.items() if count}
    if len(kept) > _TERMS or any(len(names) > _FACTORS for names in kept):
        return None
    return kept
