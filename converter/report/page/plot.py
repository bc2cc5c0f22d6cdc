"""The proof as a plot: errors of both graphs against what is allowed, on a log axis."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from converter.report.page.drawing import shorten

WIDTH, LINE, TOP, BOTTOM = 480, 34, 8, 34
LEFT, RIGHT = 34, 458
# How many lines are drawn; the table beside the plot has all of them.
MOST_LINES = 40
FITS = 60


def plot(measurements: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """A line for each output and set of inputs; None if there is no error above 0 to show.

    An error of exactly 0 has no place on a log axis: it is drawn on a separate line, left of
    it. One that is not finite is not drawn.
    """
    shown = measurements[:MOST_LINES]
    keys = ("error_original", "error_folded", "allowed")
    found = [m[key] for m in shown for key in keys]
    positive = [number for number in found if number]
    if not positive:
        return None
    low = math.floor(math.log10(min(positive)))
    high = max(math.ceil(math.log10(max(positive))), low + 1)
    start = LEFT + 26

    def at(number: float | None) -> float | None:
        if number is None:
            return None
        if number == 0:
            return LEFT
        share = (math.log10(number) - low) / (high - low)
        return round(start + share * (RIGHT - start), 2)

    step = max(1, math.ceil((high - low) / 8))
    bottom = TOP + LINE * len(shown)
    return {
        "width": WIDTH,
        "height": bottom + BOTTOM,
        "bottom": bottom,
        "zero": LEFT if any(number == 0 for number in found) else None,
        "ticks": [
            {"x": at(10.0**power), "text": f"1e{power:+03d}"}
            for power in range(low, high + 1, step)
        ],
        "lines": [
            {
                "y": TOP + LINE * index + 24,
                "text": shorten(f"{m['output']}, {m['inputs']}", FITS),
                "title": f"{m['output']}, {m['inputs']}",
                "passed": m["passed"] or m.get("excused", False),
                "original": at(m["error_original"]),
                "folded": at(m["error_folded"]),
                "allowed": at(m["allowed"]),
            }
            for index, m in enumerate(shown)
        ],
        "left_out": len(measurements) - len(shown),
    }
