"""`bench`: how many times as fast one ONNX file is as another, measured in turn."""

from __future__ import annotations

import statistics

from rich.table import Table

from converter.commands.latency import Comparison, compare
from converter.commands.options.bench import Bench
from converter.commands.output import write_json
from converter.errors import UserError
from converter.report import FORMAT
from converter.report.console import terminal, working
from converter.sources import LoadOptions, load, parse_input_shape, parse_input_value


def run(asked: Bench) -> int:
    """0, whichever is faster.

    Raises:
        UserError: the input is at fault (exit code 2).
    """
    options = LoadOptions(
        input_shapes=tuple(parse_input_shape(text) for text in asked.sizes.input_shape),
        input_values=dict(parse_input_value(text) for text in asked.sizes.input_value),
    )
    with working(f"loading {asked.a}") as progress:
        loaded = load(asked.a, options)
        for path, kind in ((asked.a, loaded.kind), (asked.b, load(asked.b, options).kind)):
            if "ONNX" not in kind:
                raise UserError(f"{path} is {kind}; bench compares two ONNX files.")
        batches = (asked.batch or (1, 8)) if loaded.dynamic_batch else [None]
        found = compare(
            asked.a,
            asked.b,
            loaded.inputs,
            batches,
            rounds=asked.rounds,
            threads=asked.threads,
            progress=progress,
        )
    table = Table(box=None, pad_edge=False, show_edge=False, header_style="bold")
    for heading in ("batch", "A, ms", "B, ms", "B is .. times as fast", "middle half of the pairs"):
        table.add_column(heading, justify="right")
    for comparison in found:
        table.add_row(*_row(comparison))
    terminal().print(table)
    write_json(
        asked.json,
        {
            "format": FORMAT,
            "a": str(asked.a),
            "b": str(asked.b),
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
