"""One of several server processes: what it is told, and what it says to its supervisor."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

# Through its pipe.
SERVING, ALIVE, LEAVING = b"s", b".", b"e"


@dataclass(frozen=True, slots=True)
class Worker:
    """What a worker is told.

    `index`: from 0, the same again after a crash. `pages`: a folder for the metrics of all.
    `say`: hands a message to the supervisor.
    """

    count: int
    index: int
    port: int
    first: bool
    pages: Path
    say: Callable[[bytes], None]

    def serving(self) -> None:
        """Tell the supervisor that the models are loaded."""
        self.say(SERVING)

    def beat(self) -> None:
        """Tell it that the event loop turns; the loop calls this about once a second."""
        self.say(ALIVE)

    def leaving(self) -> None:
        """Tell it that the event loop is about to end, and that no more beats follow."""
        self.say(LEAVING)
