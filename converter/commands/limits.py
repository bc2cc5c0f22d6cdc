"""The argument that bounds memory, shared by the commands that prove."""

from __future__ import annotations

import argparse
from contextlib import AbstractContextManager

from converter.system.memory import bounded, parse_size


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--max-memory",
        metavar="SIZE",
        help="end with an error where it would take more (900MB, 4GB); default: what is free on "
        "the machine and in its container",
    )


def memory(args: argparse.Namespace) -> AbstractContextManager[None]:
    """The limit that the arguments set, as long as the context is entered.

    Raises:
        UserError: it is no size, or too small to begin with.
    """
    return bounded(parse_size(args.max_memory) if args.max_memory else None)
