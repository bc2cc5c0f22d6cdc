"""`python -m converter train`: the options, and what is printed."""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import Any

from rich.console import Console

from converter.errors import UserError
from converter.report.progress import Live
from converter.training import console, files
from converter.training.architectures import ARCHITECTURES
from converter.training.schedules import OPTIMIZERS, SCHEDULES
from converter.training.style_arguments import add_style_arguments, style_of
from converter.training.trainer import TrainOptions, train, unfinished

INTERRUPTED = 130  # what a shell gives for a process that Ctrl-C ended


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Every field of `TrainOptions` and of `Style`, and `--json`."""
    add_network_arguments(parser)
    add_style_arguments(parser)
    add_data_arguments(parser)
    _add_training_arguments(parser)
    _add_output_arguments(parser)


def add_network_arguments(parser: argparse.ArgumentParser) -> None:
    """`--arch` and `--arch-arg`."""
    group = parser.add_argument_group("the network")
    group.add_argument(
        "--arch",
        default=TrainOptions().arch,
        help="; ".join(f"{name}: {row.description}" for name, row in ARCHITECTURES.items())
        + " (default: %(default)s)",
    )
    group.add_argument(
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


def add_data_arguments(parser: argparse.ArgumentParser) -> None:
    """`--dataset`, `--data-dir`, `--image-size` and `--validation`."""
    default = TrainOptions()
    group = parser.add_argument_group("the data")
    group.add_argument(
        "--dataset",
        default=default.dataset,
        metavar="NAME_OR_PATH",
        help="mnist, fashion-mnist, an .npz file with x and y (or x_train, y_train, x_test, "
        "y_test), or a folder with a sub-folder of pictures for each class (default: %(default)s)",
    )
    group.add_argument(
        "--data-dir",
        type=Path,
        metavar="FOLDER",
        help="where the four files of mnist or fashion-mnist are; without it they are downloaded "
        "once to $XDG_CACHE_HOME/foldserve or ~/.cache/foldserve, 11 MB and 31 MB",
    )
    group.add_argument(
        "--image-size",
        metavar="SIZE",
        help="of a folder of pictures: squeeze them to SIZE by SIZE pixels, or HEIGHTxWIDTH",
    )
    group.add_argument(
        "--validation",
        type=float,
        default=default.validation,
        metavar="SHARE",
        help="hold out this share of the training images and measure each epoch on them; "
        "without it on the test images, which then decide nothing (default: %(default)s)",
    )


def _add_training_arguments(parser: argparse.ArgumentParser) -> None:
    default = TrainOptions()
    group = parser.add_argument_group("the training")
    group.add_argument(
        "--epochs", type=int, default=default.epochs, help="passes (default: %(default)s)"
    )
    group.add_argument(
        "--batch-size",
        type=int,
        default=default.batch_size,
        help="images a step (default: %(default)s)",
    )
    group.add_argument(
        "--lr",
        type=float,
        default=default.lr,
        help="peak of the learning rate (default: %(default)s)",
    )
    group.add_argument(
        "--optimizer",
        choices=tuple(OPTIMIZERS),
        default=default.optimizer,
        help="(default: %(default)s)",
    )
    group.add_argument(
        "--schedule",
        choices=tuple(SCHEDULES),
        default=default.schedule,
        help="of the learning rate: a warm-up and a cosine, or constant (default: %(default)s)",
    )
    group.add_argument(
        "--no-augment", action="store_true", help="do not shift, turn and scale the images"
    )
    group.add_argument(
        "--patience",
        type=int,
        metavar="EPOCHS",
        help="stop when the validation loss has not fallen for so many epochs, and keep the best "
        "(default: never)",
    )
    group.add_argument(
        "--mixed-precision", action="store_true", help="float16 where it is safe, on CUDA only"
    )
    group.add_argument(
        "--seed",
        type=int,
        default=default.seed,
        help="of the weights, the held-out images, the order and the augmentation "
        "(default: %(default)s)",
    )
    group.add_argument(
        "--device",
        default=default.device,
        help="auto, cpu, cuda or cuda:N (default: %(default)s)",
    )
    group.add_argument(
        "--threads",
        type=int,
        default=default.threads,
        help="CPU threads; the trained weights depend on it (default: %(default)s)",
    )


def _add_output_arguments(parser: argparse.ArgumentParser) -> None:
    default = TrainOptions()
    group = parser.add_argument_group("what is written")
    group.add_argument(
        "--output",
        type=Path,
        metavar="FILE",
        help=f"the checkpoint to write (default: {default.output} for the network that ships, "
        "ARCH.pt for others)",
    )
    group.add_argument(
        "--resume",
        action="store_true",
        help="go on after the last whole epoch of a training that was stopped, as if it had not "
        "been: its state is in FILE.unfinished",
    )
    group.add_argument(
        "--csv", type=Path, metavar="FILE", help="also write a line for each step here"
    )
    group.add_argument(
        "--json", type=Path, metavar="FILE", help="also write the result, with every epoch, here"
    )


def run(args: argparse.Namespace) -> int:
    """Train as `args` say; the progress goes to stderr, the final table to stdout.

    Returns:
        The exit status: 0, or 130 after Ctrl-C.

    Raises:
        UserError: see `trainer.train`; no checkpoint was written then.
    """
    options = options_of(args)
    if args.json is not None:
        files.require_writable(args.json)
    stderr = Console(stderr=True)
    try:
        with Live(stderr) as live:
            result = train(options, console.Told(live))
    except KeyboardInterrupt:
        stderr.print(_interrupted(options), markup=False, highlight=False, soft_wrap=True)
        return INTERRUPTED
    if args.json is not None:
        text = json.dumps(result.to_json(), indent=2) + "\n"
        files.write(args.json, text.encode())
    Console().print(console.table(result))
    return 0


def _interrupted(options: TrainOptions) -> str:
    kept = unfinished(options.output)
    if not kept.is_file():
        return "interrupted; nothing was written"
    return f"interrupted; with --resume the same command goes on from {kept}"


def options_of(args: argparse.Namespace) -> TrainOptions:
    """The options that the parsed command line asks for. Raises UserError."""
    same = (
        "arch dataset data_dir validation epochs batch_size lr optimizer schedule patience "
        "mixed_precision seed device threads resume csv"
    )
    given: dict[str, Any] = {name: getattr(args, name) for name in same.split()}
    return TrainOptions(
        arch_args=arch_args(args.arch_arg),
        style=style_of(args),
        image_size=image_size(args.image_size),
        augment=not args.no_augment,
        output=args.output or default_output(args.arch, args.dataset),
        **given,
    )


def default_output(arch: str, dataset: str) -> Path:
    """Nothing but the network that ships is written over it."""
    default = TrainOptions()
    if (arch, dataset) == (default.arch, default.dataset):
        return default.output
    return Path(re.sub("[^A-Za-z0-9._-]", "-", arch) + ".pt")


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


def image_size(text: str | None) -> tuple[int, int] | None:
    """ "64" -> (64, 64), "48x64" -> (48, 64), None -> None. Raises UserError."""
    if text is None:
        return None
    found = re.fullmatch("([1-9][0-9]{0,3})(?:x([1-9][0-9]{0,3}))?", text)
    if not found:
        raise UserError(f"--image-size is {text!r}", "give 64, or 48x64 for height and width")
    height, width = found[1], found[2] or found[1]
    return int(height), int(width)
