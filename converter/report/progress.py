"""Show the progress of work while it runs: lines in a log, and a bar on a terminal."""

from __future__ import annotations

from types import TracebackType

from rich import filesize
from rich import progress as bars
from rich.console import Console


class Live:
    """Reports progress. It is a context manager: the bar is shown inside the block.

    Every sentence is a line. A terminal also shows, below the lines, a bar for the current work
    with the time that is left; the bar disappears at the end of the block.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self._display = bars.Progress(
            bars.TextColumn("{task.description}"),
            bars.BarColumn(),
            bars.TextColumn("{task.fields[amount]}"),
            bars.TimeElapsedColumn(),
            bars.TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task: bars.TaskID | None = None
        self._unit = ""

    def say(self, sentence: str) -> None:
        """Print one line."""
        self.console.print(sentence, markup=False, highlight=False, soft_wrap=True)

    def begin(self, what: str, total: int | None, done: int = 0, unit: str = "") -> None:
        """Show a bar for a new piece of work, in place of the one before.

        Args:
            total: how many parts it has; None when that is not known.
            done: how many of them are done already.
            unit: "bytes" shows the parts as kB and MB.
        """
        self.end()
        self._unit = unit
        self._task = self._display.add_task(what, total=total, amount="")
        self.reach(done)

    def reach(self, done: int, what: str | None = None) -> None:
        """Set the bar to `done` parts; `what` replaces the words beside the bar."""
        if self._task is None:
            return
        task = self._display.tasks[-1]
        shown = [self._amount(done)] + ([self._amount(int(task.total))] if task.total else [])
        self._display.update(
            self._task,
            completed=done,
            description=task.description if what is None else what,
            amount="/".join(shown),
        )

    def end(self) -> None:
        """Remove the bar: its work is done or was given up."""
        if self._task is not None:
            self._display.remove_task(self._task)
            self._task = None

    def _amount(self, count: int) -> str:
        return filesize.decimal(count) if self._unit == "bytes" else str(count)

    def __enter__(self) -> Live:
        self._display.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._display.stop()
