"""`inspect`: what `fold` would do, without doing it."""

from __future__ import annotations

import argparse
from pathlib import Path

from converter.commands import loading
from converter.commands.output import write_json
from converter.pipeline import plan
from converter.render import show_plan, show_source, terminal, working
from converter.report import FORMAT, describe_plan, describe_source


def add_arguments(parser: argparse.ArgumentParser) -> None:
    loading.add_arguments(parser)
    parser.add_argument(
        "--only", action="append", default=[], metavar="PATTERN", help="as for fold"
    )
    parser.add_argument(
        "--skip", action="append", default=[], metavar="PATTERN", help="as for fold"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the plan as JSON")


def run(args: argparse.Namespace) -> int:
    """0, whatever the plan.

    Raises:
        UserError: the input is at fault (exit code 2).
    """
    console = terminal()
    with working(f"loading {args.file}") as progress:
        loaded = loading.load_from(args)
        progress("planning")
        found = plan(loaded, only=args.only, skip=args.skip)
    show_source(console, loaded)
    show_plan(console, found)
    write_json(
        args.json,
        {"format": FORMAT, "source": describe_source(loaded), "plan": describe_plan(found)},
    )
    return 0
