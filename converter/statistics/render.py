"""Print the drift of a recalibration: a table on a terminal, the same text in a log."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from converter.statistics.drift import LARGE_SHIFT, Drift
from converter.statistics.recalibration import Recalibration, Score


def show(
    console: Console,
    report: Mapping[str, Any],
    found: Recalibration,
    before: Score | None,
    after: Score | None,
) -> None:
    """Show what was recalibrated on what, the table, the accuracies, and what is suspicious."""
    console.print(Text.assemble((report["file"], "bold"), f" is {report['kind']}."))
    console.print(
        Text(f"Population: {report['samples']:,} samples, {report['data']}; {found.mode}.")
    )
    for note in report["notes"]:
        console.print(Text(f"  note: {note}"))
    console.print(table(found.rows))
    console.print(
        Text(
            "shift: |moving average - population mean| in standard deviations of the population; "
            "variance: moving average / population."
        )
    )
    console.print(
        Text(
            f"Another pass over the data finds what is stored, but for {found.residual:.1g} of it."
        )
    )
    if before and after:
        where = "test samples" if report["measured_on"] == "test" else "samples of the population"
        console.print(
            Text.assemble(
                f"Accuracy on {after.samples:,} {where}: {before.accuracy:.2%} -> ",
                (f"{after.accuracy:.2%}", "bold"),
                f"; cross-entropy {before.loss:.4f} -> {after.loss:.4f}.",
            )
        )
    for warning in found.warnings:
        console.print(Text(f"  warning: {warning}.", style="yellow"))


def table(rows: list[Drift], *, values: bool = True) -> Table:
    """A row for each norm; those whose mean was far off are highlighted.

    `values`: whether to show how many values of each channel were seen.
    """
    grid = Table(box=None, pad_edge=False, show_edge=False, header_style="bold")
    grid.add_column("norm", overflow="fold")
    grid.add_column("kind")
    counts = ("channels", "values") if values else ("channels",)
    for heading in (*counts, "max shift", "mean shift", "variance from", "to"):
        grid.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        far = row.max_shift > LARGE_SHIFT or row.never_updated
        grid.add_row(
            row.name or "(the module itself)",
            row.kind,
            f"{row.channels:,}",
            *([f"{row.values:,}"] if values else []),
            f"{row.max_shift:.3f}",
            f"{row.mean_shift:.3f}",
            f"{row.low_ratio:.3g}",
            f"{row.high_ratio:.3g}",
            style="yellow" if far else "",
        )
    return grid
