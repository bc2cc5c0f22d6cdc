"""A certificate in words, and as plain data: what `--certify` adds to a report."""

from __future__ import annotations

import math
from typing import Any

from converter.certificate import Certified, NotCertified

Found = Certified | NotCertified


def sentence(found: Found, *, measured: bool) -> str:
    """What was found, in one sentence; of what is not certified, a second one says what counts."""
    if isinstance(found, Certified):
        return (
            f"Certified for every input: {found.weights:,} weights, none moved by more than "
            f"{found.largest_move:.2f} roundings; {found.seconds:.1f} s."
        )
    reason = found.reason.rstrip(".")
    if measured:
        return f"Not certified: {reason}; the verdict rests on the measurement alone."
    return (
        f"Not certified: {reason}. They may still be equal: without --certify=only it is measured."
    )


def describe_certificate(found: Found, *, measured: bool) -> dict[str, Any]:
    """`figures` of a certificate; or `where` the first value is that was not found in A."""
    figures = where = None
    if isinstance(found, Certified):
        figures = {
            "weights": found.weights,
            "largest_move": found.largest_move,
            "roundings": found.roundings,
            "sizes": [dict(sizes) for sizes in found.sizes],
        }
    elif found.value or found.op:
        where = {
            "value": found.value,
            "op": found.op,
            "channel": found.channel,
            "expected": _finite(found.expected),
            "found": _finite(found.found),
        }
    return {
        "certified": bool(found),
        "sentence": sentence(found, measured=measured),
        "figures": figures,
        "where": where,
        "seconds": found.seconds,
    }


def _finite(number: float | None) -> float | None:
    return None if number is None or not math.isfinite(number) else number
