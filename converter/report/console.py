"""Where the command line writes: results on one side, what is being done on the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.text import Text


def terminal() -> Console:
    """The console for results. A log is as wide as it needs to be; a terminal has its own width."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=120)


@contextmanager
def working(what: str) -> Iterator[Callable[[str], None]]:
    """Show what is being done, apart from the results: a spinner on a terminal, lines in a log."""
    console = Console(stderr=True, highlight=False)
    if console.is_terminal:
        with console.status(what) as status:
            yield lambda text: status.update(text)
    else:
        console.print(Text(f"... {what}"))
        yield lambda text: console.print(Text(f"... {text}"))
