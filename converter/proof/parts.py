"""One output, part by part: small numbers are not judged by the scale of large ones.

A detector's output holds boxes of 1e5 beside scores of 1: four roundings of the boxes hide an
error of 0.05 in the scores. So along each axis except the batch the slices (one channel, one
position of a flat vector) are grouped by size, and the rule is applied to each part.

* The size of a slice is the largest number in it in float64, over all inputs that were drawn alike.
  It does not depend on either graph's rounding error, so that no part consists of slices on which
  the original's error is small by chance.
* Slices within a factor of `ALIKE` of the largest are a part, and the largest of the others begins
  the next one: a classifier's scores are one part, and nothing changes for them.
* When a part with few numbers fails, that proves nothing: the largest of few errors depends on
  chance, and so does a channel that a Relu leaves nearly empty. Such a part is `scant`: more inputs
  are drawn (`verify`), and if it stays so it is judged together with the next larger part.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from converter.evaluation.oracle import Array
from converter.proof.measure import (
    Case,
    Limits,
    Measurement,
    allowance,
    limits_of,
    wide,
)
from converter.proof.pooling import allowed_together

# Slices whose largest numbers are within this factor are judged by one scale.
ALIKE = 8.0
# How many rounding errors other than 0 a part must have to be judged alone.
ENOUGH = 32
# A part is one of many, and the worst of them decides, so a part is allowed this many times what
# the rule allows a whole output. A recogniser of 6625 classes has eight parts, of which one had 2.3
# times the original's error with nothing wrong.
OF_MANY = 2.0
# How many numbers of an array are processed at once, which bounds the memory.
_SLAB = 2**22


@dataclass(frozen=True)
class Outcome:
    """An output's results on one set of inputs: in float64, of the original, of the folded."""

    case: Case
    truth: Array
    reference: Array
    candidate: Array


@dataclass(frozen=True)
class Slices:
    """Sizes and errors of each slice along an axis, on one set of inputs; shape (slices,).

    `counted`: how many numbers in each slice have a rounding error in either graph.
    """

    case: Case
    magnitude: npt.NDArray[np.float64]
    reference_error: npt.NDArray[np.float64]
    candidate_error: npt.NDArray[np.float64]
    counted: npt.NDArray[np.int64]


# What is allowed at an error of the original and a largest number, by the constants of a type.
Rule = Callable[[Limits, float, float], float]


def by_parts(
    output: str,
    dtype: str,
    outcomes: Sequence[Outcome],
    others: Sequence[Outcome] = (),
    rule: Rule = allowance,
) -> tuple[Measurement, ...]:
    """The worst measurement of each part of one output, over all of `outcomes`.

    Args:
        outcomes: on inputs that were drawn alike, or all that the user gave.
        others: outcomes on the random inputs, where `outcomes` are the user's: the original's
            error is taken as at least the share of a part's size that it is there.
        rule: what a part is allowed on one set of inputs.

    Nothing for an axis whose slices are all alike: that is the whole output's measurement.
    """
    limits = limits_of(dtype)
    if limits is None or not outcomes:
        return ()
    found: list[Measurement] = []
    for axis in _axes([outcome.truth.shape for outcome in outcomes]):
        slices = [_slices(outcome, axis, limits) for outcome in outcomes]
        beside = [
            _slices(other, axis, limits)
            for other in others
            if other.truth.ndim > axis and other.truth.shape[axis] == outcomes[0].truth.shape[axis]
        ]
        found += _along(output, axis, limits, slices, beside, rule)
    return tuple(found)


def _axes(shapes: Sequence[tuple[int, ...]]) -> Iterator[int]:
    """Axes with several slices, equally many on all inputs, which excludes the batch axis."""
    if len({len(shape) for shape in shapes}) > 1:
        return
    for axis, sizes in enumerate(zip(*shapes, strict=True)):
        if len(set(sizes)) == 1 and sizes[0] > 1:
            yield axis


def _slices(outcome: Outcome, axis: int, limits: Limits) -> Slices:
    size = outcome.truth.shape[axis]
    sums = [np.zeros(size) for _ in range(3)]
    counted = np.zeros(size, np.int64)
    # Slabs along another axis than that of the slices.
    across = 1 if axis == 0 else 0
    arrays = (outcome.truth, outcome.reference, outcome.candidate)
    long = arrays[0].shape[across] if arrays[0].ndim > 1 else 1
    step = max(1, _SLAB * long // max(1, arrays[0].size))
    rest = tuple(a for a in range(arrays[0].ndim) if a != axis)
    for start in range(0, long, step):
        window = (
            tuple(
                slice(start, start + step) if a == across else slice(None)
                for a in range(arrays[0].ndim)
            )
            if arrays[0].ndim > 1
            else ()
        )
        truth, reference, candidate = (wide(array[window]) for array in arrays)
        with np.errstate(invalid="ignore", over="ignore"):
            usable = (
                np.isfinite(truth)
                & (np.abs(truth) <= limits.largest)
                & np.isfinite(reference)
                & np.isfinite(candidate)
            )
            errors = [
                np.where(usable, np.abs(number), 0.0)
                for number in (truth, reference - truth, candidate - truth)
            ]
        for total, error in zip(sums, errors, strict=True):
            np.maximum(total, error.max(axis=rest, initial=0.0), out=total)
        counted += np.count_nonzero((errors[1] > 0.0) | (errors[2] > 0.0), axis=rest)
    return Slices(outcome.case, sums[0], sums[1], sums[2], counted)


def _along(
    output: str,
    axis: int,
    limits: Limits,
    slices: Sequence[Slices],
    beside: Sequence[Slices],
    rule: Rule,
) -> Iterator[Measurement]:
    size = np.max([part.magnitude for part in slices], axis=0)
    members = groups_of_like_size(size)
    if len(members) < 2:
        return
    for index, chosen in enumerate(members):
        found = _judge(output, axis, limits, slices, beside, chosen, rule)
        # A scant part that fails is judged with the next larger ones.
        for larger in reversed(members[:index]):
            if found.passed or not found.scant:
                break
            chosen = np.concatenate([larger, chosen])
            wider = _judge(output, axis, limits, slices, beside, chosen, rule)
            found = replace(wider, scant=True, part=found.part)
        yield found


def groups_of_like_size(
    size: npt.NDArray[np.float64],
) -> list[npt.NDArray[np.intp]]:
    """Indices of slices, largest first, each group within a factor of `ALIKE`; slices of zeros
    have no size, and go with the smallest."""
    order = np.argsort(-size, kind="stable")
    groups: list[npt.NDArray[np.intp]] = []
    start = 0
    while start < len(order):
        first = size[order[start]]
        end = start + int(np.count_nonzero(size[order[start:]] * ALIKE >= first))
        if first == 0.0 and groups:
            groups[-1] = np.concatenate([groups[-1], order[start:]])
            break
        groups.append(order[start:end])
        start = end
    return groups


def _judge(
    output: str,
    axis: int,
    limits: Limits,
    slices: Sequence[Slices],
    beside: Sequence[Slices],
    chosen: npt.NDArray[np.intp],
    rule: Rule,
) -> Measurement:
    """Apply the rule to some slices: the worst of all sets of inputs."""
    mine = [_measured(output, axis, limits, part, chosen, rule) for part in slices]
    scale = [_measured(output, axis, limits, part, chosen, rule) for part in beside]
    alike = not beside
    judged = [
        replace(
            m,
            allowed=OF_MANY * max(m.allowed, allowed_together(m, mine if alike else scale, alike)),
        )
        for m in mine
    ]
    worst = max(judged, key=lambda m: m.candidate_error - m.allowed)
    return replace(worst, scant=sum(int(part.counted[chosen].sum()) for part in slices) < ENOUGH)


def _measured(
    output: str,
    axis: int,
    limits: Limits,
    part: Slices,
    chosen: npt.NDArray[np.intp],
    rule: Rule,
) -> Measurement:
    magnitude, reference, candidate = (
        float(np.max(numbers[chosen]))
        for numbers in (part.magnitude, part.reference_error, part.candidate_error)
    )
    return Measurement(
        output,
        part.case.name,
        magnitude,
        reference,
        candidate,
        rule(limits, reference, magnitude),
        pooled=limits.pooled,
        half=limits.half,
        part=f"{ranges(chosen)} of {len(part.magnitude)} on axis {axis}",
    )


def ranges(indices: npt.NDArray[np.intp], most: int = 4) -> str:
    """ "0-3, 7 of .." in words: runs of indices, the first few of them."""
    ordered = np.sort(indices)
    breaks = np.flatnonzero(np.diff(ordered) != 1) + 1
    runs = [
        f"{run[0]}" if len(run) == 1 else f"{run[0]}-{run[-1]}"
        for run in np.split(ordered, breaks)[: most + 1]
    ]
    more = f" and {len(ordered) - 1} more" if len(breaks) >= most else ""
    return f"{ordered[0]}{more}" if more else ", ".join(runs)
