"""How a run looks: a bar on a terminal with the lines above it, the lines alone in a log."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

from rich import progress as bars
from rich.console import Console

from benchmarks.zoo.results import Row


def sentence(row: Row) -> str:
    """A row as a line of a log."""
    name = f"{row['name']:44}"
    if "error" in row:
        error = row["error"]
        return f"{name} {row['status']}: {error['class']}: {error['sentence'][:120]}"
    peers = ", ".join(
        f"{peer} {found.get('left', 'failed')}" + ("" if found.get("right", True) else " WRONG")
        for peer, found in row.get("peers", {}).items()
    )
    beside = f"  (left by {peers})" if peers else ""
    if "verdict" not in row:
        return f"{name} {row['batchnorms']:4} batch-norms exported{beside}"
    verdict = row["verdict"].upper() if row["verdict"] == "wrong" else row["verdict"]
    return (
        f"{name} {row['left']:4} of {row['batchnorms']:4} left, {verdict}, "
        f"float64 {row['exact']:.0e}, {row['fold_seconds']:.1f} + {row['proof_seconds']:.1f} s"
        f"{beside}"
    )


class Listener:
    """A line for each row."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.total = self.count = 0

    def start(self, total: int) -> None:
        self.total = total
        self.say(f"{total} architectures to run")

    def say(self, text: str) -> None:
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def row(self, row: Row) -> None:
        self.count += 1
        self.say(f"{self.count:4}/{self.total} {sentence(row)}")


class Bar(Listener):
    """The lines, and below them how far the run is and how long it will take."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self.display = bars.Progress(
            bars.TextColumn("{task.description}"),
            bars.BarColumn(),
            bars.MofNCompleteColumn(),
            bars.TimeElapsedColumn(),
            bars.TimeRemainingColumn(),
            console=console,
            transient=True,
        )
        self.task: bars.TaskID | None = None

    def start(self, total: int) -> None:
        super().start(total)
        self.task = self.display.add_task("zoo", total=total)

    def row(self, row: Row) -> None:
        super().row(row)
        assert self.task is not None
        self.display.advance(self.task)


def listener(console: Console) -> tuple[Listener, AbstractContextManager[Any]]:
    """What to hand to `run`, and the block to run it in."""
    if console.is_terminal:
        shown = Bar(console)
        return shown, shown.display
    return Listener(console), nullcontext()
