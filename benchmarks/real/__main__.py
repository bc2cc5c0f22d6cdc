"""Take models that other people made through the whole chain, and write the table.

    python -m benchmarks.real files              # trained files out of published packages
    python -m benchmarks.real networks           # networks of libraries, random weights
    python -m benchmarks.real table              # write docs/real.md from the results
    python -m benchmarks.real list               # what there is
    python -m benchmarks.real files --only 'silero*' --redo

Each model is folded, proven and published by `converter fold --publish`, served by a
`python -m service` of its own and asked through JSON and V2, in processes with a time and a
memory limit. A row is written as soon as it is there; a rerun skips the rows of the same source
of converter and service, begins with what has no row, and downloads nothing again.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from benchmarks.real import environment, libraries, packages, progress, runner, table
from benchmarks.zoo import cases, results

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
KINDS = {"files": packages.cases, "networks": libraries.cases}


def main(words: Sequence[str] | None = None) -> int:
    args = _arguments(words)
    console = Console(stderr=True, highlight=False)
    if args.what == "table":
        kept = {}
        for kind, listed in KINDS.items():  # rows of what is listed no more are left out
            rows = results.read(args.cache / f"{kind}.jsonl")
            kept[kind] = {case.name: rows[case.name] for case in listed() if case.name in rows}
        table.write(args.document, kept, runner.version())
        console.print(f"wrote {args.document}")
        return 0
    if args.what == "list":
        for kind, listed in KINDS.items():
            for case in listed():
                console.print(f"{kind:9}{case.name}", soft_wrap=True)
        return 0
    venv = args.cache / "venv"
    if not environment.is_ready(venv):
        console.print(f"installing the libraries into {venv}")
        try:
            environment.install(venv)
        except environment.NotInstalledError as error:
            console.print(f"the libraries cannot be installed: {error}")
            return 1
    if Path(sys.prefix).resolve() != venv.resolve():
        given = list(sys.argv[1:] if words is None else words)
        python = str(environment.python(venv))
        os.execve(python, [python, "-m", "benchmarks.real", *given], environment.clean(ROOT))
    rows_file = args.cache / f"{args.what}.jsonl"
    wanted = [case for case in KINDS[args.what]() if cases.wanted(case.name, args.only)]
    rows, version = results.read(rows_file), runner.version()
    if not args.redo:
        wanted = [
            case
            for case in wanted
            if rows.get(case.name, {}).get("engine") != version
            or (args.retry and rows[case.name]["status"] != "served")
        ]
    wanted.sort(key=lambda case: case.name in rows)
    settings = runner.Settings(
        results=rows_file,
        cache=args.cache,
        seconds=args.seconds,
        memory=round(args.gigabytes * 1e9),
        jobs=args.jobs,
        budget=args.time_budget * 60,
    )
    done = cases.interruptible(
        console,
        rows_file,
        lambda live: runner.run(wanted[: args.limit], settings, progress.Listener(live)),
    )
    if done is None:
        return cases.INTERRUPTED
    return 1 if any(row["status"] in ("wrong", "not served", "failed") for row in done) else 0


def _arguments(words: Sequence[str] | None) -> argparse.Namespace:
    parser = cases.arguments(
        "python -m benchmarks.real", __doc__, "models",
        example="silero*", seconds=240.0, gigabytes=5.0,
    )  # fmt: skip
    add = parser.add_argument
    add("what", choices=("files", "networks", "table", "list"))
    add("--cache", type=Path, default=ROOT / ".cache" / "real", metavar="FOLDER")
    add("--document", type=Path, default=ROOT / "docs" / "real.md", metavar="FILE")
    return parser.parse_args(words)


if __name__ == "__main__":
    sys.exit(main())
