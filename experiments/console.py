"""How a comparison looks while it runs: a bar on a terminal, a line for each run anywhere."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from rich import progress as bars
from rich.console import Console

from experiments.grid import varied
from experiments.records import Record
from experiments.runner import Listener
from experiments.settings import Settings, label


class Lines(Listener):
    """A line when a run is finished: for logs and pipes."""

    def __init__(self, console: Console, runs: Sequence[Settings]) -> None:
        self.console, self.names, self.total = console, varied(runs), 0

    def plan(self, total: int, done: int) -> None:
        self.total = total
        there = f", {done} of them finished before" if done else ""
        self._line(f"comparing: {total} runs{there}")

    def finished(self, record: Record, number: int) -> None:
        self._line(f"{number}/{self.total}  {sentence(record, self.names)}")

    def _line(self, text: str) -> None:
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)


class Bars(Lines):
    """The lines of a log, and below them a bar for all runs with the time that is left."""

    def __init__(self, console: Console, runs: Sequence[Settings]) -> None:
        super().__init__(console, runs)
        self.display = bars.Progress(
            bars.TextColumn("comparing"),
            bars.BarColumn(),
            bars.MofNCompleteColumn(),
            bars.TimeElapsedColumn(),
            bars.TimeRemainingColumn(),
            console=console,
            transient=True,
        )
        self.task = self.display.add_task("comparing", total=None)

    def plan(self, total: int, done: int) -> None:
        super().plan(total, done)
        self.display.update(self.task, total=total, completed=done)

    def finished(self, record: Record, number: int) -> None:
        super().finished(record, number)
        self.display.update(self.task, completed=number)


def sentence(record: Record, names: tuple[str, ...]) -> str:
    """A finished run as a line of a log."""
    ended = f", diverged at step {record.diverged}" if record.diverged else ""
    return (
        f"{label(record.settings, names)}, seed {record.settings.seed}: "
        f"accuracy {record.accuracy:.2%} after {record.steps} steps{ended}, "
        f"{sum(record.epoch_seconds):.1f} s"
    )


def listener(
    console: Console, runs: Sequence[Settings]
) -> tuple[Listener, AbstractContextManager[Any]]:
    """What to hand to `runner.complete`, and the block to run it in."""
    if console.is_terminal:
        shown = Bars(console, runs)
        return shown, shown.display
    return Lines(console, runs), nullcontext()
