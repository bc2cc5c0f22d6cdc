"""How a run looks while it goes on."""

from __future__ import annotations

from benchmarks.zoo.results import Row
from converter.report.progress import Live


def sentence(row: Row) -> str:
    """A row as a line of a log."""
    name = f"{row['name']:44}"
    if "error" in row:
        error = row["error"]
        return f"{name} {row['status']}: {error['class']}: {error['sentence'][:120]}"
    peers = ", ".join(
        f"{peer} {found.get('left', 'failed')}" + ("" if found.get("right", True) else " WRONG")
        for peer, found in row.get("peers", {}).items()
    )
    beside = f"  (left by {peers})" if peers else ""
    if "verdict" not in row:
        return f"{name} {row['batchnorms']:4} batch-norms exported{beside}"
    verdict = row["verdict"].upper() if row["verdict"] == "wrong" else row["verdict"]
    certified = "certified" if row.get("certified") else "not certified"
    return (
        f"{name} {row['left']:4} of {row['batchnorms']:4} left, {verdict}, {certified}, "
        f"float64 {row['exact']:.0e}, {row['fold_seconds']:.1f} + {row['proof_seconds']:.1f} s"
        f"{beside}"
    )


class Listener:
    """Tells a person of each row, and how far the run is."""

    rows = "architectures"

    def __init__(self, live: Live) -> None:
        self.live = live
        self.total = self.count = 0

    def start(self, total: int) -> None:
        self.total = total
        self.say(f"{total} {self.rows} to run")
        self.live.begin(self.rows, total)

    def say(self, text: str) -> None:
        self.live.say(text)

    def row(self, row: Row) -> None:
        self.count += 1
        self.say(f"{self.count:4}/{self.total} {self.sentence(row)}")
        self.live.reach(self.count)

    def sentence(self, row: Row) -> str:
        """A row as a line of a log."""
        return sentence(row)
