"""`finetune`: learn a new task from a trained network, with batch-norms that stand still."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from converter.commands.output import write_json
from converter.errors import UserError
from converter.finetuning.finetune import (
    Base,
    Transfer,
    Transferred,
    finetune,
    to_checkpoint,
)
from converter.finetuning.frozen import MODES
from converter.finetuning.subset import first, only_classes
from converter.report.facts import FORMAT
from converter.report.progress import Live
from converter.report.terminal import terminal
from converter.sources import LoadOptions, parse_arch_arg
from converter.sources.trained import load_module, weights_of
from converter.statistics import render
from converter.training import architectures, checkpoint, console, datasets, files
from converter.training.command import add_data_arguments, image_size
from converter.training.data import Dataset, hold_out
from converter.training.devices import pick_device
from converter.training.fit_options import FitOptions
from converter.training.progress import Progress

# From so small batches on, statistics that are not frozen are mostly noise.
SMALL_BATCH = 16


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "file",
        type=Path,
        nargs="?",
        metavar="FILE",
        help="a checkpoint of train or finetune, or with --arch a file of its weights; without "
        "FILE, --arch has random weights",
    )
    parser.add_argument(
        "--arch", metavar="ARCH", help="timm:NAME, torchvision:NAME, or an architecture of train"
    )
    parser.add_argument(
        "--arch-arg",
        action="append",
        default=[],
        metavar="K=V",
        help="an argument of the architecture (in_chans=1); may be repeated",
    )
    parser.add_argument(
        "--weights", metavar="KEY", help="which weights of a file with several sets, as for fold"
    )
    group = parser.add_argument_group("how it is transferred")
    group.add_argument(
        "--freeze-bn",
        choices=MODES,
        default="stats",
        help="stats: the statistics of the batch-norms stand still; all: their gamma and beta as "
        "well; none: they follow the new batches (default: %(default)s)",
    )
    group.add_argument(
        "--hidden",
        type=int,
        default=64,
        metavar="H",
        help="the new head is dense, batch-norm, ReLU, dense with H features; 0: a single dense "
        "layer (default: %(default)s)",
    )
    group.add_argument("--head-at", metavar="NAME", help="the dense layer that it replaces")
    group.add_argument(
        "--only-head", action="store_true", help="the weights before the head stand still as well"
    )
    add_data_arguments(parser)
    group = parser.add_argument_group("the new task")
    group.add_argument("--classes", metavar="A,B,..", help="only these classes of the data")
    group.add_argument("--samples", type=int, metavar="N", help="only N training samples")
    group = parser.add_argument_group("the training")
    for name, kind, default, words in (
        ("--epochs", int, 3, "passes"),
        ("--batch-size", int, 32, "images a step"),
        ("--lr", float, 0.001, "peak of the learning rate"),
        ("--seed", int, 0, "of the head's weights, the order and the augmentation"),
        ("--threads", int, 2, "CPU threads"),
    ):
        group.add_argument(name, type=kind, default=default, help=f"{words} (default: %(default)s)")
    group.add_argument("--no-augment", action="store_true", help="do not move the images")
    group.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument(
        "--output", type=Path, default=Path("finetuned.pt"), metavar="FILE",
        help="the checkpoint to write (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the report as JSON")


def run(args: argparse.Namespace) -> int:
    """0: trained and written; 130 after Ctrl-C.

    Raises:
        UserError: the base, the data or an option is at fault; nothing is written then.
    """
    for path in (args.output, args.json):
        if path is not None:
            files.require_writable(path)
    if args.file is not None and args.output.exists() and args.output.samefile(args.file):
        raise UserError(f"{args.output} is the base itself", "give another --output")
    how = transfer_of(args)
    how.fit.check()
    base = base_of(args)
    stderr = Console(stderr=True)
    try:
        with Live(stderr) as live:
            progress = console.Told(live)
            data = data_of(args, progress)
            result = finetune(base, data, how, [progress])
    except KeyboardInterrupt:
        stderr.print("interrupted; nothing was written", markup=False)
        return 130
    files.write(args.output, checkpoint.to_bytes(to_checkpoint(base, data, how, result)))
    warnings = _warnings(how, result)
    _show(terminal(), args.output, base, how, result, warnings)
    report: dict[str, Any] = {
        "format": FORMAT,
        "base": base.architecture,
        "data": data.description,
        "head": result.head.to_plain(),
        "freeze_bn": how.freeze_bn,
        "frozen": result.frozen,
        "moved": [row.to_json() for row in result.moved],
        "epochs": [asdict(epoch) for epoch in result.history.epochs],
        "accuracy_before": result.before,
        "test_accuracy": result.test_accuracy,
        "test_loss": result.test_loss,
        "warnings": warnings,
        "written": str(args.output),
    }
    write_json(args.json, report)
    return 0


def data_of(args: argparse.Namespace, progress: Progress) -> Dataset:
    """The new task's images. Raises UserError."""
    size = image_size(args.image_size)
    data = datasets.load(args.dataset, args.data_dir, image_size=size, progress=progress)
    if args.classes:
        data = only_classes(data, [name.strip() for name in args.classes.split(",")])
    return hold_out(first(data, args.samples, args.seed), args.validation, args.seed)


def transfer_of(args: argparse.Namespace) -> Transfer:
    """How the parsed command line wants it. Raises UserError."""
    if not 1 <= args.threads <= 1024:
        raise UserError(f"--threads is {args.threads}", "give an integer from 1 to 1024")
    return Transfer(
        freeze_bn=args.freeze_bn,
        hidden=args.hidden,
        head_at=args.head_at,
        only_head=args.only_head,
        fit=FitOptions(
            epochs=args.epochs,
            batch_size=args.batch_size,
            lr=args.lr,
            seed=args.seed,
            device=pick_device(args.device),
            augment=not args.no_augment,
        ),
        threads=args.threads,
    )


def base_of(args: argparse.Namespace) -> Base:
    """The network to start from. Raises UserError."""
    arguments = dict(parse_arch_arg(text) for text in args.arch_arg)
    if args.arch is None:
        if args.file is None:
            raise UserError(
                "there is nothing to start from",
                "give a checkpoint, or --arch timm:NAME, torchvision:NAME or one of train",
            )
        found = checkpoint.read(args.file)
        return Base(found.architecture, found.arguments, found.heads, found.state_dict)
    if args.file is None:
        return Base(args.arch, arguments)
    if args.arch in architectures.ARCHITECTURES:
        raise UserError(
            f"{args.arch} with the weights of a file", "a checkpoint says itself what it is of"
        )
    trained = load_module(
        args.file, LoadOptions(arch=args.arch, arch_args=arguments, weights=args.weights)
    )
    if trained.content:
        raise UserError(f"{args.file} says itself what it is of", "leave out --arch")
    return Base(args.arch, arguments, (), weights_of(trained.module))


def _warnings(how: Transfer, result: Transferred) -> list[str]:
    small = how.fit.batch_size < SMALL_BATCH
    head = []
    if small and how.hidden:
        head.append(
            f"the batch-norm of the new head learned from batches of {how.fit.batch_size}, each "
            "normalised by itself: --hidden 0 makes a head without one, or give larger batches"
        )
    if how.freeze_bn != "none" or not result.moved:
        return head
    worst = max(result.moved, key=lambda row: row.max_shift)
    said = [
        f"the statistics of {len(result.moved)} batch-norms followed the new batches: the mean of "
        f"{worst.name} went by up to {worst.max_shift:.2f} standard deviations, and what it had "
        "learned from the old data is gone. --freeze-bn stats keeps it"
    ]
    if small:
        said.append(
            f"each batch of {how.fit.batch_size} is normalised by itself in training, which is "
            "not what inference computes: `recalibrate` helps the statistics, not the weights"
        )
    return said + head


def _show(
    console: Console,
    output: Path,
    base: Base,
    how: Transfer,
    result: Transferred,
    warnings: list[str],
) -> None:
    table = Table(box=None, pad_edge=False, show_edge=False, show_header=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    last = result.history.epochs[-1]
    head = result.head
    hidden = f"{head.hidden} hidden" if head.hidden else "a single dense layer"
    norms = f"{len(result.frozen)} of {len(result.moved)} frozen ({how.freeze_bn})"
    for name, value in (
        ("base", base.architecture),
        ("new head", f"in place of {head.at}: {hidden}, {head.classes} classes"),
        ("batch-norms", norms),
        ("epochs", str(last.number)),
        ("train loss", f"{last.train_loss:.4f}"),
        ("test accuracy", f"{result.before:.2%} -> {result.test_accuracy:.2%}"),
        ("checkpoint", str(output)),
    ):
        table.add_row(name, Text(value))
    console.print(table)
    if how.freeze_bn == "none" and result.moved:
        console.print(Text("\nHow far the statistics went (old against new)", style="bold"))
        console.print(render.table(result.moved, values=False))
    for warning in warnings:
        console.print(Text(f"  warning: {warning}.", style="yellow"))
