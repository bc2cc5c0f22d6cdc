"""What was measured: JSON, one object a line, appended as it comes (`benchmarks.lines`).

    {"run": {...}}                                       machine and versions; the first line
    {"server": key, "model": name, "failed": reason, ...} or {..., "started_s": , "memory_bytes": }
    {"peer": key, "model": name, "route": key, "connections": 8, "round": 1, ...}

The last of several equal ones counts. A line cut off by a kill is skipped, and measured again.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import lines

Row = dict[str, Any]


@dataclass
class Results:
    """Rows by what identifies them."""

    run: Row = field(default_factory=dict)
    servers: dict[tuple[str, str], Row] = field(default_factory=dict)
    figures: dict[tuple[str, str, str, int, int], Row] = field(default_factory=dict)

    def add(self, row: Row) -> None:
        if "run" in row:
            self.run = row["run"]
        elif "server" in row:
            self.servers[row["server"], row["model"]] = row
        elif "peer" in row:
            key = (row["peer"], row["model"], row["route"], row["connections"], row["round"])
            self.figures[key] = row


def read(path: Path) -> Results:
    found = Results()
    for row in lines.read(path):
        found.add(row)
    return found
