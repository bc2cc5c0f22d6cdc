"""`recalibrate`: true population statistics for the batch-norms of a trained model."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from converter.commands import loading
from converter.commands.output import write_json
from converter.errors import UserError
from converter.report.facts import FORMAT
from converter.report.terminal import terminal, working
from converter.sources.trained import Trained, load_module
from converter.statistics import data, render
from converter.statistics.data import Preparation, Samples
from converter.statistics.recalibration import MODES, Recalibration, Score, recalibrate, score
from converter.training import files
from converter.training.devices import pick_device


def add_arguments(parser: argparse.ArgumentParser) -> None:
    loading.add_arguments(parser)
    parser.add_argument(
        "--data",
        type=Path,
        required=True,
        metavar="DATA",
        help="the population: a folder with MNIST's files or with images by class, an .npz (x, y), "
        "or an .npy of inputs; best the training data, without augmentation",
    )
    parser.add_argument(
        "--mode",
        choices=list(MODES),
        default="layerwise",
        help="layerwise: exact, each norm behind norms that are done, a pass for each; onepass: "
        "batches normalise themselves, one pass (default: %(default)s)",
    )
    parser.add_argument(
        "--output", type=Path, metavar="FILE", help="default: FILE.recalibrated.pt, beside it"
    )
    parser.add_argument("--dry-run", action="store_true", help="show the drift, and write no model")
    parser.add_argument(
        "--limit", type=_positive, metavar="N", help="take N samples, drawn at random"
    )
    parser.add_argument("--seed", type=int, default=0, help="of --limit (default: %(default)s)")
    parser.add_argument(
        "--batch-size", type=_positive, default=250, help="samples at a time (default: %(default)s)"
    )
    parser.add_argument(
        "--mean", metavar="M,M,..", help="of pictures in [0, 1], a number or one a channel"
    )
    parser.add_argument("--std", metavar="S,S,..", help="likewise; pictures become (x - M) / S")
    parser.add_argument(
        "--device", default="cpu", help="cpu, cuda or cuda:N (default: %(default)s)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the report as JSON")


def run(args: argparse.Namespace) -> int:
    """0: recalibrated, and written unless it is a dry run.

    Raises:
        UserError: the model, the data or an argument is at fault; nothing is written then.
    """
    output = args.output or default_output(args.file)
    for path in (None if args.dry_run else output, args.json):
        if path is not None:
            files.require_writable(path)
    if args.json is not None and args.json.exists() and args.json.samefile(args.file):
        raise UserError(f"{args.json} is the input", "give another name")
    console = terminal()
    with working(f"loading {args.file}") as progress:
        trained = load_module(args.file, loading.options_of(args))
        progress(f"reading {args.data}")
        sizes = _sizes(args, trained)
        source = data.read(args.data, sizes)
        if trained.content:  # a checkpoint of ours
            source = source.pictures(args.data)
        population = data.some(data.shaped(source.train, sizes, args.data), args.limit, args.seed)
        measured = source.measured
        if measured is not None:
            measured = data.shaped(measured, sizes, args.data)
        device = pick_device(args.device)
        prepare = preparation(args, trained, device)
        module = trained.module.to(device)
        progress("accuracy")
        before = _scored(module, measured, prepare, args.batch_size)
        try:
            found = recalibrate(
                module,
                lambda: prepare.batches(population, args.batch_size),
                mode=args.mode,
                progress=progress,
            )
        except (RuntimeError, TypeError, ValueError, IndexError) as error:
            raise _does_not_run(args.data, error) from error
        progress("accuracy")
        after = _scored(module, measured, prepare, args.batch_size)
        module.cpu()
    on_test = source.test is not None
    report: dict[str, Any] = {
        "format": FORMAT,
        "file": str(args.file),
        "kind": trained.kind,
        "data": source.description,
        "samples": len(population),
        "mode": found.mode,
        "norms": [row.to_json() for row in found.rows],
        "residual": found.residual,
        "before": asdict(before) if before else None,
        "after": asdict(after) if after else None,
        "measured_on": "test" if on_test else "the population itself",
        "warnings": found.warnings,
        "notes": [*trained.notes, *found.notes],
        "written": None if args.dry_run else str(output),
    }
    render.show(console, report, found, before, after)
    if not args.dry_run:
        changes = changed(found, len(population), args.batch_size, trained, after, on_test)
        files.write(output, trained.to_bytes(changes))
        console.print(f"Wrote {output}", markup=False, soft_wrap=True)
    write_json(args.json, report)
    return 0


def default_output(file: Path) -> Path:
    """`model.pt` -> `model.recalibrated.pt`, beside it."""
    return file.with_name(f"{file.stem}.recalibrated{file.suffix or '.pt'}")


def changed(
    found: Recalibration,
    samples: int,
    batch_size: int,
    trained: Trained,
    after: Score | None,
    on_test: bool,
) -> dict[str, Any]:
    """The keys of a checkpoint of ours that are true no more, as they now are.

    Metrics that were measured with the old statistics go, unless they were measured again.
    """
    metrics = dict(trained.content.get("metrics") or {})
    for key in ("test_accuracy", "test_loss"):
        metrics.pop(key, None)
    if after and on_test:
        metrics |= {"test_accuracy": after.accuracy, "test_loss": after.loss}
    return {
        "metrics": metrics,
        "statistics": {
            "kind": "population",
            "mode": found.mode,
            "samples": samples,
            "batch_size": batch_size,
            "variance": "of the population, without Bessel's correction",
        },
    }


def preparation(args: argparse.Namespace, trained: Trained, device: torch.device) -> Preparation:
    """How pictures become inputs: as the user says, else as the checkpoint does."""
    told = trained.content.get("preprocessing") or {}
    mean = _numbers("--mean", args.mean) or tuple(told.get("mean") or (0.0,))
    std = _numbers("--std", args.std) or tuple(told.get("std") or (1.0,))
    if min(std) <= 0:
        raise UserError(f"--std is {args.std}", "give positive numbers")
    return Preparation(mean, std, _dtype(trained.module), device)


def _dtype(module: nn.Module) -> torch.dtype:
    kinds = (p.dtype for p in module.parameters() if p.is_floating_point())
    return next(kinds, torch.float32)


def _numbers(option: str, text: str | None) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(",")) if text else ()
    except ValueError as error:
        raise UserError(f"{option} {text!r} is no list of numbers", "0.485,0.456,0.406") from error


def _sizes(args: argparse.Namespace, trained: Trained) -> tuple[int, ...] | None:
    given = loading.options_of(args).input_shapes
    if len(given) > 1:
        raise UserError("recalibrate feeds networks of one input")
    if given:
        return given[0].sizes
    return None if trained.known is None else trained.known.sizes


def _scored(
    module: nn.Module, samples: Samples | None, prepare: Preparation, size: int
) -> Score | None:
    if samples is None:
        return None
    try:
        return score(module, samples, prepare, size)
    except (RuntimeError, TypeError, ValueError, IndexError):
        return None  # the recalibration runs into the same, and says what it is


def _does_not_run(path: Path, error: Exception) -> UserError:
    first = str(error).strip().partition("\n")[0]
    return UserError(
        f"the network does not run on {path}: {type(error).__name__}: {first}",
        "give inputs of the shape and type that it was trained on",
    )


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not 1 or more")
    return number
