"""`python -m converter train`: the options, and what is printed."""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path

from rich.console import Console

from converter.errors import UserError
from converter.training import console, files
from converter.training.architectures import ARCHITECTURES
from converter.training.trainer import TrainOptions, train

INTERRUPTED = 130  # what a shell gives for a process that Ctrl-C ended


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Every field of `TrainOptions`, and `--json`."""
    default = TrainOptions()
    parser.add_argument(
        "--arch",
        default=default.arch,
        help="; ".join(f"{name}: {row.description}" for name, row in ARCHITECTURES.items())
        + " (default: %(default)s)",
    )
    parser.add_argument(
        "--arch-arg",
        action="append",
        default=[],
        metavar="NAME=NUMBER",
        help="an argument of the architecture, may be repeated. "
        + "; ".join(
            f"{name}: " + ", ".join(f"{key}={size.default}" for key, size in row.arguments.items())
            for name, row in ARCHITECTURES.items()
        ),
    )
    parser.add_argument(
        "--data-dir",
        type=Path,
        metavar="FOLDER",
        help="where the four files of MNIST are; without it they are downloaded once, "
        "11 MB, to $XDG_CACHE_HOME/foldserve/mnist or ~/.cache/foldserve/mnist",
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=default.output,
        metavar="FILE",
        help="the checkpoint to write (default: %(default)s)",
    )
    parser.add_argument(
        "--epochs", type=int, default=default.epochs, help="passes (default: %(default)s)"
    )
    parser.add_argument(
        "--batch-size",
        type=int,
        default=default.batch_size,
        help="images a step (default: %(default)s)",
    )
    parser.add_argument(
        "--lr",
        type=float,
        default=default.lr,
        help="peak of the learning rate (default: %(default)s)",
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=default.seed,
        help="of the weights, the order and the augmentation (default: %(default)s)",
    )
    parser.add_argument(
        "--device",
        default=default.device,
        help="auto, cpu, cuda or cuda:N (default: %(default)s)",
    )
    parser.add_argument(
        "--threads",
        type=int,
        default=default.threads,
        help="CPU threads; the trained weights depend on it (default: %(default)s)",
    )
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="also write the result, with every epoch, here"
    )


def run(args: argparse.Namespace) -> int:
    """Train as `args` say; the progress goes to stderr, the final table to stdout.

    Returns:
        The exit status: 0, or 130 after Ctrl-C.

    Raises:
        UserError: see `trainer.train`; nothing was written then.
    """
    options = options_of(args)
    if args.json is not None:
        files.require_writable(args.json)
    stderr = Console(stderr=True)
    progress, shown = console.listener(stderr)
    try:
        with shown:
            result = train(options, progress)
    except KeyboardInterrupt:
        stderr.print("interrupted; nothing was written", markup=False)
        return INTERRUPTED
    if args.json is not None:
        text = json.dumps(result.to_json(), indent=2) + "\n"
        files.write(args.json, text.encode())
    Console().print(console.table(result))
    return 0


def options_of(args: argparse.Namespace) -> TrainOptions:
    """The options that the parsed command line asks for. Raises UserError for `--arch-arg`."""
    return TrainOptions(
        arch=args.arch,
        arch_args=arch_args(args.arch_arg),
        data_dir=args.data_dir,
        output=args.output,
        epochs=args.epochs,
        batch_size=args.batch_size,
        lr=args.lr,
        seed=args.seed,
        device=args.device,
        threads=args.threads,
    )


def arch_args(pairs: list[str]) -> dict[str, int]:
    """["width=8", "hidden=64"] -> {"width": 8, "hidden": 64}. Raises UserError."""
    found: dict[str, int] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not re.fullmatch("[0-9]{1,9}", value):
            raise UserError(f"--arch-arg {pair!r} is not NAME=NUMBER", "for example width=8")
        if name in found:
            raise UserError(f"--arch-arg {name!r} is given twice")
        found[name] = int(value)
    return found
