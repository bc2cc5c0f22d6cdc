"""Write what the float64 oracle does not say into docs/oracle.md: `python -m docs.oracle`."""

from __future__ import annotations

from pathlib import Path

from converter.evaluation.uncovered import DIFFERENT, WITHOUT

PAGE = Path(__file__).with_name("oracle.md")
TEXT = """\
# What is measured against float64

A fold is proven by three graphs: the original and the folded one in onnxruntime, and the original
in float64, node by node, which is the truth that both are measured against. A test runs every op
of opsets 11 to 23 that onnxruntime's CPU provider runs in float32 against that evaluation, at
random shapes and attributes; this page is written from the table that the test reads
(`python -m docs.oracle`).

A graph with an op that is not evaluated is not folded: "there is no float64 oracle", and the node
is named. So it is with every op outside of the standard's own domain (`com.microsoft` and the like)
that is no function of the model.

## Ops without an evaluation

| op | why |
|---|---|
{without}

## Where onnxruntime and the standard differ

| op | which is followed |
|---|---|
{different}
"""


def page() -> str:
    """The page's text."""
    return TEXT.format(without=_rows(WITHOUT), different=_rows(DIFFERENT))


def _rows(table: dict[str, str]) -> str:
    return "\n".join(f"| {op} | {why} |" for op, why in sorted(table.items()))


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
