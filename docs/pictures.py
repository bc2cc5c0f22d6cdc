"""Draw the pictures of docs/algebra.md: `python docs/pictures.py`.

A picture is a graph before and after a fold, as boxes in columns with arrows between them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

HERE = Path(__file__).parent / "pictures"
WIDTH, HEIGHT, GAP, ROW = 104, 34, 34, 58
PLAIN, NORM, CHANGED = "plain", "norm", "changed"
STYLE = """
text { font: 14px system-ui, sans-serif; text-anchor: middle; fill: #1c2321 }
.title { text-anchor: start; fill: #57615e } rect { stroke: #57615e; rx: 6 }
.plain { fill: #fbfbf9 } .norm { fill: #ffe3c2 } .changed { fill: #cdeee8 }
path { stroke: #57615e; fill: none; stroke-width: 1.5; marker-end: url(#tip) }
"""


@dataclass(frozen=True)
class Box:
    """`at`: column and row, may be fractions. `after`: indices of the boxes it reads."""

    text: str
    at: tuple[float, float]
    after: tuple[int, ...] = ()
    kind: str = PLAIN


Graph = list[Box]

PICTURES: dict[str, tuple[str, Graph, str, Graph]] = {
    "backward": (
        "before",
        [
            Box("x", (0, 0)),
            Box("Conv W, c", (1, 0), (0,)),
            Box("a, b", (2, 0), (1,), NORM),
            Box("Relu", (3, 0), (2,)),
        ],
        "after: W' = a W, c' = a c + b",
        [
            Box("x", (0, 0)),
            Box("Conv W', c'", (1, 0), (0,), CHANGED),
            Box("Relu", (2, 0), (1,)),
        ],
    ),
    "forward": (
        "before",
        [
            Box("Relu", (0, 0)),
            Box("a, b", (1, 0), (0,), NORM),
            Box("Flatten", (2, 0), (1,)),
            Box("Gemm W, c", (3, 0), (2,)),
        ],
        "after: W'[o, i] = W[o, i] a[i], c' = c + W b",
        [
            Box("Relu", (0, 0)),
            Box("Flatten", (1, 0), (0,)),
            Box("Gemm W', c'", (2, 0), (1,), CHANGED),
        ],
    ),
    "branches": (
        "before: RepVGG, as it is trained",
        [
            Box("x", (0, 1)),
            Box("Conv 3x3", (1, 0), (0,)),
            Box("a, b", (2, 0), (1,), NORM),
            Box("Conv 1x1", (1, 1), (0,)),
            Box("a', b'", (2, 1), (3,), NORM),
            Box("a'', b''", (2, 2), (0,), NORM),
            Box("Add", (3, 1), (2, 4, 5)),
        ],
        "after: one convolution, W' = a W3 + pad(a' W1) + diag(a'')",
        [Box("x", (0, 0)), Box("Conv 3x3", (1, 0), (0,), CHANGED)],
    ),
}


def place(box: Box, top: float) -> tuple[float, float]:
    return 10 + box.at[0] * (WIDTH + GAP), top + box.at[1] * ROW


def draw(title: str, graph: Graph, top: float) -> list[str]:
    parts = [f'<text class="title" x="10" y="{top - 12}">{escape(title)}</text>']
    for box in graph:
        x, y = place(box, top)
        for index in box.after:
            sx, sy = place(graph[index], top)
            begin, end = (sx + WIDTH, sy + HEIGHT / 2), (x - 4, y + HEIGHT / 2)
            half = (begin[0] + end[0]) / 2
            parts.append(
                f'<path d="M{begin[0]} {begin[1]}C{half} {begin[1]} {half} {end[1]} '
                f'{end[0]} {end[1]}"/>'
            )
        parts.append(
            f'<rect class="{box.kind}" x="{x}" y="{y}" width="{WIDTH}" height="{HEIGHT}"/>'
            f'<text x="{x + WIDTH / 2}" y="{y + HEIGHT / 2 + 5}">{escape(box.text)}</text>'
        )
    return parts


def picture(name: str) -> str:
    """The SVG of one picture, on a light ground of its own, so that it reads on a dark page."""
    above, before, below, after = PICTURES[name]
    rows = max(box.at[1] for box in before) + 1
    top = 34
    second = top + rows * ROW + 24
    height = second + (max(box.at[1] for box in after) + 1) * ROW
    width = 20 + max(box.at[0] + 1 for box in before) * (WIDTH + GAP)
    marker = (
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" '
        'markerHeight="7" orient="auto"><path d="M0 0 8 4 0 8z" '
        'style="fill:#57615e;stroke:none;marker-end:none"/></marker></defs>'
    )
    body = "\n".join([*draw(above, before, top), *draw(below, after, second)])
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:g}" height="{height:g}" '
        f'viewBox="0 0 {width:g} {height:g}" role="img"><style>{STYLE}</style>{marker}'
        f'<rect width="100%" height="100%" fill="#fff" stroke="none"/>\n{body}\n</svg>\n'
    )


if __name__ == "__main__":
    HERE.mkdir(exist_ok=True)
    for name in PICTURES:
        (HERE / f"{name}.svg").write_text(picture(name))
