"""Entry point of `python -m experiments`."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from importlib import import_module

from cyclopts import App

from converter.cli import exit_code
from converter.commands.help import example
from converter.commands.parsing import application, parsed
from converter.system.program import called
from experiments.options import Experiments
from service.version import program_version

PROGRAM = "python -m experiments"
EXAMPLES = (
    ("--norm none,batch --lr 0.001,0.01 --seeds 5", "four arms of five runs each, compared"),
    ("--claims shift steps", "two of the claims, as their papers make them"),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line; returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)

    def work() -> int:
        asked = parsed(parser(), arguments)
        if asked is None:  # the help was shown
            return 0
        return int(import_module("experiments.command").run(asked))

    with called(PROGRAM, arguments):
        return exit_code(work)


def parser() -> App:
    """The one command."""
    columns = shutil.get_terminal_size().columns
    examples = [example(f"{PROGRAM} {line}", what, columns) for line, what in EXAMPLES]
    app = application(
        PROGRAM,
        help="Train with and without batch-norm, and report what was measured.",
        version=f"Foldserve {program_version()}",
        help_epilogue="\n".join(["Examples:", *examples]),
    )
    app.default(Experiments)
    return app


if __name__ == "__main__":
    sys.exit(main())
