"""The list of the subcommands, which is there at once: it needs nothing but the table."""

from __future__ import annotations

import shutil
import textwrap

from converter.commands import COMMANDS

ABOUT = "Fold batch normalization into the weights around it, and prove it."
EXIT_CODES = (
    "Exit codes: 0 done and proven; 1 the proof failed, the models differ; 2 the input was at "
    "fault; 3 it could not be measured whether they differ; 130 interrupted."
)


def overview(program: str, width: int | None = None) -> str:
    """The help of the program itself.

    Args:
        program: what is typed before a subcommand.
        width: columns; that of the terminal when None.
    """
    columns = max(20, width or shutil.get_terminal_size().columns)
    rows = {name: command.summary for name, command in COMMANDS.items()}
    options = {
        "-h, --help": "show this help, or that of a command",
        "--version": "show the version",
    }
    indent = 4 + max(map(len, {**rows, **options}))

    def paragraph(text: str) -> str:
        return textwrap.fill(text, columns, break_on_hyphens=False)

    def table(content: dict[str, str]) -> list[str]:
        return [
            textwrap.fill(
                text,
                columns,
                initial_indent=f"  {name}".ljust(indent),
                subsequent_indent=" " * indent,
                break_on_hyphens=False,
            )
            for name, text in content.items()
        ]

    lines = [f"Usage: {program} COMMAND ...", "", paragraph(ABOUT)]
    lines += ["", "Commands", *table(rows), "", "Options", *table(options)]
    return "\n".join([*lines, "", paragraph(EXIT_CODES), ""])
