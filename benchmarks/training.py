"""docs/training.md: what papers and tutorials claim of batch-norm, as measured on MNIST.

    python -m benchmarks.training --output FOLDER [--data-dir FOLDER] [--jobs 2] [CLAIM ...]
    python -m benchmarks.training --output FOLDER --document     # train nothing

The first trains what `python -m experiments --claims` trains, into FOLDER, and goes on
where it was stopped. Both write the document with what is finished; its pictures go beside it.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from benchmarks import document
from converter.errors import UserError
from converter.files.atomic import write_bytes
from converter.report.progress import Live
from experiments import console, markdown, report
from experiments.claims import CLAIMS
from experiments.examining import Claim
from experiments.records import Folder
from experiments.report import Report, Section
from experiments.runner import Job, complete

ROOT = Path(__file__).parents[1]
DOCUMENT = ROOT / "docs" / "training.md"
COMMAND = "python -m benchmarks.training"

# claim -> its pictures in the document, by the ends of their names; the others are left to the
# page that `compare` writes. Claims that share their runs share their pictures.
PICTURES: dict[str, tuple[str, ...]] = {
    "sigmoid-sgd": ("loss", "accuracy"),
    "sigmoid-adam": ("accuracy",),
    "relu-sgd": ("loss", "accuracy"),
    "relu-adam": ("accuracy",),
    "mlp-sgd": ("accuracy",),
    "mlp-adam": ("accuracy",),
    "shift": ("layers",),
    "init": ("accuracy",),
    "dropout": ("loss", "accuracy"),
    "small-batches": ("accuracy",),
    "position": ("accuracy",),
}


def written(told: Report, path: Path) -> str:
    """The part of the document that is made, its pictures written beside it."""
    sections = tuple(replace(s, pictures=_shown(s)) for s in told.sections)
    folder = path.parent / path.stem
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.svg"):
        old.unlink()
    for section in sections:
        for picture in section.pictures:
            for theme, svg in picture.svg.items():
                write_bytes(folder / markdown.file(picture.name, theme), svg.encode())
    return markdown.body(replace(told, sections=sections), Path(path.stem))


def _shown(section: Section) -> tuple[report.Picture, ...]:
    ends = PICTURES.get(section.name, ())
    return tuple(p for p in section.pictures if p.name.removeprefix(f"{section.name}-") in ends)


def unmeasured(claims: list[Claim], told: Report) -> str:
    """One sentence about the claims that the report does not decide for want of runs."""
    decided = {s.name for s in told.sections if report.verdict_of(s) != "unfinished"}
    missing = [claim.name for claim in claims if claim.name not in decided]
    if not missing:
        return ""
    return f"Not measured yet, or in part: {', '.join(missing)}."


def main(argv: list[str]) -> int:
    """Train what is missing, and write the document."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__)
    parser.add_argument("claims", nargs="*", metavar="CLAIM")
    parser.add_argument("--output", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--data-dir", type=Path, metavar="FOLDER")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--document", action="store_true", help="train nothing")
    args = parser.parse_args(argv)
    chosen = [claim for claim in CLAIMS if not args.claims or claim.name in args.claims]
    folder = args.output / "runs"
    try:
        if not args.document:
            runs = [run for claim in chosen for run in claim.runs()]
            with Live(Console(stderr=True)) as live:
                job = Job(folder, data_dir=args.data_dir)
                complete(runs, job, jobs=args.jobs, listener=console.Told(live, runs))
        every = dict.fromkeys(run for claim in CLAIMS for run in claim.runs())
        records = Folder(folder).read_all(every)
        told = report.of_claims(CLAIMS, records, "python -m experiments --claims")
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    made = "\n\n".join(filter(None, (unmeasured(list(CLAIMS), told), written(told, DOCUMENT))))
    document.write(DOCUMENT, COMMAND, made, "# Training with batch normalization\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
