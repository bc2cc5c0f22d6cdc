"""What one server reached in one case: the medians of its rounds, and how they are written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from benchmarks.serving.results import Results, Row


@dataclass(frozen=True)
class Cell:
    """A server and format with so many clients: medians over the rounds, None where it failed.

    `ratio`: to raw onnxruntime's best in the same minute. `errors`: of all rounds, by kind.
    `cpu_us`: CPU time of the server's processes for one request.
    """

    per_second: float
    p50_ms: float
    p99_ms: float
    ratio: float
    single_ms: float
    low: float
    high: float
    errors: dict[str, int]
    cpu_us: float = 0.0
    failed: str = ""

    def text(self) -> str:
        if self.failed:
            return f"failed: {self.failed}"
        speed, shown = self.per_second, f"({number(self.p50_ms)} / {number(self.p99_ms)})"
        errors = ", ".join(f"{count} {kind}" for kind, count in self.errors.items())
        return f"{number(speed)} {shown}" + (f" **errors: {errors}**" if errors else "")


def cell(rows: Sequence[Row]) -> Cell | None:
    """One cell from its rounds; None if there are none."""
    if not rows:
        return None
    good = [row for row in rows if "failed" not in row]
    if not good:
        return Cell(0, 0, 0, 0, 0, 0, 0, {}, failed=rows[-1]["failed"])
    errors: dict[str, int] = {}
    for row in good:
        for kind, count in row["errors"].items():
            errors[kind] = errors.get(kind, 0) + count
    if len(good) < len(rows):
        errors["rounds failed"] = len(rows) - len(good)
    middle = {key: median(row[key] for row in good) for key in ("per_second", "p50_ms", "p99_ms")}
    speeds = [row["per_second"] for row in good]
    return Cell(
        **middle,
        ratio=median(row["per_second"] / row["raw_per_second"] for row in good),
        single_ms=median(row["raw_single_ms"] for row in good),
        low=min(speeds),
        high=max(speeds),
        errors=errors,
        cpu_us=median(row.get("cpu_us", 0.0) for row in good),
    )


def find(found: Results, peer: str, model: str, route: str, connections: int) -> Cell | None:
    """The cell of a server, from all its rounds."""
    which = (peer, model, route, connections)
    return cell([row for key, row in found.figures.items() if key[:4] == which])


def number(value: float) -> str:
    """Three digits that matter, thousands with commas."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"
