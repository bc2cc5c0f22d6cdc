"""The rows that were measured: one JSON object a line, appended as they come.

A line that was cut off by a kill is skipped, and its architecture is run again. Where an
architecture has several rows the last one counts; `compact` leaves only that.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

Row = dict[str, Any]


def read(path: Path) -> dict[str, Row]:
    """The last row of each architecture, by name."""
    rows: dict[str, Row] = {}
    if path.is_file():
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                row = json.loads(line)
            except json.JSONDecodeError:
                continue
            if isinstance(row, dict) and "name" in row:
                rows[row["name"]] = row
    return rows


def append(path: Path, row: Row) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cut = path.is_file() and not path.read_bytes().endswith(b"\n") and path.stat().st_size > 0
    with path.open("a", encoding="utf-8") as file:
        file.write(("\n" if cut else "") + json.dumps(row) + "\n")


def compact(path: Path) -> None:
    """Only the last row of each architecture, by name."""
    rows = read(path)
    if rows:
        aside = path.with_suffix(".tmp")
        text = "".join(json.dumps(rows[name]) + "\n" for name in sorted(rows))
        aside.write_text(text, encoding="utf-8")
        aside.replace(path)


def done(row: Row | None, engine: str, *, retry: bool = False) -> bool:
    """Whether an architecture need not be run again: same engine, and not failed where failures
    are to be retried."""
    return row is not None and row["engine"] == engine and not (retry and row["status"] != "ok")
