"""How many small patterns of batch-norm each tool folds, and how many it gets wrong.

    python -m benchmarks.patterns [--tools foldserve onnxruntime ...] [--family linear ...]

Every pattern of `tests/converter/patterns` goes, un-folded and normalized, in float32, in both of
its variants, through the project and through other tools (`peers.py`: each in an environment of
its own, made on first use under `.cache/peers`). What comes out is looked at and run:

    folded    no batch-norm stands any more (`patterns/standing.py`)
    partly    fewer stand than before
    left      as many as before
    wrong     the result differs from float64 by more than float32 explains
    crash     no valid model came out, or none that runs, or not in time

A pattern counts as the worse of its two variants. The table is written into `docs/patterns.md`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import numpy as np
import onnx_ir as ir

from benchmarks.patterns_torch import TORCH_TOOLS
from benchmarks.peers import PEERS, ROOT, Peer
from converter.evaluation.normalize import normalize
from converter.folding import FoldOptions, fold_graph
from converter.proof import Oracle
from patterns.graphs import Array, Feeds, feeds, ort_run
from patterns.registry import VARIANTS, Module, Pattern
from patterns.standing import standing
from patterns.suite import PATTERNS

OUTCOMES = ("folded", "partly", "left", "wrong", "crash")  # from the best to the worst
OURS = "foldserve"
ASKED = "foldserve --through-relu"  # a Relu beside a batch-norm may become a maximum
TABLE = ROOT / "docs" / "patterns.md"
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
# float32 carries 1e-7; cancellation and halves cost more, a wrong fold is off by 1e-2 and more.
TOLERANCE, HALF_TOLERANCE = 1e-3, 5e-2

Case = tuple[str, str]  # name of the pattern, variant


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    tools = (OURS, ASKED, *PEERS, *TORCH_TOOLS)
    parser.add_argument("--tools", nargs="+", choices=tools, default=list(tools))
    parser.add_argument("--family", nargs="+", help="only patterns of these families")
    parser.add_argument("--json", type=Path, help="also write each outcome here")
    parser.add_argument("--no-docs", action="store_true", help=f"leave {TABLE.name} as it is")
    args = parser.parse_args(words)
    chosen = [p for p in PATTERNS if not args.family or p.family in args.family]
    with tempfile.TemporaryDirectory(prefix="foldserve-patterns-") as name:
        cases = write_cases(chosen, Path(name))
        found: dict[str, dict[Case, str]] = {}
        versions: dict[str, str] = {}
        for tool in args.tools:
            print(f"{tool} ...", file=sys.stderr)
            folded, versions[tool] = run_tool(tool, cases, Path(name))
            if folded is None:
                print(f"  left out: {versions.pop(tool)}", file=sys.stderr)
                continue
            found[tool] = {
                case: outcome(cases[case], folded[case]) for case in cases if case in folded
            }
    text = report(chosen, found, versions)
    print(text)
    if args.json:
        rows = {tool: {"/".join(c): o for c, o in r.items()} for tool, r in found.items()}
        args.json.write_text(json.dumps({"versions": versions, "outcomes": rows}, indent=1))
    if not args.no_docs:
        write_docs(text)
    return 0


class Written:
    """A case on disk: the un-folded file, and what float64 makes of it."""

    def __init__(self, pattern: Pattern, variant: str, path: Path) -> None:
        self.pattern, self.variant, self.path = pattern, variant, path
        model = normalize(pattern.model(variant, "float32"))
        self.given: Feeds = feeds(model)
        self.expected = list(Oracle(model).run(self.given).values())
        self.before = max(standing(model) - pattern.plain, 0)
        self.half = any(a.dtype.itemsize == 2 for a in self.given.values())
        self.runs = not any(a.dtype.name == "bfloat16" for a in self.given.values())
        ir.save(model, path)


def write_cases(patterns: Iterable[Pattern], folder: Path) -> dict[Case, Written]:
    """Patterns that have a batch-norm at all (merged branches alone are the tests' business), in
    types that onnxruntime runs on a CPU."""
    cases = {}
    for pattern in patterns:
        for variant in VARIANTS:
            case = Written(pattern, variant, folder / f"{pattern.name}-{variant}.onnx")
            if case.before and case.runs:
                cases[pattern.name, variant] = case
    return cases


def run_tool(
    tool: str, cases: dict[Case, Written], folder: Path
) -> tuple[dict[Case, ir.Model | str] | None, str]:
    """What the tool made of each case, or what went wrong; its version. None: not there."""
    if tool in {OURS, ASKED}:
        return {c: ours(w, tool == ASKED) for c, w in cases.items()}, version("foldserve")
    if tool in TORCH_TOOLS:
        modules = {c: w for c, w in cases.items() if isinstance(w.pattern, Module)}
        program = [sys.executable, "-m", "benchmarks.patterns_torch", tool]
        return batch(program, modules, folder, ROOT, {}), version("torch")
    peer = PEERS[tool]
    made = run_peer(peer, cases, folder)
    return (None, made) if isinstance(made, str) else (made, peer.version())


def run_peer(
    peer: Peer, cases: dict[Case, Written], folder: Path
) -> dict[Case, ir.Model | str] | str:
    """What it made of each case, or what went wrong; a sentence: it cannot be installed."""
    problem = peer.install()
    if problem:
        return problem
    loop = folder / f"run_{peer.name}.py"  # not to be taken for the package of that name
    loop.write_text(looped(peer))
    return batch([str(peer.python), str(loop)], cases, folder, folder, {"PYTHONPATH": ""})


def ours(case: Written, through_relu: bool) -> ir.Model | str:
    return fold_graph(normalize(ir.load(case.path)), FoldOptions(through_relu=through_relu)).model


def looped(peer: Peer) -> str:
    """The peer's program for one file, run for every file that is named on its input: starting a
    process takes longer than these graphs do."""
    body = "\n".join(f"    {line}" for line in peer.program.splitlines())
    return (
        "import json, sys, warnings\nwarnings.simplefilter('ignore')\n"
        f"def fold(source, target):\n    pass\n{body}\n"
        "for line in sys.stdin:\n"
        "    source, target = json.loads(line)\n"
        "    try:\n        fold(source, target)\n        error = ''\n"
        "    except BaseException as problem:\n"
        "        error = f'{type(problem).__name__}: {problem}' or 'failed'\n"
        "    print('@' + json.dumps([source, error]), flush=True)\n"
    )


def batch(
    program: list[str], cases: dict[Case, Written], folder: Path, cwd: Path, more: dict[str, str]
) -> dict[Case, ir.Model | str]:
    """Feed the cases to one process; if it dies or hangs on one, that one crashed, and another
    process goes on with the rest."""
    answers: dict[Case, ir.Model | str] = {}
    waiting = list(cases)
    while waiting:
        lines = "".join(
            json.dumps([str(cases[c].path), str(target(cases[c], folder))]) + "\n" for c in waiting
        )
        try:
            done = subprocess.run(
                program, input=lines, capture_output=True, text=True, errors="replace", cwd=cwd,
                timeout=60 + 5 * len(waiting), env={**os.environ, **more},
            )  # fmt: skip
            output, end = done.stdout, f"ended with status {done.returncode}"
        except subprocess.TimeoutExpired as late:
            output, end = _text(late.stdout), "took too long"
        said = [json.loads(line[1:]) for line in output.splitlines() if line.startswith("@")]
        for case, (_, error) in zip(list(waiting), said, strict=False):
            answers[case] = error or read(target(cases[case], folder))
            waiting.remove(case)
        if waiting:
            answers[waiting.pop(0)] = end
    return answers


def _text(output: bytes | str | None) -> str:
    return output.decode(errors="replace") if isinstance(output, bytes) else output or ""


def target(case: Written, folder: Path) -> Path:
    return folder / f"out-{case.path.name}"


def read(path: Path) -> ir.Model | str:
    """The file that a tool wrote, which is removed."""
    try:
        model = ir.load(path)
        ir.external_data.load_to_model(model)
    except Exception as error:  # noqa: BLE001  other tools' files
        return f"unreadable: {error}"
    finally:
        path.unlink(missing_ok=True)
    return model


def outcome(case: Written, model: ir.Model | str) -> str:
    """One of `OUTCOMES`; why something crashed goes to stderr."""
    if isinstance(model, str):
        print(f"  {case.pattern.name}: {model[:150]}", file=sys.stderr)
        return "crash"
    try:
        given = {v.name: case.given[v.name] for v in model.graph.inputs if v.name in case.given}
        results = ort_run(model, given)  # type: ignore[arg-type]
    except Exception as error:  # noqa: BLE001  whatever it says, it does not run
        print(f"  {case.pattern.name}: {str(error)[:150]}", file=sys.stderr)
        return "crash"
    if not same(case.expected, results, HALF_TOLERANCE if case.half else TOLERANCE):
        return "wrong"
    left = max(standing(model) - case.pattern.plain, 0)
    return "folded" if not left else "partly" if left < case.before else "left"


def same(expected: list[Array], results: list[Array], tolerance: float) -> bool:
    return len(expected) == len(results) and all(
        one.shape == other.shape
        and np.max(np.abs(one - other.astype(float)), initial=0.0)
        <= tolerance * max(np.max(np.abs(one), initial=0.0), 1e-6)
        for one, other in zip(expected, results, strict=True)
    )


def worst(rows: dict[Case, str], name: str, variants: Sequence[str] = VARIANTS) -> str | None:
    seen = [rows[name, variant] for variant in variants if (name, variant) in rows]
    return max(seen, key=OUTCOMES.index) if seen else None


def report(
    patterns: Sequence[Pattern], found: dict[str, dict[Case, str]], versions: dict[str, str]
) -> str:
    """The tables, in Markdown."""
    measured = {name for rows in found.values() for name, _ in rows}
    patterns = [p for p in patterns if p.name in measured]
    foldable = [p.name for p in patterns if not p.left and not p.left_mixed]
    partly = [p.name for p in patterns if p.left != p.left_mixed]
    rest = [p.name for p in patterns if p.name not in {*foldable, *partly}]
    counted = Counter(p.family for p in patterns)
    now = datetime.now(UTC).strftime("%d %B %Y")
    lines = [
        f"Measured on {now}: {len(patterns)} patterns in two variants each ("
        + ", ".join(f"{family} {count}" for family, count in counted.items()) + ").",
    ]  # fmt: skip
    titles = (
        ("Everything can be folded", foldable, VARIANTS),
        ("Everything can be folded if the scales are positive, and they are", partly, VARIANTS[1:]),
        ("Something must stay", rest, VARIANTS),
    )
    for title, names, variants in titles:
        table = [_row(tool, rows, names, variants, versions) for tool, rows in found.items()]
        table = [row for row in table if row]
        if not table:
            continue
        lines += ["", f"### {title}", ""]
        lines += ["| tool | patterns | " + " | ".join(OUTCOMES) + " |"]
        lines += ["|---" * (2 + len(OUTCOMES)) + "|", *table]
    wrong = {
        tool: [name for p in patterns if worst(rows, name := p.name) == "wrong"]
        for tool, rows in found.items()
    }
    if any(wrong.values()):
        lines += ["", "### Where a result is wrong", ""]
        lines += [
            f"* {tool}: {', '.join(name.replace('_', ' ') for name in names)}"
            for tool, names in wrong.items()
            if names
        ]
    return "\n".join(lines)


def _row(
    tool: str, rows: dict[Case, str], names: list[str], variants: Sequence[str],
    versions: dict[str, str],
) -> str:  # fmt: skip
    results = [worst(rows, name, variants) for name in names]
    seen = Counter(result for result in results if result is not None)
    if not seen:
        return ""
    product, _, how = tool.partition(" ")
    cells = [
        f"{product} {versions[tool]} {how}".rstrip(),
        str(sum(seen.values())),
        *(str(seen[o]) for o in OUTCOMES),
    ]
    return "| " + " | ".join(cells) + " |"


def write_docs(text: str) -> None:
    """Replace what stands between the markers."""
    old = TABLE.read_text()
    head, rest = old.split(BEGIN)
    TABLE.write_text(f"{head}{BEGIN}\n{text}\n{END}{rest.split(END)[1]}")


if __name__ == "__main__":
    sys.exit(main())
