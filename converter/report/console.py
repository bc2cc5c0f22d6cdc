"""Where the command line writes: results on one side, what is being done on the other."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.text import Text


class Lasting(Console):
    """A console whose reader may leave, as `head` does: what is written after that goes nowhere.

    The work goes on, its files are written, and the exit code is that of the result.
    """

    def on_broken_pipe(self) -> None:
        self.quiet = True
        # What lies in the stream's buffer is written at the end: that must not fail again.
        with contextlib.suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.file.fileno())
            os.close(nowhere)


def terminal() -> Lasting:
    """The console for results. A log is as wide as it needs to be; a terminal has its own width."""
    console = Lasting(highlight=False)
    return console if console.is_terminal else Lasting(highlight=False, width=120)


@contextmanager
def working(what: str) -> Iterator[Callable[[str], None]]:
    """Show what is being done, apart from the results: a spinner on a terminal, lines in a log."""
    console = Lasting(stderr=True, highlight=False)
    if console.is_terminal:
        with console.status(what) as status:
            yield lambda text: status.update(text)
    else:
        console.print(Text(f"... {what}"))
        yield lambda text: console.print(Text(f"... {text}"))
