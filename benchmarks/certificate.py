"""Is the certificate sound, and how much does it cover?

    python -m benchmarks.certificate [--mutants 20000] [--seed 0] [--family linear ..]
                                     [--only patterns ..] [--workers 2] [--json FILE]

Every pattern is folded, and the folded graph is certified against the normalized one and against
the graph as the user has it. Then graphs are changed in one place (`mutants.py`): folded ones, and
of each fourth pair the original; of patterns, small networks and random graphs
(`populations.py`). Each change that is certified is evaluated in float64 beside the graph that was
not changed (`judged.py`).

With --only, patterns are not certified first.

Exit code 1 if one is wrong, or ended the process while it was certified.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from benchmarks.judged import outcome
from benchmarks.populations import POPULATIONS, Pair, pair
from benchmarks.workers import answers
from converter.certificate import certify
from patterns.registry import VARIANTS
from patterns.suite import PATTERNS

# Mutants of one graph: it is made and folded for all of them.
BLOCK = 40
_WORST = ("wrong", "ended while it was certified")


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--mutants", type=int, default=20000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--family", nargs="+", default=[], help="only patterns of these families")
    parser.add_argument("--only", nargs="+", choices=sorted(POPULATIONS), default=[])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--json", type=Path, help="also write the figures here")
    parser.add_argument("--work", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args(words)
    warnings.simplefilter("ignore")
    if args.work:
        return _work(args)
    figures: dict[str, Any] = {"seed": args.seed}
    if not args.only:
        figures["pairs"] = _coverage(args.family)
    start = time.perf_counter()
    program = ["-m", "benchmarks.certificate", "--work", "--seed", str(args.seed)]
    for name in ("family", "only"):
        program += [f"--{name}", *getattr(args, name)] if getattr(args, name) else []
    found = _counted(answers(program, args.mutants, args.workers, BLOCK), args.mutants)
    figures |= found | {"seconds": round(time.perf_counter() - start, 1)}
    print(json.dumps(figures, indent=1))
    if args.json:
        args.json.write_text(json.dumps(figures, indent=1))
    return 1 if any(figures["mutants"].get(word) for word in _WORST) else 0


def _coverage(families: Sequence[str]) -> dict[str, Any]:
    """How many folded patterns are certified."""
    chosen = [p for p in PATTERNS if not families or p.family in families]
    pairs = [pair(pattern, variant) for pattern in chosen for variant in VARIANTS]
    found: dict[str, Any] = {"all": len(pairs)}
    for what in ("original", "users"):
        results = [(p.name, certify(getattr(p, what), ir.from_proto(p.folded))) for p in pairs]
        found[what] = sum(bool(result) for _, result in results)
        for name, result in results:
            if not result:
                print(f"  from the {what}'s graph, {name}: {result}", flush=True)
    return found


def _counted(found: Iterable[tuple[int, dict[str, Any]]], tasks: int) -> dict[str, Any]:
    counts: Counter[str] = Counter()
    of: dict[str, Counter[str]] = {}
    for done, (number, answer) in enumerate(found, 1):
        word = answer.get("done", "ended while it was evaluated")
        told = answer.get("told", answer.get("died", ""))
        if "died" in answer and not answer["died"].startswith("evaluating"):
            word = "ended while it was certified"
        counts[word] += 1
        of.setdefault(answer.get("population", "?"), Counter())[word] += 1
        if word in _WORST or "died" in answer:
            print(f"  {word}: number {number}, {told}", flush=True)
        if not done % 500 or done == tasks:
            print(f"{done} of {tasks}: {dict(counts)}", flush=True)
    return {"mutants": dict(counts), "of": {name: dict(c) for name, c in sorted(of.items())}}


def _work(args: argparse.Namespace) -> int:
    """Answer the numbers that are read with what becomes of those mutants."""

    def say(**words: object) -> None:
        print(json.dumps(words), flush=True)

    say(at="started")
    for line in sys.stdin:
        number = int(line)
        rng = np.random.default_rng([args.seed, number // BLOCK])
        names = args.only or sorted(POPULATIONS)
        shares = np.array([POPULATIONS[name].share for name in names])
        population = str(rng.choice(names, p=shares / shares.sum()))
        member = POPULATIONS[population].draw(rng, frozenset(args.family))
        rng = np.random.default_rng([args.seed, 1, number])
        of = "original" if rng.random() < 0.25 else "folded"
        say(at=f"making {member}")
        word, told = outcome(
            _made(population, member), int(rng.integers(1 << 31)), of=of,
            tell=lambda at: say(at=at),
        )  # fmt: skip
        say(done=word, told=told, population=population)
    return 0


@lru_cache(maxsize=30)
def _made(population: str, name: str) -> Pair:
    return POPULATIONS[population].make(name)


if __name__ == "__main__":
    sys.exit(main())
