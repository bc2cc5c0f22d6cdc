"""Fold every architecture of timm and torchvision that holds a batch-norm, and write the table.

    python -m benchmarks.zoo                     # run what is missing; Ctrl-C at any time
    python -m benchmarks.zoo --time-budget 30    # start nothing new after 30 minutes
    python -m benchmarks.zoo --only 'timm:rep*'  # a pattern of names; may be repeated
    python -m benchmarks.zoo --prepare           # export and ask the peers only
    python -m benchmarks.zoo --table             # write docs/zoo.md from the results

Each architecture has random weights and batch-norm statistics, scales of both signs, and small
inputs. It is exported, folded and proven in processes of its own with a time and a memory
limit. A row is written as soon as it is there; a rerun skips the rows of the same engine (a
hash of the source that decides a fold) and begins with what has no row of any. The order is such
that a run that is stopped is representative.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from benchmarks.peers import PEERS
from benchmarks.zoo import cases, catalogue, engine, progress, results, runner, table
from benchmarks.zoo.names import EXPORTERS, RIVAL_NAMES

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


def main(words: Sequence[str] | None = None) -> int:
    args = _arguments(words)
    console = Console(stderr=True, highlight=False)
    rows_file, list_file = args.results / "rows.jsonl", args.results / "catalogue.json"
    listed = catalogue.read(list_file)
    if args.table and listed is not None:
        rows = results.read(rows_file)
        table.write(args.document, rows, listed, engine.version(), engine.checker())
        console.print(f"wrote {args.document}")
        return 0
    if listed is None:
        with console.status("building every architecture without weights, some minutes") as status:
            listed = catalogue.scan(lambda n, i, of: status.update(f"{i} of {of}: {n}"))
        catalogue.write(list_file, listed)
    if args.peers:
        _install_peers(console, args.skip_peer)
    ordered = catalogue.in_order(listed.architectures)
    wanted = [a for a in ordered if cases.wanted(a.name, args.only)]
    versions, rows = (engine.version(), engine.checker()), results.read(rows_file)
    if not (args.redo or args.prepare):
        wanted = [
            a for a in wanted if not results.done(rows.get(a.name), *versions, retry=args.retry)
        ]
    # What no converter has folded yet comes before what a former one has.
    wanted.sort(key=lambda a: a.name in rows)
    settings = runner.Settings(
        results=rows_file,
        cache=args.cache,
        cache_bytes=round(args.cache_gigabytes * 1e9),
        seconds=args.seconds,
        memory=round(args.gigabytes * 1e9),
        jobs=args.jobs,
        budget=args.time_budget * 60,
        peers=tuple(name for name in RIVAL_NAMES if args.peers and name not in args.skip_peer),
        exporter=args.exporter,
        prepare=args.prepare,
    )
    console.print(
        f"engine {versions[0]}, checker {versions[1]}, "
        f"{len(listed.architectures)} architectures with batch-norms"
    )
    done = cases.interruptible(
        console,
        rows_file,
        lambda live: runner.run(wanted[: args.limit], settings, progress.Listener(live)),
    )
    if done is None:
        return cases.INTERRUPTED
    return 1 if any(row.get("verdict") == "wrong" for row in done) else 0


def _install_peers(console: Console, skipped: Sequence[str]) -> None:
    for name in (name for name in RIVAL_NAMES if name not in skipped):
        peer = PEERS[name]
        if peer.requirements and not peer.version():
            console.print(f"installing {name} into {peer.python.parents[1]}")
        if problem := peer.install():
            console.print(f"{name} cannot be installed and is left out: {problem}")


def _arguments(words: Sequence[str] | None) -> argparse.Namespace:
    parser = cases.arguments(
        "python -m benchmarks.zoo", __doc__, "architectures",
        example="timm:rep*", seconds=300.0, gigabytes=6.0,
    )  # fmt: skip
    add = parser.add_argument
    add("--peers", action=argparse.BooleanOptionalAction, default=True, help="ask other tools, too")
    add("--skip-peer", action="append", default=[], choices=RIVAL_NAMES, help="may be repeated")
    add("--exporter", choices=EXPORTERS, default=EXPORTERS[0], help="to try first")
    add("--prepare", action="store_true", help="export and ask the peers, do not fold")
    add("--table", action="store_true", help="write the document from the results")
    add("--results", type=Path, default=HERE / "results", metavar="FOLDER")
    add("--cache", type=Path, default=ROOT / ".cache" / "zoo", metavar="FOLDER")
    add("--cache-gigabytes", type=float, default=20.0, help="exports to keep (default: 20)")
    add("--document", type=Path, default=ROOT / "docs" / "zoo.md", metavar="FILE")
    return parser.parse_args(words)


if __name__ == "__main__":
    sys.exit(main())
