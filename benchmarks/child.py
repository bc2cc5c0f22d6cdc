"""A piece of Python in a process of its own, which prints what it has measured."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any


def run(code: str, *arguments: str) -> dict[str, Any]:
    """The object of JSON in the last line that the code prints.

    Args:
        code: a program.
        arguments: its sys.argv, from 1 on.
    """
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], check=True, capture_output=True, text=True
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found
