"""`python -m experiments`: what is trained, and what is written where."""

from __future__ import annotations

import shlex
from dataclasses import replace

from rich.table import Table

from converter.errors import UserError
from converter.report.console import Lasting
from converter.report.progress import Live
from converter.training import datasets, files
from converter.training.devices import pick_device
from experiments import console, figures, markdown, report
from experiments.claims import CLAIMS
from experiments.examining import Claim
from experiments.grid import expand
from experiments.options import AXES, COMMON, DEFAULT_AXES, DEFAULT_SEEDS, Experiments
from experiments.page import page
from experiments.records import Folder
from experiments.report import Report
from experiments.runner import Job, complete
from experiments.running import Machine
from experiments.settings import Settings, option


def run(asked: Experiments) -> int:
    """Train what is missing, and write the report; progress on stderr, a table on stdout.

    Raises:
        UserError: for a grid, data or an output that cannot be.
        KeyboardInterrupt: passed on; what was finished is kept.
    """
    claims = chosen_claims(asked)
    runs = grid_of(asked) if claims is None else [run for claim in claims for run in claim.runs()]
    figures.require()
    files.require_writable(asked.output / "report.html")
    folder = asked.output / "runs"
    if asked.report_only:
        records = Folder(folder).read_all(dict.fromkeys(runs))
        if not records:
            raise UserError(f"{folder} holds none of these runs", "leave out --report-only")
    else:
        with Live(Lasting(stderr=True)) as live:
            machine = Machine(str(pick_device(asked.device)), asked.threads)
            job = Job(folder, asked.dataset, asked.data_dir, machine)
            complete(runs, job, jobs=asked.jobs, listener=console.Told(live, runs))
        records = Folder(folder).read_all(dict.fromkeys(runs))
    command = command_line(asked)
    if claims is None:
        told = report.of_grid(runs, records, command)
    else:
        told = report.of_claims(claims, records, command)
    files.write(asked.output / "report.html", page(told).encode())
    markdown.write(told, asked.output / "report.md", asked.output / "figures")
    Lasting().print(table(told))
    Lasting().print(f"report: {asked.output / 'report.html'}", markup=False, highlight=False)
    return 0


def chosen_claims(asked: Experiments) -> list[Claim] | None:
    """The rows that `--claims` names, all for no name, None without the option.

    Raises UserError for an unknown name, or options of a grid beside it.
    """
    if asked.claims is None:
        return None
    given = [
        option(name)
        for name in (*AXES, *COMMON, "recalibrate", "seeds")
        if getattr(asked.grid, name) not in (None, False)
    ]
    if given:
        raise UserError(
            f"--claims brings its own grid, and {given[0]} would change it",
            "leave one of the two out",
        )
    known = {claim.name: claim for claim in CLAIMS}
    for name in asked.claims:
        if name not in known:
            raise UserError(f"there is no claim {name!r}", "known: " + ", ".join(known))
    return [known[name] for name in asked.claims or known]


def grid_of(asked: Experiments) -> list[Settings]:
    """The runs that the options of the grid ask for. Raises UserError."""
    axes = {
        name: tuple(dict.fromkeys(found))
        for name in AXES
        if (found := getattr(asked.grid, name) or DEFAULT_AXES.get(name))
    }
    given = {name: value for name in COMMON if (value := getattr(asked.grid, name)) is not None}
    common = replace(Settings(norm="batch", recalibrate=bool(asked.grid.recalibrate)), **given)
    return expand(common, axes, DEFAULT_SEEDS if asked.grid.seeds is None else asked.grid.seeds)


def command_line(asked: Experiments) -> str:
    """What to type for the same comparison; where data and results are is left out."""
    words = ["python", "-m", "experiments"]
    for name in AXES:
        if (found := getattr(asked.grid, name)) is not None:
            words += [option(name), ",".join(str(value) for value in found)]
    for name in (*COMMON, "seeds"):
        if (value := getattr(asked.grid, name)) is not None:
            words += [option(name), str(value)]
    if asked.dataset in datasets.NAMED and asked.dataset != "mnist":
        words += ["--dataset", asked.dataset]
    words += ["--recalibrate"] * bool(asked.grid.recalibrate)
    if asked.claims is not None:
        words += ["--claims", *asked.claims]
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
