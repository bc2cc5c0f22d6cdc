"""How a command line is read, and how its mistakes are said: what every program here shares."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cyclopts import App, CycloptsError, Group, MissingArgumentError, Parameter
from cyclopts.exceptions import UnusedCliTokensError

from converter.commands.help import Layout
from converter.errors import UserError
from converter.system.program import program

# Options of subcommands whose value may be left out, as they are read then: cyclopts would take the
# next word for the value, be it a file.
_ALONE = {("verify", "--certify"): "--certify=yes"}


def application(name: str, **settings: Any) -> App:
    """An application of cyclopts with the manners of this project.

    A flag has no opposite unless one is declared; an option that is given twice counts as it was
    given last, or adds to a list; a default that says nothing is not shown.
    """
    app = App(
        name=name,
        help_format="plaintext",
        help_formatter=Layout(),
        group_parameters=Group("Options", sort_key=0),
        default_parameter=Parameter(negative=(), show_default=_shown, allow_repeating=True),
        **settings,
    )
    about = Group("About", sort_key=9)
    for flag, text in (("--help", "show this help"), ("--version", "show the version")):
        app[flag].group = (about,)
        app[flag].help = text
    return app


def parsed(app: App, arguments: Sequence[str]) -> Any:
    """What the command line asks for: an instance of the class that declares it.

    Returns:
        None where it asked for the help or the version, which was shown.

    Raises:
        UserError: it cannot be read; with the nearest option where one is near.
    """
    try:
        words = [_ALONE.get((arguments[0], word), word) for word in arguments]
        command, bound, _ = app.parse_args(words, print_error=False, exit_on_error=False)
    except CycloptsError as error:
        raise _mistake(error) from error
    return command(*bound.args, **bound.kwargs)


def _mistake(error: CycloptsError) -> UserError:
    """Cyclopts' error as ours: what is wrong, and a hint."""
    chain = " ".join(error.command_chain or ())
    command = " ".join(filter(None, (program(), chain)))
    see = f"`{command} --help` lists what it takes"
    if isinstance(error, UnusedCliTokensError) and error.unused_tokens:
        return UserError(f"there is no place for {error.unused_tokens[0]!r}", see)
    if isinstance(error, MissingArgumentError) and error.argument is not None:
        given = error.keyword or next((t.keyword for t in error.argument.tokens if t.keyword), None)
        if given:
            return UserError(f"{given} needs a value", see)
        name = error.argument.names[0]
        if error.argument.index is not None:  # known by its place, not by an option
            name = name.removeprefix("--")
        return UserError(f"{name} is missing", see)
    said, _, suggestion = str(error).partition(". ")
    return UserError(_begun(said), _begun(suggestion) or see)


def _begun(sentence: str) -> str:
    """As it goes on behind "error: " and "hint: "."""
    return f"{sentence[:1].lower()}{sentence[1:]}".removesuffix(".")


def _shown(default: Any) -> str | None:
    if default is None or default is False or default in ((), {}):
        return None
    return "yes" if default is True else str(default)
