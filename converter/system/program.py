"""The name that the command line was called by: help and hints say commands that can be copied."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

MODULE = "python -m converter"

_name = ContextVar("program", default=MODULE)


def program() -> str:
    """What is typed before a subcommand: "python -m converter", or "foldserve"."""
    return _name.get()


@contextmanager
def called(name: str) -> Iterator[None]:
    """Inside the block the program has this name."""
    before = _name.set(name)
    try:
        yield
    finally:
        _name.reset(before)
