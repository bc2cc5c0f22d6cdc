"""`python -m converter`: the subcommands, their errors, and their exit codes.

0 = done and proven; 1 = the proof failed: the models differ; 2 = the input was at fault;
3 = it could not be measured whether they differ; 130 = interrupted.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from importlib import import_module

from rich.console import Console
from rich.text import Text

from converter.commands import COMMANDS
from converter.errors import UserError
from converter.system.memory import behind
from converter.system.program import MODULE, called, program
from service.version import program_version


def main(argv: Sequence[str] | None = None, *, prog: str = MODULE) -> int:
    """Run a command line; returns the exit code. `prog` is what help and hints call the program."""
    arguments = list(sys.argv[1:] if argv is None else argv)

    def work() -> int:
        parser = _parser(arguments)  # imports what the command needs: seconds, with torch
        args = parser.parse_args(arguments)
        args.arguments = arguments
        if args.command is None:
            parser.print_help()
            return 2
        return int(import_module(COMMANDS[args.command][0]).run(args))

    with called(prog):
        return exit_code(work)


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
        Console(stderr=True).print("interrupted")
        return 130


def _complain(error: UserError) -> int:
    stderr = Console(stderr=True, highlight=False)
    stderr.print(Text.assemble(("error: ", "bold red"), error.message), soft_wrap=True)
    if error.hint:
        stderr.print(Text.assemble(("hint:  ", "bold"), error.hint), soft_wrap=True)
    return 2


def _parser(arguments: Sequence[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=program(),
        description="Fold batch normalization into the weights around it, and prove it.",
    )
    version = f"Foldserve {program_version()}"
    parser.add_argument("--version", action="version", version=version, help="show the version")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    for name, (module, summary) in COMMANDS.items():
        command = commands.add_parser(name, help=summary, description=summary)
        if name in arguments:
            import_module(module).add_arguments(command)
    return parser
