"""What inputs that are drawn alike are allowed together, so that chance on one decides nothing."""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from dataclasses import replace
from statistics import median

from converter.proof.measure import Measurement


def pool(
    measurements: tuple[Measurement, ...],
    random: Container[str],
    others: Sequence[Container[str]] = (),
) -> tuple[Measurement, ...]:
    """What the rule allows on the random inputs, which are drawn alike, taken together.

    On one input an output may be near zero, or the reference near the truth, by chance, while a
    right fold has an error of the usual size. So for the types of `_POOLED` max|y| and the
    reference's error are the largest on all random inputs. The user's inputs, which may be of any
    size, set no scale for others; the reference's error on them is taken as at least the share of
    max|y| that it is on random inputs, as far as those are `sharp`.

    In half types 4 * u alone is 0.2 % or 1.6 % of max|y|, and the reference may be a quarter of
    max|y| away from the truth where it nearly overflows: the largest would excuse too much. There,
    an input is allowed at least half of the median.

    Args:
        random: names of the inputs of standard normal numbers.
        others: the same for each other kind of numbers that were drawn.
    """
    return tuple(
        replace(m, allowed=max(m.allowed, *_pools(m, measurements, random, others)))
        for m in measurements
    )


def _pools(
    m: Measurement,
    measurements: Sequence[Measurement],
    random: Container[str],
    others: Sequence[Container[str]],
) -> Iterator[float]:
    yield 0.0
    mine = [o for o in measurements if o.output == m.output and not o.problem]
    for kind in (random, *others):
        if m.inputs in kind:
            yield allowed_together(m, [o for o in mine if o.inputs in kind], True)
            return
    yield allowed_together(m, [o for o in mine if o.inputs in random and o.sharp], False)


def allowed_together(m: Measurement, others: Sequence[Measurement], drawn_alike: bool) -> float:
    """How far `m` may be off by the random inputs `others`; 0 where they do not apply to it."""
    if not m.pooled or not others:
        return 0.0
    if m.half:
        return 0.5 * median(o.allowed for o in others) if drawn_alike else 0.0
    if drawn_alike:
        floor = max(o.floor for o in others)
        return 2.0 * max(o.reference_error for o in others) + floor
    shares = (o.reference_error / o.magnitude for o in others if o.magnitude > 0.0)
    return 2.0 * max(m.reference_error, max(shares, default=0.0) * m.magnitude) + m.floor
