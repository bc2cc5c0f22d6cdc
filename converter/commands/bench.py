"""`bench`: how many times as fast one ONNX file is as another, measured in turn."""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path

from rich.table import Table

from converter.commands.latency import Comparison, compare
from converter.commands.output import write_json
from converter.errors import UserError
from converter.report.facts import FORMAT
from converter.report.terminal import terminal, working
from converter.sources import LoadOptions, load, parse_input_shape, parse_input_value


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("a", type=Path, metavar="A.onnx")
    parser.add_argument("b", type=Path, metavar="B.onnx")
    parser.add_argument(
        "--batch",
        type=_positive,
        action="append",
        metavar="N",
        help="samples in a run; may be repeated (default 1 and 8)",
    )
    parser.add_argument(
        "--rounds", type=_positive, default=30, help="pairs of runs that count (default 30)"
    )
    parser.add_argument("--threads", type=int, default=0, help="0: as onnxruntime likes (default)")
    parser.add_argument(
        "--input-shape",
        action="append",
        default=[],
        metavar="[NAME=]D,D,..",
        help="sizes for axes that may vary, without the batch axis",
    )
    parser.add_argument(
        "--input-value",
        action="append",
        default=[],
        metavar="NAME=NUMBER",
        help="what an input is filled with, instead of random numbers: sr=16000",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the times as JSON")


def run(args: argparse.Namespace) -> int:
    """0, whichever is faster.

    Raises:
        UserError: the input is at fault (exit code 2).
    """
    if args.rounds < 2:
        raise UserError("--rounds must be 2 or more: a ratio needs a spread.")
    options = LoadOptions(
        input_shapes=tuple(parse_input_shape(text) for text in args.input_shape),
        input_values=dict(parse_input_value(text) for text in args.input_value),
    )
    with working(f"loading {args.a}") as progress:
        loaded = load(args.a, options)
        for path, kind in ((args.a, loaded.kind), (args.b, load(args.b, options).kind)):
            if "ONNX" not in kind:
                raise UserError(f"{path} is {kind}; bench compares two ONNX files.")
        batches = (args.batch or [1, 8]) if loaded.dynamic_batch else [None]
        found = compare(
            args.a,
            args.b,
            loaded.inputs,
            batches,
            rounds=args.rounds,
            threads=args.threads,
            progress=progress,
        )
    table = Table(box=None, pad_edge=False, show_edge=False, header_style="bold")
    for heading in ("batch", "A, ms", "B, ms", "B is .. times as fast", "middle half of the pairs"):
        table.add_column(heading, justify="right")
    for comparison in found:
        table.add_row(*_row(comparison))
    terminal().print(table)
    write_json(
        args.json,
        {
            "format": FORMAT,
            "a": str(args.a),
            "b": str(args.b),
            "comparisons": [
                {"batch": c.batch, "a_seconds": c.a, "b_seconds": c.b, "ratio": c.ratio}
                for c in found
            ],
        },
    )
    return 0


def _row(comparison: Comparison) -> tuple[str, ...]:
    low, high = comparison.spread
    return (
        str(comparison.batch or "fixed"),
        f"{statistics.median(comparison.a) * 1e3:.2f}",
        f"{statistics.median(comparison.b) * 1e3:.2f}",
        f"{comparison.ratio:.2f}",
        f"{low:.2f} to {high:.2f}",
    )


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not 1 or more")
    return number
