"""Is the certificate sound, and how much does it cover?

    python -m benchmarks.certificate [--mutants 20000] [--seed 0] [--family linear ..] [--json FILE]

Every pattern is folded, and the folded graph is certified against the normalized one and against
the graph as the user has it. Then folded graphs are changed in one place (`mutants.py`), and each
change that is certified is evaluated in float64 beside the graph that was not changed:

    equal     no number differs
    moved     by no more than a certificate allows: `LIMIT` of the output, in roundings of its type
    not run   the evaluator has no result for it
    wrong     by more than that: a defect of the checker

Exit code 1 if one is wrong.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir

from benchmarks.mutants import mutant
from converter.certificate import Certified, certify
from converter.evaluation.normalize import normalize
from converter.folding import FoldOptions, fold_graph
from converter.proof import Oracle
from patterns.graphs import feeds
from patterns.registry import VARIANTS, Pattern
from patterns.suite import PATTERNS

# A certificate lets every weight move by k = 3 roundings. More than ten roundings of the output, in
# its type (6e-7 in float32), is taken as more than that can do to a small graph.
LIMIT = 10.0
_UNITS = {ir.DataType.FLOAT16: 2.0**-11, ir.DataType.BFLOAT16: 2.0**-8}
BATCHES = ((1, 2), (2, 3), (3, 5))  # seeds of the inputs, and batches


@dataclass(frozen=True, eq=False)
class Pair:
    """A pattern in float32: as the user has it, normalized, folded."""

    name: str
    users: ir.Model
    original: ir.Model
    folded: onnx.ModelProto


def pair(pattern: Pattern, variant: str) -> Pair:
    model = pattern.model(variant, "float32")
    original = normalize(model)
    folded = fold_graph(original, FoldOptions(through_relu=pattern.through_relu)).model
    return Pair(f"{pattern.name}/{variant}", model, original, ir.to_proto(folded))


def unit(model: onnx.ModelProto) -> float:
    """One rounding of the coarsest type of floats in a graph."""
    return max((_UNITS.get(t, 2.0**-24) for t in _types(model.graph)), default=2.0**-24)


def _types(graph: onnx.GraphProto) -> list[ir.DataType]:
    found = [ir.DataType(t.data_type) for t in graph.initializer]
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                found += _types(attribute.g)
    return found


def distance(folded: onnx.ModelProto, changed: onnx.ModelProto) -> float | None:
    """The largest difference of an output, relative to its largest number, in float64.

    None: one of them cannot be evaluated; infinite: the outputs have other shapes.
    """
    one, other = ir.from_proto(folded), ir.from_proto(changed)
    worst: float | None = None
    for seed, batch in BATCHES:
        given = feeds(one, seed, batch)
        try:
            expected = Oracle(one).run(given)
        except Exception:  # noqa: BLE001 - whatever it is, there is no number
            continue  # a pattern of one batch alone
        try:
            found = Oracle(other).run(given)
        except Exception:  # noqa: BLE001 - whatever it is, there is no number
            return None
        for name, array in expected.items():
            a, b = np.asarray(array, float), np.asarray(found[name], float)
            if a.shape != b.shape:
                return float("inf")
            scale = max(float(np.max(np.abs(a), initial=0.0)), 1e-30)
            worst = max(worst or 0.0, float(np.max(np.abs(a - b), initial=0.0)) / scale)
    return worst


def outcome(pair: Pair, seed: int, *, apart: bool = False) -> tuple[str, str]:
    """What became of a mutant, and what it is. `apart`: evaluate it in a process of its own,
    since a kernel of a runtime may end the process that it is in."""
    made = mutant(pair.folded, seed)
    if made is None:
        return "unchanged", ""
    changed, told = made
    told = f"{pair.name} seed {seed}: {told}"
    try:
        model = ir.from_proto(changed)
    except Exception:  # noqa: BLE001 - a mutant may be no graph
        return "unreadable", told
    if not isinstance(certify(pair.original, model), Certified):
        return "refused", told
    worst = _apart(pair.folded, changed) if apart else distance(pair.folded, changed)
    if worst is None:
        return "not run", told
    if worst == 0.0:
        return "equal", told
    moved = worst <= LIMIT * unit(pair.folded)
    return "moved" if moved else "wrong", f"{told}, {worst:.1e}"


def _apart(folded: onnx.ModelProto, changed: onnx.ModelProto) -> float | None:
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            found = distance(folded, changed)
            os.write(writing, b"" if found is None else repr(found).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as stream:
        word = stream.read()
    os.waitpid(child, 0)
    return float(word) if word else None


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--mutants", type=int, default=20000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--family", nargs="+", help="only patterns of these families")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    args = parser.parse_args(words)
    warnings.simplefilter("ignore")
    chosen = [p for p in PATTERNS if not args.family or p.family in args.family]
    pairs = [pair(pattern, variant) for pattern in chosen for variant in VARIANTS]
    figures: dict[str, object] = {"pairs": len(pairs), "seed": args.seed}
    for what in ("original", "users"):
        results = [(p.name, certify(getattr(p, what), ir.from_proto(p.folded))) for p in pairs]
        certified = [r for _, r in results if isinstance(r, Certified)]
        figures[f"certified from {what}"] = len(certified)
        figures[f"largest move from {what}"] = max((r.largest_move for r in certified), default=0.0)
        for name, result in results:
            if not isinstance(result, Certified):
                print(f"  {name} ({what}): {result}")
    start, rng = time.perf_counter(), np.random.default_rng(args.seed)
    counts: Counter[str] = Counter()
    for number in range(args.mutants):
        which = pairs[int(rng.integers(len(pairs)))]
        found, told = outcome(which, args.seed * 1_000_003 + number, apart=True)
        counts[found] += 1
        if found in {"wrong", "not run"}:
            print(f"  {found}: {told}", flush=True)
    figures |= {"mutants": dict(counts), "seconds": round(time.perf_counter() - start, 1)}
    print(json.dumps(figures, indent=1))
    if args.json:
        args.json.write_text(json.dumps(figures, indent=1))
    return 1 if counts["wrong"] else 0


if __name__ == "__main__":
    sys.exit(main())
