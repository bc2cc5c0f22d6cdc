"""`python -m converter`: the subcommands, their errors, and their exit codes.

0 = done and proven; 1 = the proof failed: the models differ; 2 = the input was at fault;
3 = it could not be measured whether they differ; 130 = interrupted.

Cyclopts reads the command line by the classes in `commands/options/`: it makes the one that was
asked for, help and suggestions come from the same declaration, and the module that does the work
is imported after that.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib import import_module

from cyclopts import App

from converter.commands import COMMANDS
from converter.commands.parsing import application, parsed
from converter.errors import UserError
from converter.system.memory import behind
from converter.system.program import MODULE, called
from service.version import program_version

EXIT_CODES = (
    "Exit codes: 0 done and proven; 1 the proof failed, the models differ; 2 the input was at "
    "fault; 3 it could not be measured whether they differ; 130 interrupted."
)


def main(argv: Sequence[str] | None = None, *, prog: str = MODULE) -> int:
    """Run a command line; returns the exit code. `prog` is what help and hints call the program."""
    arguments = list(sys.argv[1:] if argv is None else argv)

    def work() -> int:
        app = parser(prog)
        if not arguments:
            app.help_print([])
            return 2
        asked = parsed(app, arguments)
        if asked is None:  # the help or the version was shown
            return 0
        name = type(asked).__name__.lower()
        return int(import_module(COMMANDS[name].module).run(asked))

    with called(prog, arguments):
        return exit_code(work)


def parser(prog: str = MODULE) -> App:
    """Every subcommand, none of them imported yet."""
    app = application(
        prog,
        help="Fold batch normalization into the weights around it, and prove it.",
        version=f"Foldserve {program_version()}",
        help_epilogue=EXIT_CODES,
    )
    for place, (name, command) in enumerate(COMMANDS.items()):
        examples = [f"  {prog} {line}\n      {what}" for line, what in command.examples]
        app.command(
            f"converter.commands.options.{name}:{name.capitalize()}",
            name=name,
            help=f"{command.summary[:1].upper()}{command.summary[1:]}.",
            help_epilogue="\n".join(["Examples:", *examples] if examples else []),
            sort_key=place,
        )
    return app


def exit_code(work: Callable[[], int]) -> int:
    """What `work` returns, or 2 or 130 after a sentence on stderr that says why it ended."""
    try:
        return work()
    except UserError as error:
        return _complain(behind(error) or error)
    except (MemoryError, RuntimeError) as error:  # torch has no type of error for it
        shortage = behind(error)
        if shortage is None:
            raise
        return _complain(shortage)
    except OSError as error:  # of what is written besides files: a full disk behind `> log.txt`
        place = f"{error.filename}: " if error.filename else ""
        return _complain(UserError(f"the system refused: {place}{error.strerror or error}."))
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)  # noqa: T201
        return 130


def _complain(error: UserError) -> int:
    from rich.console import Console
    from rich.text import Text

    stderr = Console(stderr=True, highlight=False)
    stderr.print(Text.assemble(("error: ", "bold red"), error.message), soft_wrap=True)
    if error.hint:
        stderr.print(Text.assemble(("hint:  ", "bold"), error.hint), soft_wrap=True)
    return 2
