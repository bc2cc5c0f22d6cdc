"""The service beside other servers: one command that installs, serves, drives and writes.

    python -m benchmarks.serving              # everything, into docs/serving.md
    python -m benchmarks.serving --plan       # what that is, and how long it takes
    python -m benchmarks.serving --resume     # go on where a run was stopped
    python -m benchmarks.serving --quick --only foldserve,mosec --cases digits-c32

Each server gets the same ONNX file and the same request from the same client (wrk), and its
answer is compared with raw onnxruntime's before anything is timed. Keep the machine quiet
meanwhile. At the end comes `benchmarks.serving.profile`.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from benchmarks.serving import client, plan, profile, results, table
from benchmarks.serving.catalogue import PEERS
from benchmarks.serving.plan import CASES, Case, Plan
from benchmarks.serving.runner import Runner

T = TypeVar("T")
ROOT = Path(__file__).parents[2]
RESULTS = Path(__file__).with_name("results") / "serving.jsonl"


def main(words: Sequence[str] | None = None) -> None:
    args = _parser().parse_args(words)
    if args.table:
        table.write(results.read(args.results or RESULTS), args.document or table.DOCUMENT)
        return
    planned = _plan(args)
    print(planned.text(), flush=True)
    print(
        f"{profile.seconds() / 60:6.1f} min  benchmarks.serving.profile, after a whole run",
        flush=True,
    )
    if args.plan:
        return
    try:
        driver = client.Python() if args.client == "python" else client.Wrk()
    except FileNotFoundError as error:
        raise SystemExit(str(error)) from None
    # Trials stay out of what is published, unless they are told where to go.
    partial = args.quick or args.only or args.cases or args.client == "python"
    path = args.results or (args.cache / "trial.jsonl" if partial else RESULTS)
    document = args.document or (table.DOCUMENT if path == RESULTS else path.with_suffix(".md"))
    # Servers have sessions of their own: without this they would outlive us.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    runner = Runner(planned, args.cache, path, driver, lambda text: print(text, flush=True))
    if args.install:
        runner.install()
        return
    if not args.resume:
        path.unlink(missing_ok=True)
    try:
        runner.run()
    finally:
        table.write(results.read(path), document)
        print(f"{path}\n{document}", flush=True)
    if not partial and path == RESULTS:
        profile.main(["--cache", str(args.cache)])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    keys = ", ".join(peer.key for peer in PEERS)
    parser.add_argument("--only", help=f"servers, with commas between: {keys}")
    parser.add_argument("--cases", help="with commas between: " + ", ".join(map(str, CASES)))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, help="for every case, in place of its own")
    parser.add_argument("--quick", action="store_true", help="one round of one second each")
    parser.add_argument("--resume", action="store_true", help="measure only what is missing")
    parser.add_argument("--plan", action="store_true", help="tell what takes how long, and end")
    parser.add_argument("--install", action="store_true", help="install the peers, and end")
    parser.add_argument("--table", action="store_true", help="write the document again, and end")
    parser.add_argument("--client", choices=("wrk", "python"), default="wrk")
    parser.add_argument("--cache", type=Path, default=ROOT / ".cache" / "serving")
    parser.add_argument("--results", type=Path, help="default: beside this file, or a trial's")
    parser.add_argument("--document", type=Path, help="default: docs/serving.md, or a trial's")
    return parser


def _plan(args: argparse.Namespace) -> Plan:
    peers = _chosen(args.only, {peer.key: peer for peer in PEERS}, "--only")
    cases = _chosen(args.cases, {str(case): case for case in CASES}, "--cases")
    if args.seconds:
        cases = [Case(case.model, case.connections, args.seconds) for case in cases]
    planned = Plan(tuple(peers), tuple(cases), args.rounds)
    return plan.quick(planned) if args.quick else planned


def _chosen(given: str | None, every: dict[str, T], flag: str) -> list[T]:
    names = given.split(",") if given else list(every)
    unknown = [name for name in names if name not in every]
    if unknown:
        sys.exit(f"{flag} does not know {unknown[0]!r}; it knows {', '.join(every)}")
    return [every[name] for name in names]


if __name__ == "__main__":
    main()
