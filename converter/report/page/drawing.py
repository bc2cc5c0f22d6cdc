"""Where the boxes of a neighbourhood go on paper. All lengths are in pixels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

WIDTH, HEIGHT = 200, 40
BESIDE, BETWEEN = 14, 26
MARGIN = 3
# How many characters of a name fit into a box.
FITS = 28


def draw(around: Mapping[str, Any]) -> dict[str, Any]:
    """`boxes` with corner and texts, `edges` as SVG paths, and the size of the whole."""
    layers: dict[int, list[int]] = {}
    for index, box in enumerate(around["boxes"]):
        layers.setdefault(box["layer"], []).append(index)
    rows = [layers[layer] for layer in sorted(layers)]
    breadth = max(len(row) for row in rows)
    width = breadth * (WIDTH + BESIDE) - BESIDE + 2 * MARGIN
    corners: dict[int, tuple[float, float]] = {}
    for level, row in enumerate(rows):
        used = len(row) * (WIDTH + BESIDE) - BESIDE
        for place, index in enumerate(row):
            corners[index] = (
                (width - used) / 2 + place * (WIDTH + BESIDE),
                MARGIN + level * (HEIGHT + BETWEEN),
            )
    return {
        "width": width,
        "box": (WIDTH, HEIGHT),
        "height": 2 * MARGIN + len(rows) * (HEIGHT + BETWEEN) - BETWEEN,
        "boxes": [
            {
                "x": corners[index][0],
                "y": corners[index][1],
                "op": box["op"],
                "name": box["name"],
                "short": shorten(box["name"], FITS),
                "role": box["role"].replace(" ", "-"),
            }
            for index, box in enumerate(around["boxes"])
        ],
        "edges": [_path(corners[a], corners[b]) for a, b in around["edges"]],
    }


def shorten(text: str, limit: int) -> str:
    """Cut out the middle: a name is recognised by its beginning and its end."""
    if len(text) <= limit:
        return text
    head = (limit - 1) // 2
    return f"{text[:head]}…{text[-(limit - 1 - head) :]}"


def _path(start: tuple[float, float], end: tuple[float, float]) -> str:
    x1, y1 = start[0] + WIDTH / 2, start[1] + HEIGHT
    x2, y2 = end[0] + WIDTH / 2, end[1] - 4
    bend = max(BETWEEN / 2, (y2 - y1) / 2)
    return f"M{x1:g} {y1:g}C{x1:g} {y1 + bend:g} {x2:g} {y2 - bend:g} {x2:g} {y2:g}"
