"""`finetune`: learn a new task from a trained network, with batch-norms that stand still."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from converter import architectures
from converter.architectures.modules import weights_of
from converter.commands.options.finetune import Finetune
from converter.commands.output import write_json
from converter.errors import UserError
from converter.finetuning.finetune import (
    Base,
    Transferred,
    finetune,
    to_checkpoint,
)
from converter.finetuning.options import Transfer
from converter.finetuning.subset import first, only_classes
from converter.report import FORMAT
from converter.report.console import Lasting, terminal
from converter.report.progress import Live
from converter.sources import LoadOptions, checkpoint, parse_arch_arg
from converter.sources.trained import load_module
from converter.statistics import render
from converter.training import console, datasets, files
from converter.training.data import Dataset, hold_out
from converter.training.progress import Progress

# From so small batches on, statistics that are not frozen are mostly noise.
SMALL_BATCH = 16


def run(asked: Finetune) -> int:
    """0: trained and written; 130 after Ctrl-C.

    Raises:
        UserError: the base, the data or an option is at fault; nothing is written then.
    """
    for path in (asked.output, asked.json):
        if path is not None:
            files.require_writable(path)
    if asked.file is not None and asked.output.exists() and asked.output.samefile(asked.file):
        raise UserError(f"{asked.output} is the base itself", "give another --output")
    how = asked.transfer
    how.check()
    asked.data.check_data()
    base = base_of(asked)
    stderr = Lasting(stderr=True)
    try:
        with Live(stderr) as live:
            progress = console.Told(live)
            data = data_of(asked, progress)
            result = finetune(base, data, how, [progress])
    except KeyboardInterrupt:
        stderr.print("interrupted; nothing was written", markup=False)
        return 130
    files.write(asked.output, checkpoint.to_bytes(to_checkpoint(base, data, how, result)))
    warnings = _warnings(how, result)
    _show(terminal(), asked.output, base, how, result, warnings)
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
        "written": str(asked.output),
    }
    write_json(asked.json, report)
    return 0


def data_of(asked: Finetune, progress: Progress) -> Dataset:
    """The new task's images. Raises UserError."""
    chosen, seed = asked.data, asked.transfer.seed
    data = datasets.load(
        chosen.dataset, chosen.data_dir, image_size=chosen.image_size, progress=progress
    )
    if asked.classes:
        data = only_classes(data, [name.strip() for name in asked.classes.split(",")])
    return hold_out(first(data, asked.samples, seed), chosen.validation, seed)


def base_of(asked: Finetune) -> Base:
    """The network to start from. Raises UserError."""
    arguments = dict(parse_arch_arg(text) for text in asked.arch_arg)
    if asked.arch is None:
        if asked.file is None:
            raise UserError(
                "there is nothing to start from",
                "give a checkpoint, or --arch timm:NAME, torchvision:NAME or one of train",
            )
        found = checkpoint.read(asked.file)
        return Base(found.architecture, found.arguments, found.heads, found.state_dict)
    if asked.file is None:
        return Base(asked.arch, arguments)
    if asked.arch in architectures.ARCHITECTURES:
        raise UserError(
            f"{asked.arch} with the weights of a file", "a checkpoint says itself what it is of"
        )
    trained = load_module(
        asked.file, LoadOptions(arch=asked.arch, arch_args=arguments, weights=asked.weights)
    )
    if trained.content:
        raise UserError(f"{asked.file} says itself what it is of", "leave out --arch")
    return Base(asked.arch, arguments, (), weights_of(trained.module))


def _warnings(how: Transfer, result: Transferred) -> list[str]:
    small = how.batch_size < SMALL_BATCH
    head = []
    if small and how.hidden:
        head.append(
            f"the batch-norm of the new head learned from batches of {how.batch_size}, each "
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
            f"each batch of {how.batch_size} is normalised by itself in training, which is "
            "not what inference computes: `recalibrate` helps the statistics, not the weights"
        )
    return said + head


def _show(
    console: Lasting,
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
