"""The command line that was typed, so that help, hints and reports show commands to copy."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

MODULE = "python -m converter"

_name = ContextVar("program", default=MODULE)
_arguments: ContextVar[tuple[str, ...]] = ContextVar("arguments", default=())


def program() -> str:
    """What is typed before a subcommand: "python -m converter", or "foldserve"."""
    return _name.get()


def arguments() -> tuple[str, ...]:
    """What was typed behind it, the subcommand first."""
    return _arguments.get()


def typed() -> str:
    """The whole command line, quoted for a shell."""
    return f"{program()} {shlex.join(arguments())}"


@contextmanager
def called(name: str, words: Sequence[str]) -> Iterator[None]:
    """Inside the block this is the command line that was typed."""
    before, given = _name.set(name), _arguments.set(tuple(words))
    try:
        yield
    finally:
        _name.reset(before)
        _arguments.reset(given)
