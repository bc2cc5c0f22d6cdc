"""What the benchmarks under strain share: the document, its one promise, and where results go."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks import document

DOCUMENT = Path(__file__).parents[2] / "docs" / "serving-strain.md"
PREFACE = """# The service under strain

What happens beyond the capacity, over a long time, and beside poisonous requests. Every block
can be repeated by the command that it names.
"""
PROMPT_MS = 50.0  # of an answer to who asks for health, and of a refusal


def save(results: Path, rows: list[dict[str, Any]], command: str, made: str) -> None:
    """Write the rows as lines of JSON, and their text into the document."""
    results.parent.mkdir(exist_ok=True)
    results.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    document.write(DOCUMENT, command, made, PREFACE)
