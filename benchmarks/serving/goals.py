"""What the project has set itself, beside what was measured.

A goal is either on ours alone or relative to what a peer reached in the same run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from benchmarks import document
from benchmarks.serving.cells import Cell
from benchmarks.serving.peer import Peer

Find = Callable[[str, str, str, int], Cell | None]
_OURS = ("foldserve", "foldserve-2")


@dataclass(frozen=True)
class Goal:
    """`measure` of a cell, of our best route in this format; `least` or at `most`."""

    model: str
    binary: bool
    connections: int
    says: str
    measure: Callable[[Cell], float]
    least: float | None = None
    most: float | None = None
    shown: str = "{:.2f}"


def _share(cell: Cell) -> float:
    return cell.ratio


def _speed(cell: Cell) -> float:
    return cell.per_second


GOALS = (
    Goal("resnet18", True, 8, "share of raw onnxruntime's best", _share, least=0.92),
    Goal("resnet18", True, 32, "share of raw onnxruntime's best", _share, least=0.90),
    Goal("resnet18", False, 8, "share of raw onnxruntime's best", _share, least=0.60),
    Goal(
        "resnet18", True, 1, "p50 beyond the raw call with all cores, ms",
        lambda cell: cell.p50_ms - cell.single_ms, most=1.0,
    ),
    *(
        goal
        for model in ("digits", "mlp")
        for goal in (
            Goal(model, False, 32, "requests/s", _speed, least=15_000, shown="{:,.0f}"),
            Goal(model, True, 32, "requests/s", _speed, least=20_000, shown="{:,.0f}"),
            Goal(model, False, 1, "p50, ms", lambda cell: cell.p50_ms, most=0.25),
        )
    ),
)  # fmt: skip


def goals(find: Find, peers: Sequence[Peer]) -> str:
    """The table; a goal whose case was not measured is left out."""
    rows: list[list[object]] = []
    for goal in GOALS:
        sign = 1 if goal.least is not None else -1
        ours = _best(goal, find, [peer for peer in peers if peer.key in _OURS], sign)
        if ours is None:
            continue
        other = _best(goal, find, [peer for peer in peers if peer.key not in _OURS], sign)
        aim = goal.least if goal.least is not None else goal.most
        assert aim is not None
        reached = sign * (ours[0] - aim) >= 0
        rows.append([
            f"{goal.model}, {'binary' if goal.binary else 'JSON'}, {goal.connections} "
            f"client{'s' * (goal.connections > 1)}: {goal.says}",
            ("at least " if sign > 0 else "at most ") + goal.shown.format(aim),
            goal.shown.format(ours[0]) + f" ({ours[1]})",
            f"{goal.shown.format(other[0])} ({other[1]})" if other else "",
            "yes" if reached else f"no: {_by(ours[0], aim)}",
        ])  # fmt: skip
    rows += _against_triton(find)
    heads = ["case", "goal", "Foldserve", "best other", "reached"]
    return document.table(heads, rows, " rrr") if rows else ""


def _best(goal: Goal, find: Find, peers: Sequence[Peer], sign: int) -> tuple[float, str] | None:
    found = [
        (goal.measure(cell), f"{peer.title}, {route.key}")
        for peer in peers
        for route in peer.routes
        if route.binary == goal.binary
        and (cell := find(peer.key, goal.model, route.key, goal.connections)) is not None
        and not cell.failed
        and not cell.errors
    ]
    return max(found, key=lambda pair: sign * pair[0]) if found else None


def _against_triton(find: Find) -> list[list[object]]:
    """The goal that is a multiple of a peer's figure in the same run."""
    rows: list[list[object]] = []
    for model in ("digits", "mlp"):
        ours, theirs = find("foldserve", model, "json", 32), find("triton", model, "v2-json", 32)
        if ours and theirs and theirs.per_second:
            ratio = ours.per_second / theirs.per_second
            rows.append([
                f"{model}, JSON, 32 clients: times Triton's JSON", "at least 5.00",
                f"{ratio:.2f}", "1.00", "yes" if ratio >= 5 else f"no: {_by(ratio, 5)}",
            ])  # fmt: skip
    return rows


def _by(value: float, aim: float) -> str:
    return f"{value / aim:.2f} of it" if value < aim else f"{value / aim:.2f} times it"
