"""How a training looks while it runs, and the table at its end."""

from __future__ import annotations

from rich.markup import escape
from rich.table import Table
from torch import nn

from converter.report.progress import Live
from converter.training.progress import Epoch, Progress, Run, Step
from converter.training.trainer import TrainResult


def sentence(epoch: Epoch, epochs: int) -> str:
    """One epoch as a line of a log."""
    return (
        f"epoch {epoch.number}/{epochs}  train loss {epoch.train_loss:.4f}  "
        f"loss {epoch.validation_loss:.4f}  accuracy {epoch.validation_accuracy:.2%}  "
        f"{epoch.seconds:.1f} s"
    )


class Told(Progress):
    """Passes on to a person what a training tells: a line an epoch, and a bar for its steps."""

    def __init__(self, live: Live) -> None:
        self.live = live
        self.epochs = 0

    def say(self, sentence: str) -> None:
        self.live.say(sentence)

    def received(self, done: int, total: int | None) -> None:
        if done == 0:
            self.live.begin("downloading", total, unit="bytes")
        self.live.reach(done)

    def start(self, run: Run) -> None:
        self.epochs = run.epochs
        self.say(f"training: {run.batches} steps an epoch, epochs: {run.epochs}")
        self.live.begin("training", run.epochs * run.batches, run.done * run.batches)

    def step(self, step: Step, module: nn.Module) -> None:  # noqa: ARG002
        self.live.reach(step.step, f"epoch {step.epoch}, loss {step.loss:.4f}")

    def epoch(self, epoch: Epoch, module: nn.Module) -> None:  # noqa: ARG002
        self.say(sentence(epoch, self.epochs))


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
