"""How many batch-norms of each architecture fold, by the place of the norm.

    python -m benchmarks.architectures             # print the table
    python -m benchmarks.architectures --write     # and write it to docs/architectures.md

Each network is trained for one epoch on the thousand images of tests/data/mnist, converted and
folded. The graph decides what folds, and the signs of the scales: after a training as short, or
as usual, all are positive. (An activation or a maximum lets only those pass.)
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from benchmarks.document import table, write
from converter import load
from converter.architectures import ARCHITECTURES
from converter.folding.refusal import Refusal
from converter.pipeline import preview
from converter.training import Style, TrainOptions, train

ROOT = Path(__file__).parents[1]
DATA = ROOT / "tests" / "data" / "mnist"
DOCUMENT = ROOT / "docs" / "architectures.md"
COMMAND = "python -m benchmarks.architectures --write"

STYLES = {
    "before": Style(),
    "after": Style(bn_position="after"),
    "input": Style(input_norm=True),
}
HEADS = [
    "architecture",
    "parameters",
    "norms",
    "left",
    "norm after: norms",
    "left ",
    "why they stay",
    "input norm: norms",
    "left  ",
    "why it stays",
]


@dataclass(frozen=True)
class Count:
    """The batch-norms of a network, how many are left after folding, and why."""

    norms: int
    left: int
    why: str
    parameters: int


def count(name: str, style: Style, epochs: int = 1) -> Count:
    """Train the architecture for a moment, convert it, and plan its fold."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "checkpoint.pt"
        result = train(
            TrainOptions(
                arch=name,
                style=style,
                data_dir=DATA,
                output=output,
                epochs=epochs,
                batch_size=100,
                device="cpu",
                threads=1,
            )
        )
        found = preview(load(output))
    refusals = [d.outcome for d in found.plan.kept if isinstance(d.outcome, Refusal)]
    codes = Counter(_codes(refusal) for refusal in refusals)
    halves = len(found.plan.kept) - len(refusals)
    why = [f"{number} x {code}" for code, number in codes.most_common()]
    return Count(
        found.before.batchnorms,
        found.after.batchnorms,
        ", ".join(why + [f"half of each folds ({halves})"] * bool(halves)),
        result.parameters,
    )


def _codes(refusal: Refusal) -> str:
    """What is in the way backward and, where that was tried, forward."""
    return refusal.code + (f" / {refusal.behind.code}" if refusal.behind else "")


def row(name: str) -> list[object]:
    """The line of the table."""
    before, after, raw = (count(name, style) for style in STYLES.values())
    return [
        f"`{name}`",
        f"{before.parameters:,}",
        before.norms,
        before.left,
        after.norms,
        after.left,
        after.why,
        raw.norms,
        raw.left,
        raw.why,
    ]


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--write", action="store_true", help="to docs/architectures.md")
    args = parser.parse_args(words)
    made = table(HEADS, [row(name) for name in ARCHITECTURES], "lrrrrrlrrl")
    print(made)
    if args.write:
        write(DOCUMENT, COMMAND, made, "# Architectures\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
