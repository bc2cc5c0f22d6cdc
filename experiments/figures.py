"""The curves of a comparison as SVG, drawn by matplotlib (the extra `plots`).

Each picture is there twice, for light and for dark pages. A line is the mean over the seeds, the
band around it goes from the smallest to the largest. Equal records give equal pictures.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from converter.errors import UserError
from experiments.records import Record
from experiments.settings import phrase
from experiments.summary import Arm

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Pictures of more panels are for nobody.
MOST_PANELS = 8
COLUMNS = 4
# A band is drawn through so many points.
POINTS = 80
LONG_NUMBER = re.compile(r"\d+\.\d{3,}")

# What is drawn in each colour of a light page, and its colour on a dark one. Pictures are drawn
# for light pages; for dark ones their colours are replaced.
INK, LINE, PAPER = "#1d2126", "#d9dee4", "#fffffe"
COLOURS: Mapping[str, str] = {"none": "#b3261e", "batch": "#1f5fbf", "renorm": "#17723b"}
DARK: Mapping[str, str] = {
    INK: "#e6e9ed",
    LINE: "#343b43",
    PAPER: "#14171a",
    COLOURS["none"]: "#ff9d94",
    COLOURS["batch"]: "#7fb0ff",
    COLOURS["renorm"]: "#6fd598",
}
DASHES = {"none": "--", "batch": "-", "renorm": "-."}


@dataclass(frozen=True)
class Picture:
    """Attributes:
    name: of the file, without suffix.
    title: what it shows, a sentence.
    svg: "light" and "dark" -> the picture.
    """

    name: str
    title: str
    svg: dict[str, str]


def require() -> None:
    """Find out before the trainings, not after. Raises UserError when matplotlib is missing."""
    if find_spec("matplotlib") is None:
        raise UserError(
            "the curves are drawn by matplotlib, which is not installed",
            "pip install 'foldserve[plots]'",
        )


def pictures(arms: Sequence[Arm], prefix: str) -> list[Picture]:
    """Losses, accuracies, and what was seen of the layers; `prefix` begins the names.

    Raises UserError when matplotlib is missing.
    """
    require()
    panels = _panels(arms)
    found = [
        _picture(f"{prefix}-loss", "Training loss (log axis) by epoch.", panels, _loss),
        _picture(
            f"{prefix}-accuracy", "Accuracy on the validation images by epoch.", panels, _accuracy
        ),
    ]
    layers = _layer_panels(panels)
    if layers:
        found.append(_layers_picture(f"{prefix}-layers", layers))
    return found


def left_out(arms: Sequence[Arm]) -> int:
    """How many panels the pictures do not show, for want of room."""
    return max(0, len({arm.panel for arm in _with_place(arms)}) - MOST_PANELS)


def _with_place(arms: Sequence[Arm]) -> list[Arm]:
    return [arm for arm in arms if arm.settings.norm != "none"] or list(arms)


def _panels(arms: Sequence[Arm]) -> dict[str, list[Arm]]:
    """Title -> arms: those that differ in nothing but the norm share a panel.

    A network without a norm is shown beside every arm whose baseline it is.
    """
    plain = {arm.settings: arm for arm in arms if arm.settings.norm == "none"}
    panels: dict[str, list[Arm]] = {}
    for arm in _with_place(arms):
        panel = panels.setdefault(arm.panel, [])
        baseline = plain.get(arm.settings.baseline_run)
        if baseline and baseline not in panel:
            panel.append(baseline)
        if arm not in panel:
            panel.append(arm)
    return dict(list(panels.items())[:MOST_PANELS])


Draw = Callable[["Axes", Sequence[Arm]], None]


def _picture(name: str, title: str, panels: Mapping[str, Sequence[Arm]], draw: Draw) -> Picture:
    columns = min(COLUMNS, len(panels))
    rows = math.ceil(len(panels) / columns)
    width = 6.2 if columns == 1 else 3.0 * columns
    with _styled():
        from matplotlib.figure import Figure

        figure = Figure(figsize=(width, 2.7 * rows), layout="tight")
        grid = figure.subplots(rows, columns, sharey=True, squeeze=False)
        for axes in grid.flat[len(panels) :]:
            axes.set_visible(False)
        for axes, (text, arms) in zip(grid.flat, panels.items(), strict=False):
            draw(axes, arms)
            axes.set_title("" if text == "all" else text)
            axes.set_xlabel("epoch")
        _legend(grid[0, 0])
        return Picture(name, title, _svg(figure))


def _legend(axes: Axes) -> None:
    if axes.get_legend_handles_labels()[0]:
        axes.legend()


def _loss(axes: Axes, arms: Sequence[Arm]) -> None:
    for arm in arms:
        _band(axes, arm, [_epochs_of_losses(record) for record in arm.records])
    axes.set_yscale("log")
    _first_column(axes, "loss")


def _accuracy(axes: Axes, arms: Sequence[Arm]) -> None:
    for arm in arms:
        lines = [
            ([v.epoch for v in r.validations], [100 * v.accuracy for v in r.validations])
            for r in arm.records
        ]
        _band(axes, arm, lines)
    _first_column(axes, "accuracy, %")


def _first_column(axes: Axes, text: str) -> None:
    place = axes.get_subplotspec()
    if place is not None and place.is_first_col():
        axes.set_ylabel(text)


def _epochs_of_losses(record: Record) -> tuple[list[float], list[float]]:
    per_epoch = max(1, record.images // record.settings.batch_size)
    steps = [step / per_epoch for step, _ in record.losses]
    return steps, [loss for _, loss in record.losses]


def _band(axes: Axes, arm: Arm, lines: Sequence[tuple[Sequence[float], Sequence[float]]]) -> None:
    """The mean of the lines, and the room between the lowest and the highest."""
    lines = [(x, y) for x, y in lines if len(x)]
    if not lines:
        return
    x, rows = _common(lines)
    colour = COLOURS[arm.settings.norm]
    name = phrase("norm", arm.settings.norm)
    axes.plot(x, rows.mean(0), DASHES[arm.settings.norm], color=colour, label=name, linewidth=1.4)
    axes.fill_between(x, rows.min(0), rows.max(0), color=colour, alpha=0.18, linewidth=0)


def _common(
    lines: Sequence[tuple[Sequence[float], Sequence[float]]],
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """All lines at the same places, as far as the shortest goes: (P,), (lines, P)."""
    xs = [np.asarray(x, float) for x, _ in lines]
    same = all(len(x) == len(xs[0]) and np.array_equal(x, xs[0]) for x in xs)
    start, end = max(x[0] for x in xs), min(x[-1] for x in xs)
    x = xs[0] if same and len(xs[0]) <= POINTS else np.linspace(start, end, POINTS)
    return x, np.stack(
        [np.interp(x, at, np.asarray(y, float)) for at, (_, y) in zip(xs, lines, strict=True)]
    )


def _layer_panels(panels: Mapping[str, Sequence[Arm]]) -> Sequence[Arm]:
    """Of the panels, the first whose arms have layers in common."""
    for arms in panels.values():
        if all(arm.layers for arm in arms):
            return arms
    return []


def _layers_picture(name: str, arms: Sequence[Arm]) -> Picture:
    names = [layer.name for layer in arms[0].layers]
    rows = (("drift of the input", "drift"), ("norm of the gradient", "gradient"))
    with _styled():
        from matplotlib.figure import Figure

        figure = Figure(figsize=(2.6 * len(names), 4.6), layout="tight")
        grid = figure.subplots(2, len(names), sharex=True, sharey="row", squeeze=False)
        for row, (text, quantity) in zip(grid, rows, strict=True):
            for axes, layer in zip(row, names, strict=True):
                for arm in arms:
                    _band(axes, arm, [_of_layer(r, layer, quantity) for r in arm.records])
                axes.set_yscale("log")
            row[0].set_ylabel(text)
        for axes, layer in zip(grid[0], names, strict=True):
            axes.set_title(layer)
        for axes in grid[1]:
            axes.set_xlabel("steps")
        _legend(grid[0, -1])
        svg = _svg(figure)
    where = "" if arms[-1].panel == "all" else f" ({arms[-1].panel})"
    title = f"Drift of each layer's input, and the norm of its gradient, log axes{where}."
    return Picture(name, title, svg)


def _of_layer(record: Record, layer: str, quantity: str) -> tuple[list[float], list[float]]:
    """The first snapshot has no drift; what is exactly 0 has no place on a log axis."""
    found = [
        (s.step, getattr(s, quantity))
        for s in record.layers.get(layer, ())
        if getattr(s, quantity) > 0 and math.isfinite(getattr(s, quantity))
    ]
    return [float(step) for step, _ in found], [value for _, value in found]


@contextmanager
def _styled() -> Iterator[None]:
    import matplotlib as mpl

    with mpl.rc_context(
        {
            "svg.fonttype": "none",  # text stays text
            "svg.hashsalt": "foldserve",  # equal pictures get equal ids
            "font.family": "sans-serif",
            "font.sans-serif": ["DejaVu Sans"],
            "font.size": 8.5,
            "axes.titlesize": 9,
            "axes.grid": True,
            "axes.axisbelow": True,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.edgecolor": LINE,
            "axes.labelcolor": INK,
            "axes.titlecolor": INK,
            "axes.facecolor": PAPER,
            "figure.facecolor": PAPER,
            "grid.color": LINE,
            "grid.linewidth": 0.6,
            "legend.frameon": False,
            "legend.labelcolor": INK,
            "path.simplify": True,
            "text.color": INK,
            "xtick.color": INK,
            "ytick.color": INK,
        }
    ):
        yield


def _svg(figure: Figure) -> dict[str, str]:
    """The picture for light pages, and the same in the colours of dark ones."""
    file = io.StringIO()
    figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    # A hundredth of a point is finer than any screen, and half of the file.
    text = LONG_NUMBER.sub(lambda found: f"{float(found[0]):.2f}", file.getvalue())
    light = "\n".join(line.rstrip() for line in text.splitlines()) + "\n"
    dark = light
    for colour, other in DARK.items():
        dark = dark.replace(colour, other)
    return {"light": light, "dark": dark}
