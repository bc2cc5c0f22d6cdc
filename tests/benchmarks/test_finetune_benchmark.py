"""The table of docs/finetune.md, from lines that are made up."""

from __future__ import annotations

from dataclasses import replace

from benchmarks.finetune import WAYS, Line, made


def test_a_row_for_each_way_with_the_spread_over_seeds() -> None:
    line = Line("not frozen", 4, 0, 0.9, 0.95, 0.5, 1.25, 0.5, 2.0, (3, 0, True))
    lines = [line, replace(line, seed=1, accuracy=0.8, max_shift=2.5, folded=None)]
    text = made(lines, [0.99, 0.97], 2, (1, 2), 100)
    row = next(part for part in text.splitlines() if part.startswith("| 4 | not frozen"))
    assert "85.00% ± 7.07" in row
    assert "2.50" in row
    assert "0.5 to 2" in row
    assert "frozen statistics" in WAYS
    assert "frozen statistics" not in text  # no line was measured for it
    assert "3 batch-norms became 0, proven" in text
    assert "(test accuracy 98.00% ± 1.41)" in text
