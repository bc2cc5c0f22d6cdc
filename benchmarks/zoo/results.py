"""The rows that were measured: one JSON object a line, appended as they come.

A line that was cut off by a kill is skipped, and its architecture is run again. Where an
architecture has several rows the last one counts; `compact` leaves only that.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks import lines

Row = dict[str, Any]


def read(path: Path) -> dict[str, Row]:
    """The last row of each architecture, by name."""
    return {row["name"]: row for row in lines.read(path) if "name" in row}


def compact(path: Path) -> None:
    """Only the last row of each architecture, by name."""
    rows = read(path)
    if rows:
        aside = path.with_suffix(".tmp")
        text = "".join(json.dumps(rows[name]) + "\n" for name in sorted(rows))
        aside.write_text(text, encoding="utf-8")
        aside.replace(path)


def done(row: Row | None, engine: str, checker: str, *, retry: bool = False) -> bool:
    """Whether an architecture need not be run again: same engine and checker of certificates, and
    not failed where failures are to be retried."""
    if row is None or row["engine"] != engine:
        return False
    if row["status"] != "ok":
        return not retry
    return row.get("checker") == checker
