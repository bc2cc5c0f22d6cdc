"""Entry point of `python -m experiments`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from converter.cli import exit_code
from experiments import command


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line; returns the exit code."""

    def work() -> int:
        parser = argparse.ArgumentParser(
            prog="python -m experiments",
            description="Train with and without batch-norm, and report what was measured.",
        )
        command.add_arguments(parser)
        return command.run(parser.parse_args(argv))

    return exit_code(work)


if __name__ == "__main__":
    sys.exit(main())
