"""`python -m experiments`: the options of the grid, and what is written where."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from converter.errors import UserError
from converter.report.progress import Live
from converter.training import datasets, files
from converter.training.devices import pick_device
from experiments import console, figures, markdown, report
from experiments.claims import CLAIMS, Claim
from experiments.grid import expand, option
from experiments.page import page
from experiments.records import Folder
from experiments.report import Report
from experiments.runner import Job, complete
from experiments.running import Machine
from experiments.settings import Settings

DEFAULT_OUTPUT = Path("comparison")

# field of `Settings` -> what `--help` says. All but those of COMMON take several values.
AXES = {
    "arch": "architectures of `train`",
    "norm": "none, batch, renorm",
    "activation": "relu, sigmoid, tanh, leaky_relu, gelu",
    "bn_position": "of the batch-norm: before, after the activation",
    "optimizer": "sgd, adam",
    "lr": "learning rates, the same for all steps",
    "batch_size": "images a step",
    "momentum": "weight of the newest batch in the running statistics",
    "dropout": "shares of hidden units",
    "init_scale": "factors of the initial weights",
}
COMMON = {
    "epochs": "passes over the training images",
    "images": "use the first so many training images; 0 for all",
    "evaluations": "validations an epoch",
}
# What a grid has when nothing is said: the question that the command is for.
DEFAULT_AXES: dict[str, tuple[Any, ...]] = {"norm": ("none", "batch")}
DEFAULT_SEEDS = 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The grid, or the claims; where the data are and where the results go."""
    default = Settings()
    grid = parser.add_argument_group(
        "grid", "several values are separated by commas; every combination is trained"
    )
    for name, meaning in AXES.items():
        values = DEFAULT_AXES.get(name, (getattr(default, name),))
        grid.add_argument(
            option(name),
            metavar="A,B",
            type=_values(type(getattr(default, name))),
            help=f"{meaning} (default: {','.join(f'{v}' for v in values)})",
        )
    for name, meaning in COMMON.items():
        grid.add_argument(
            option(name),
            metavar="N",
            type=int,
            help=f"{meaning} (default: {getattr(default, name)})",
        )
    grid.add_argument(
        "--recalibrate",
        action="store_true",
        default=None,
        help="also validate with the population's statistics",
    )
    grid.add_argument(
        "--seeds", type=int, metavar="N", help=f"repetitions (default: {DEFAULT_SEEDS})"
    )
    parser.add_argument(
        "--claims",
        nargs="*",
        metavar="NAME",
        help="instead of a grid, test claims of papers and tutorials; all, or: "
        + ", ".join(claim.name for claim in CLAIMS),
    )
    parser.add_argument(
        "--dataset",
        default="mnist",
        metavar="WHICH",
        help=f"{', '.join(datasets.NAMED)}, an .npz file, or a folder of pictures "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--data-dir",
        type=Path,
        metavar="FOLDER",
        help="where the files of a named data set are; without it they are downloaded once",
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=DEFAULT_OUTPUT,
        metavar="FOLDER",
        help="report.html, report.md, its figures, and runs/, from which a comparison that was "
        "stopped goes on (default: %(default)s)",
    )
    parser.add_argument(
        "--report-only",
        action="store_true",
        help="train nothing; write the report of the runs that are finished",
    )
    parser.add_argument(
        "--jobs", type=int, default=1, metavar="N", help="runs at once (default: %(default)s)"
    )
    parser.add_argument(
        "--threads", type=int, default=1, metavar="N", help="of each run (default: %(default)s)"
    )
    parser.add_argument(
        "--device", default="cpu", help="auto, cpu, cuda or cuda:N (default: %(default)s)"
    )


def run(args: argparse.Namespace) -> int:
    """Train what is missing, and write the report; progress on stderr, a table on stdout.

    Raises:
        UserError: for a grid, data or an output that cannot be.
        KeyboardInterrupt: passed on; what was finished is kept.
    """
    for name, value in (("--jobs", args.jobs), ("--threads", args.threads)):
        if not 1 <= value <= 1024:
            raise UserError(f"{name} is {value}", "give an integer from 1 to 1024")
    claims = chosen_claims(args)
    runs = grid_of(args) if claims is None else [run for claim in claims for run in claim.runs()]
    figures.require()
    files.require_writable(args.output / "report.html")
    folder = args.output / "runs"
    if args.report_only:
        records = Folder(folder).read_all(dict.fromkeys(runs))
        if not records:
            raise UserError(f"{folder} holds none of these runs", "leave out --report-only")
    else:
        with Live(Console(stderr=True)) as live:
            machine = Machine(str(pick_device(args.device)), args.threads)
            job = Job(folder, args.dataset, args.data_dir, machine)
            complete(runs, job, jobs=args.jobs, listener=console.Told(live, runs))
        records = Folder(folder).read_all(dict.fromkeys(runs))
    command = command_line(args)
    if claims is None:
        told = report.of_grid(runs, records, command)
    else:
        told = report.of_claims(claims, records, command)
    files.write(args.output / "report.html", page(told).encode())
    markdown.write(told, args.output / "report.md", args.output / "figures")
    Console().print(table(told))
    Console().print(f"report: {args.output / 'report.html'}", markup=False, highlight=False)
    return 0


def chosen_claims(args: argparse.Namespace) -> list[Claim] | None:
    """The rows that `--claims` names, all for no name, None without the option.

    Raises UserError for an unknown name, or options of a grid beside it.
    """
    if args.claims is None:
        return None
    given = [
        option(name)
        for name in (*AXES, *COMMON, "recalibrate", "seeds")
        if getattr(args, name) is not None
    ]
    if given:
        raise UserError(
            f"--claims brings its own grid, and {given[0]} would change it",
            "leave one of the two out",
        )
    known = {claim.name: claim for claim in CLAIMS}
    for name in args.claims:
        if name not in known:
            raise UserError(f"there is no claim {name!r}", "known: " + ", ".join(known))
    return [known[name] for name in args.claims or known]


def grid_of(args: argparse.Namespace) -> list[Settings]:
    """The runs that the options of the grid ask for. Raises UserError."""
    axes = {
        name: tuple(dict.fromkeys(found))
        for name in AXES
        if (found := getattr(args, name) or DEFAULT_AXES.get(name))
    }
    given = {name: value for name in COMMON if (value := getattr(args, name)) is not None}
    common = replace(Settings(norm="batch", recalibrate=bool(args.recalibrate)), **given)
    return expand(common, axes, DEFAULT_SEEDS if args.seeds is None else args.seeds)


def command_line(args: argparse.Namespace) -> str:
    """What to type for the same comparison; where data and results are is left out."""
    words = ["python", "-m", "experiments"]
    for name in AXES:
        if (found := getattr(args, name)) is not None:
            words += [option(name), ",".join(str(value) for value in found)]
    for name in (*COMMON, "seeds"):
        if (value := getattr(args, name)) is not None:
            words += [option(name), str(value)]
    if args.dataset in datasets.NAMED and args.dataset != "mnist":
        words += ["--dataset", args.dataset]
    words += ["--recalibrate"] * bool(args.recalibrate)
    if args.claims is not None:
        words += ["--claims", *args.claims]
    return shlex.join(words)


def table(told: Report) -> Table:
    """What came of it: the verdicts, or the accuracies of the arms."""
    grid = Table(title=told.title, title_justify="left")
    sections = [section for section in told.sections if section.outcome]
    if sections:
        for head in ("claim", "verdict", "measured"):
            grid.add_column(head, overflow="fold")
        for section in sections:
            assert section.outcome is not None
            parts = (f"{f.part.says}: {report.measured(f)}" for f in section.outcome.findings)
            grid.add_row(section.name, report.verdict_of(section), "\n".join(parts))
        return grid
    for head in ("arm", "final accuracy", "best", "steps to the plain net's best", "s an epoch"):
        grid.add_column(head, overflow="fold")
    for section in told.sections:
        for arm in section.arms:
            grid.add_row(
                arm.label,
                report.percent(arm.accuracy),
                report.percent(arm.best),
                report.steps(arm),
                report.seconds(arm),
            )
    return grid


def _values(kind: type) -> Callable[[str], tuple[Any, ...]]:
    """A converter for argparse: "0.1,1" -> (0.1, 1.0)."""

    def values(text: str) -> tuple[Any, ...]:
        return tuple(kind(part.strip()) for part in text.split(","))

    values.__name__ = f"list of {kind.__name__}"
    return values
