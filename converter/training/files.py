"""Write the results of a training, and find out in time that this will not be possible."""

from __future__ import annotations

import os
from pathlib import Path

from converter.errors import UserError
from converter.files import atomic


def require_writable(path: Path) -> None:
    """Find out before the training, not after it, that `path` cannot be written.

    Makes the folder. Raises UserError.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{path.parent} cannot be made: {error.strerror}") from error
    if path.is_dir():
        raise UserError(f"{path} is a folder", "name the file to write")
    if not os.access(path.parent, os.W_OK):
        raise UserError(f"{path.parent} is not writable")


def write(path: Path, content: bytes) -> None:
    """`path` is the old file or the new one, never a part. Raises UserError."""
    try:
        atomic.write_bytes(path, content)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror or error}") from error
