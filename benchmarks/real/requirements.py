"""What `requirements.txt` beside this file pins."""

from __future__ import annotations

from functools import cache
from pathlib import Path

PATH = Path(__file__).with_name("requirements.txt")


@cache
def pins() -> dict[str, str]:
    """Versions by distribution."""
    lines = [line.partition("#")[0].strip() for line in PATH.read_text().splitlines()]
    return dict(line.split("==", 1) for line in lines if line)


def version_of(library: str) -> str:
    return pins()[library]
