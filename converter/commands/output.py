"""Write a report for programs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from converter.atomic import write_bytes
from converter.errors import UserError


def write_json(path: Path | None, report: dict[str, Any]) -> None:
    """Write `report` to `path`, if one was given.

    Raises:
        UserError: the place cannot be written to.
    """
    if path is None:
        return
    try:
        write_bytes(path, (json.dumps(report, indent=2, allow_nan=False) + "\n").encode())
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}.") from error
