"""What is certified of what other tools make of the patterns, and what onnxsim proves of it.

    python -m benchmarks.certified_peers [--tools onnxslim ..] [--family linear ..] [--json FILE]

Each pattern goes through each tool as in `patterns.py`, and what comes out is run against float64
(right or wrong) and certified twice: against the pattern as the user has it, and against what the
tool was given, which is the same after `normalize`. A wrong result that is certified is a defect of
the checker: exit code 1.

onnxsim has a check of its own for `--certify` (Z3, then bounds over a box of inputs). It is given
the same pairs: all wrong ones, all of the smallest patterns, and a seeded sample of the rest, each
in a process of its own that is ended after a minute.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir

from benchmarks.document import table, write
from benchmarks.patterns import TABLE, Case, Written, outcome, run_peer, write_cases
from benchmarks.peers import PEERS, SOLVER, Peer
from converter.certificate import ROUNDINGS, certify
from patterns.suite import PATTERNS

COMMAND = "python -m benchmarks.certified_peers"
SECONDS = 60.0
# The first that fits is what a refusal is counted under.
REASONS = {
    f"a number is more than {ROUNDINGS:g} roundings away": r"roundings",
    "an op that is no op of ONNX": r"is no op of ONNX",
    "an input with a default is gone": r"other inputs",
    "it casts between types where the original does not": r"casts to",
    "a value is computed in another way": r"",
}


@dataclass(frozen=True)
class Row:
    """A file that a tool made of a pattern: `outcome` as in `patterns.py`, and each certificate:
    "" if it is certified, else the sentence of the refusal."""

    tool: str
    pattern: str
    variant: str
    outcome: str
    users: str
    given: str

    @property
    def name(self) -> str:
        return f"{self.pattern}-{self.variant}.onnx"

    @property
    def right(self) -> bool:
        return self.outcome not in {"wrong", "crash"}


@dataclass(frozen=True)
class Proved:
    """What onnxsim's check says of a pair."""

    row: Row
    status: str
    detail: str
    seconds: float


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--tools", nargs="+", choices=list(PEERS), default=list(PEERS))
    parser.add_argument("--family", nargs="+", help="only patterns of these families")
    parser.add_argument("--sample", type=int, default=40, help="pairs for onnxsim's check")
    parser.add_argument("--smallest", type=int, default=10, help="patterns, of which all pairs are")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="also write each verdict here")
    parser.add_argument("--no-docs", action="store_true", help=f"leave {TABLE.name} as it is")
    args = parser.parse_args(words)
    warnings.simplefilter("ignore")
    chosen = [p for p in PATTERNS if not args.family or p.family in args.family]
    with tempfile.TemporaryDirectory(prefix="foldserve-certified-") as name:
        folder = Path(name)
        cases = write_cases(chosen, given(folder))
        for case in cases.values():
            ir.save(case.pattern.model(case.variant, "float32"), users(folder) / case.path.name)
        rows: list[Row] = []
        lost: Counter[str] = Counter()
        for tool in args.tools:
            print(f"{tool} ...", file=sys.stderr)
            found, lost[tool] = judged(PEERS[tool], cases, folder)
            rows += found
        proved = solved(sampled(rows, cases, args.sample, args.smallest, args.seed), folder)
        text = report(rows, lost, proved, args, changed=_changed(cases))
    print(text)
    if args.json:
        of_solver = [
            {**asdict(p.row), "status": p.status, "detail": p.detail, "seconds": p.seconds}
            for p in proved
        ]
        written = {"rows": [asdict(row) for row in rows], "onnxsim": of_solver}
        args.json.write_text(json.dumps(written, indent=1))
    if not args.no_docs:
        write(TABLE, COMMAND, text, "")
    return 1 if any(row.outcome == "wrong" and not (row.users and row.given) for row in rows) else 0


def given(folder: Path) -> Path:
    return _folder(folder / "given")


def users(folder: Path) -> Path:
    return _folder(folder / "users")


def _folder(path: Path) -> Path:
    path.mkdir(exist_ok=True)
    return path


def judged(peer: Peer, cases: dict[Case, Written], folder: Path) -> tuple[list[Row], int]:
    """What became of each case, and how many gave no file that can be read."""
    made = run_peer(peer, cases, folder)
    if isinstance(made, str):
        print(f"  left out: {made}", file=sys.stderr)
        return [], 0
    rows = []
    for case, model in made.items():
        if isinstance(model, str):
            print(f"  {case[0]}: {model[:150]}", file=sys.stderr)
            continue
        path = _folder(folder / peer.name) / cases[case].path.name
        ir.save(model, path)
        verdicts = [certify(f(folder) / path.name, path) for f in (users, given)]
        told = ["" if found else str(found) for found in verdicts]
        rows.append(Row(peer.name, *case, outcome(cases[case], model), *told))
    return rows, len(made) - len(rows)


def _changed(cases: dict[Case, Written]) -> int:
    """How many patterns are other graphs once they are normalized."""

    def ops(model: ir.Model) -> list[str]:
        return [node.op_type for node in ir.traversal.RecursiveGraphIterator(model.graph)]

    return sum(
        ops(ir.load(case.path)) != ops(case.pattern.model(case.variant, "float32"))
        for case in cases.values()
    )


def sampled(
    rows: list[Row], cases: dict[Case, Written], sample: int, smallest: int, seed: int
) -> list[Row]:
    """The wrong ones, those of the smallest patterns, and as many of the others as are wanted."""
    size = {case.pattern.name: case.path.stat().st_size for case in cases.values()}
    small = set(sorted(size, key=lambda name: (size[name], name))[:smallest])
    picked = [row for row in rows if row.outcome == "wrong" or row.pattern in small]
    rest = [row for row in rows if row not in picked]
    chosen = np.random.default_rng(seed).permutation(len(rest))[:sample]
    return picked + [rest[place] for place in sorted(chosen)]


_SOLVE = """
import json, sys
import onnx
from onnxsim import certify
report = certify.certify(*map(onnx.load, sys.argv[1:]), timeout_ms=60000, total_timeout_ms=60000)
told = {status.split("-")[0] for status in report.outputs.values()}
status = "proved" if report.ok else "refuted" if "refuted" in told else "skipped"
detail = next((w.detail for w in report.windows if not w.status.startswith("proved")), "")
print("@" + json.dumps([status, detail]))
"""


def solved(rows: list[Row], folder: Path) -> list[Proved]:
    """What onnxsim's check says of them, one after the other."""
    problem = SOLVER.install()
    if problem:
        print(f"onnxsim's check is left out: {problem}", file=sys.stderr)
        return []
    found = []
    for row in rows:
        files = [str(given(folder) / row.name), str(folder / row.tool / row.name)]
        start = time.perf_counter()
        try:
            done = subprocess.run(
                [str(SOLVER.python), "-c", _SOLVE, *files],
                capture_output=True, text=True, errors="replace", timeout=SECONDS, cwd=folder,
                env={"PYTHONWARNINGS": "ignore"},
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            status, detail = "over time", ""
        else:
            last = [line[1:] for line in done.stdout.splitlines() if line.startswith("@")]
            lines = done.stderr.strip().splitlines()
            status, detail = json.loads(last[0]) if last else ("failed", lines[-1] if lines else "")
        found.append(Proved(row, status, detail, time.perf_counter() - start))
        print(f"  {row.tool} {row.name}: {status} {detail[:90]}", file=sys.stderr, flush=True)
    return found


def reason(sentence: str) -> str:
    return next(words for words, pattern in REASONS.items() if re.search(pattern, sentence))


def report(
    rows: list[Row], lost: Counter[str], proved: list[Proved], args: argparse.Namespace, *,
    changed: int,
) -> str:  # fmt: skip
    tools = [tool for tool in args.tools if any(row.tool == tool for row in rows)]
    heads = ["tool", "files", "unreadable", "right", "certified", "as it was given",
             "wrong", "certified"]  # fmt: skip
    lines: list[list[object]] = []
    reasons: dict[str, Counter[str]] = {}
    for tool in tools:
        mine = [row for row in rows if row.tool == tool]
        right = [row for row in mine if row.right]
        wrong = [row for row in mine if row.outcome == "wrong"]
        reasons[tool] = Counter(reason(row.users) for row in right if row.users)
        lines.append([
            f"{tool} {PEERS[tool].version()}", len(mine), lost[tool], len(right),
            _share(sum(not row.users for row in right), len(right)),
            _share(sum(not row.given for row in right), len(right)),
            len(wrong), sum(not row.users or not row.given for row in wrong),
        ])  # fmt: skip
    parts = [
        f"{len({(row.pattern, row.variant) for row in rows})} graphs, "
        f"{changed} of which are other graphs once they are normalized, which is how the tools are "
        "given them. A pattern in a variant is a graph here.",
        table(heads, lines, "lrrrrrrr"),
        "Why a right result is not certified:",
        table(
            ["reason", *tools],
            [[words, *(reasons[tool][words] for tool in tools)] for words in REASONS],
            "l" + "r" * len(tools),
        ),
    ]
    if proved:
        parts += _of_solver(proved, args)
    return "\n\n".join(parts)


def _of_solver(proved: list[Proved], args: argparse.Namespace) -> list[str]:
    kinds = ("proved", "refuted", "skipped", "over time", "failed")
    groups: dict[str, list[Proved]] = {
        f"of the {args.smallest} smallest patterns, and drawn": [p for p in proved if p.row.right],
        "known to be wrong": [p for p in proved if p.row.outcome == "wrong"],
    }
    lines: list[list[object]] = []
    for name, group in groups.items():
        seen = Counter(p.status for p in group)
        ours = sum(not p.row.given for p in group)
        lines.append([name, len(group), ours, *(seen[kind] for kind in kinds)])
    return [
        f"onnxsim's check ({SOLVER.version()} with Z3, `onnxsim.certify.certify`) was given "
        f"{len(proved)} of the same pairs, {SECONDS:.0f} s each: all that are wrong, all of the "
        f"{args.smallest} patterns whose files are smallest, and {args.sample} of the others, "
        f"drawn with seed {args.seed}.",
        table(["pairs", "number", "certified here", *kinds], lines, "lrrrrrrr"),
    ]


def _share(part: int, whole: int) -> str:
    return f"{part} ({part / whole:.1%})" if whole else "0"


if __name__ == "__main__":
    sys.exit(main())
