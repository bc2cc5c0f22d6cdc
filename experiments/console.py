"""How a comparison looks while it runs."""

from __future__ import annotations

from collections.abc import Sequence

from converter.report.progress import Live
from experiments.grid import varied
from experiments.records import Record
from experiments.runner import Listener
from experiments.settings import Settings, label


class Told(Listener):
    """Passes on to a person what the runner tells: a line a run, and a bar for all of them."""

    def __init__(self, live: Live, runs: Sequence[Settings]) -> None:
        self.live, self.names, self.total = live, varied(runs), 0

    def plan(self, total: int, done: int) -> None:
        self.total = total
        there = f", {done} of them finished before" if done else ""
        self.live.say(f"comparing: {total} runs{there}")
        self.live.begin("comparing", total, done)

    def finished(self, record: Record, number: int) -> None:
        self.live.say(f"{number}/{self.total}  {sentence(record, self.names)}")
        self.live.reach(number)


def sentence(record: Record, names: tuple[str, ...]) -> str:
    """A finished run as a line of a log."""
    ended = f", diverged at step {record.diverged}" if record.diverged else ""
    return (
        f"{label(record.settings, names)}, seed {record.settings.seed}: "
        f"accuracy {record.accuracy:.2%} after {record.steps} steps{ended}, "
        f"{sum(record.epoch_seconds):.1f} s"
    )
