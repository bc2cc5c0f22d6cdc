"""`python -m converter compare`: it became `python -m experiments`, and this says so."""

from __future__ import annotations

import argparse
import shlex

from converter.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Anything that `compare` took."""
    parser.add_argument("rest", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)


def run(args: argparse.Namespace) -> int:
    """Raises UserError, which names the command to type."""
    command = shlex.join(["python", "-m", "experiments", *args.arguments[1:]])
    raise UserError(
        "compare is no command of the converter any more: comparing how networks train is no part "
        "of folding one.",
        f"it is in the source tree of Foldserve, which is not installed by pip; there: {command}",
    )
