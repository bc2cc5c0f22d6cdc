"""A row as a line of a log."""

from __future__ import annotations

from benchmarks.zoo import progress as zoo
from benchmarks.zoo.results import Row


def sentence(row: Row) -> str:
    name = f"{row['name'][:52]:52} {row['status']:>10}"
    if row["status"] in ("served", "wrong"):
        left = row["batchnorms"] - row["folded"]
        problems = [text for asked in row["asked"] for text in asked["problems"]]
        return (
            f"{name} {left:3} of {row['batchnorms']:3} left, error {row['error']:.0e}, "
            f"{row['seconds']:.1f} s, {row['fold_peak_mb']} MB {'; '.join(problems)[:200]}"
        )
    return f"{name} {row.get('sentence') or row.get('said') or row.get('why', '')}"[:400]


class Listener(zoo.Listener):
    """A line for each row."""

    rows = "models"

    def sentence(self, row: Row) -> str:
        return sentence(row)
