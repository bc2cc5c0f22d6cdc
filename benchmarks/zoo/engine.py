"""Which converter a row was made with: a hash of its source."""

from __future__ import annotations

import hashlib
from pathlib import Path

SOURCE = Path(__file__).parents[2] / "converter"


def version(source: Path = SOURCE) -> str:
    """Twelve digits that change when any Python file under `source` does."""
    digest = hashlib.sha256()
    for path in sorted(source.rglob("*.py")):
        digest.update(path.relative_to(source).as_posix().encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]
