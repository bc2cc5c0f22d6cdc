"""How a training looks: bars on a terminal, plain lines in a log, and a table at the end."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

from rich import progress as bars
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from torch import nn

from converter.training.progress import Epoch, Progress, Run, Step
from converter.training.trainer import TrainResult


def sentence(epoch: Epoch, epochs: int) -> str:
    """One epoch as a line of a log."""
    return (
        f"epoch {epoch.number}/{epochs}  train loss {epoch.train_loss:.4f}  "
        f"loss {epoch.validation_loss:.4f}  accuracy {epoch.validation_accuracy:.2%}  "
        f"{epoch.seconds:.1f} s"
    )


class Lines(Progress):
    """A line for each epoch and each event: for logs and pipes."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.epochs = 0

    def say(self, sentence: str) -> None:
        self._line(sentence)

    def start(self, run: Run) -> None:
        self.epochs = run.epochs
        self._line(f"training: {run.batches} steps an epoch, epochs: {run.epochs}")

    def epoch(self, epoch: Epoch, module: nn.Module) -> None:  # noqa: ARG002
        self._line(sentence(epoch, self.epochs))

    def _line(self, text: str) -> None:
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)


class Bars(Lines):
    """The lines of a log, and below them a bar for all steps with the time that is left."""

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

    def start(self, run: Run) -> None:
        super().start(run)
        total, completed = run.epochs * run.batches, run.done * run.batches
        self.task = self.display.add_task("training", total=total, completed=completed)

    def step(self, step: Step, module: nn.Module) -> None:  # noqa: ARG002
        assert self.task is not None
        described = f"epoch {step.epoch}, loss {step.loss:.4f}"
        self.display.update(self.task, advance=1, description=described)


def listener(console: Console) -> tuple[Progress, AbstractContextManager[Any]]:
    """What to hand to `train`, and the block to run it in."""
    if console.is_terminal:
        shown = Bars(console)
        return shown, shown.display
    return Lines(console), nullcontext()


def table(result: TrainResult) -> Table:
    """What was trained, how well it does, and where it lies."""
    grid = Table(title="Training", title_justify="left", show_header=False)
    grid.add_column(style="bold")
    grid.add_column(overflow="fold")
    last = result.history[-1]
    threads = "thread" if result.threads == 1 else "threads"
    for name, value in (
        ("checkpoint", f"{result.output} ({result.bytes / 1000:,.0f} kB)"),
        ("parameters", f"{result.parameters:,}"),
        ("data", result.dataset),
        ("epochs", f"{last.number}" + (", stopped early" if result.stopped_early else "")),
        ("train loss", f"{last.train_loss:.4f}" + " (augmented images)" * result.augmented),
        ("test loss", f"{result.test_loss:.4f}"),
        ("test accuracy", f"{result.test_accuracy:.2%}"),
        ("time", f"{result.seconds:.0f} s on {result.device}, {result.threads} CPU {threads}"),
    ):
        grid.add_row(name, escape(value))
    return grid
