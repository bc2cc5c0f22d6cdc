"""`recalibrate`: true population statistics for the batch-norms of a trained model."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from converter.commands import loading
from converter.commands.options.recalibrate import Recalibrate
from converter.commands.output import write_json
from converter.errors import UserError, gist
from converter.report import FORMAT
from converter.report.console import terminal, working
from converter.sources.trained import Trained, load_module
from converter.statistics import data, render
from converter.statistics.data import Preparation
from converter.statistics.recalibration import Recalibration, Score, recalibrate, score
from converter.training import files
from converter.training.data import Samples
from converter.training.devices import pick_device


def run(asked: Recalibrate) -> int:
    """0: recalibrated, and written unless it is a dry run.

    Raises:
        UserError: the model, the data or an argument is at fault; nothing is written then.
    """
    output = asked.output or default_output(asked.file)
    for path in (None if asked.dry_run else output, asked.json):
        if path is not None:
            files.require_writable(path)
    if asked.json is not None and asked.json.exists() and asked.json.samefile(asked.file):
        raise UserError(f"{asked.json} is the input", "give another name")
    console = terminal()
    with working(f"loading {asked.file}") as progress:
        trained = load_module(asked.file, loading.options_of(asked.reading))
        progress(f"reading {asked.data}")
        sizes = _sizes(asked, trained)
        source = data.read(asked.data, sizes)
        if trained.content:  # a checkpoint of ours
            source = source.pictures(asked.data)
        population = data.shaped(source.samples, sizes, asked.data).draw(asked.limit, asked.seed)
        measured = source.measured
        if measured is not None:
            measured = data.shaped(measured, sizes, asked.data)
        device = pick_device(asked.device)
        prepare = preparation(asked, trained, device)
        module = trained.module.to(device)
        progress("accuracy")
        before = _scored(module, measured, prepare, asked.batch_size)
        try:
            found = recalibrate(
                module,
                lambda: prepare.batches(population, asked.batch_size),
                mode=asked.mode,
                progress=progress,
            )
        except (RuntimeError, TypeError, ValueError, IndexError) as error:
            raise _does_not_run(asked.data, error) from error
        progress("accuracy")
        after = _scored(module, measured, prepare, asked.batch_size)
        module.cpu()
    on_test = source.test is not None
    report: dict[str, Any] = {
        "format": FORMAT,
        "file": str(asked.file),
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
        "written": None if asked.dry_run else str(output),
    }
    render.show(console, report, found, before, after)
    if not asked.dry_run:
        changes = changed(found, len(population), asked.batch_size, trained, after, on_test)
        files.write(output, trained.to_bytes(changes))
        console.print(f"Wrote {output}", markup=False, soft_wrap=True)
    write_json(asked.json, report)
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


def preparation(asked: Recalibrate, trained: Trained, device: torch.device) -> Preparation:
    """How pictures become inputs: as the user says, else as the checkpoint does."""
    told = trained.content.get("preprocessing") or {}
    mean = _numbers("--mean", asked.mean) or tuple(told.get("mean") or (0.0,))
    std = _numbers("--std", asked.std) or tuple(told.get("std") or (1.0,))
    if min(std) <= 0:
        raise UserError(f"--std is {asked.std}", "give positive numbers")
    return Preparation(mean, std, _dtype(trained.module), device)


def _dtype(module: nn.Module) -> torch.dtype:
    kinds = (p.dtype for p in module.parameters() if p.is_floating_point())
    return next(kinds, torch.float32)


def _numbers(option: str, text: str | None) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(",")) if text else ()
    except ValueError as error:
        raise UserError(
            f"{option} {text!r} is not a list of numbers", "0.485,0.456,0.406"
        ) from error


def _sizes(asked: Recalibrate, trained: Trained) -> tuple[int, ...] | None:
    given = loading.options_of(asked.reading).input_shapes
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
    return UserError(
        f"the network does not run on {path}: {gist(error)}",
        "give inputs of the shape and type that it was trained on",
    )
