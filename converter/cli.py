"""`python -m converter`: the subcommands, their errors, and their exit codes.

0 = done and proven; 1 = the proof failed: the models differ; 2 = the input was at fault;
3 = it could not be measured whether they differ; 130 = interrupted.

Cyclopts reads the command line by the classes in `commands/options/`: it makes the one that was
asked for, help and suggestions come from the same declaration, and the module that does the work
is imported after that.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import TYPE_CHECKING

from converter.commands import COMMANDS
from converter.commands.overview import ABOUT, overview
from converter.errors import UserError
from converter.system.memory import behind
from converter.system.program import MODULE, called

if TYPE_CHECKING:
    from cyclopts import App


def main(argv: Sequence[str] | None = None, *, prog: str = MODULE) -> int:
    """Run a command line; returns the exit code. `prog` is what help and hints call the program."""
    arguments = list(sys.argv[1:] if argv is None else argv)

    def work() -> int:
        if not arguments or arguments[0] in ("-h", "--help"):
            sys.stdout.write(overview(prog))
            return 0 if arguments else 2
        from converter.commands.parsing import parsed  # with its library, which help does without

        asked = parsed(parser(prog), arguments)
        if asked is None:  # the help or the version was shown
            return 0
        name = type(asked).__name__.lower()
        return int(import_module(COMMANDS[name].module).run(asked))

    with called(prog, arguments):
        return exit_code(work)


def parser(prog: str = MODULE, width: int | None = None) -> App:
    """Every subcommand, none of them imported yet; examples are `width` columns wide at most."""
    from converter.commands.help import example
    from converter.commands.parsing import application

    columns = width or shutil.get_terminal_size().columns
    app = application(prog, help=ABOUT, version=_version)
    for place, (name, command) in enumerate(COMMANDS.items()):
        examples = [example(f"{prog} {line}", what, columns) for line, what in command.examples]
        app.command(
            f"converter.commands.options.{name}:{name.capitalize()}",
            name=name,
            help=f"{command.summary[:1].upper()}{command.summary[1:]}.",
            help_epilogue="\n".join(["Examples:", *examples] if examples else []),
            sort_key=place,
        )
    return app


def _version() -> str:
    from service.version import program_version  # reads the metadata of packages

    return f"Foldserve {program_version()}"


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
