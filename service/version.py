"""Which Foldserve this is."""

from __future__ import annotations

from functools import cache
from importlib import metadata


@cache
def program_version() -> str:
    """Of the program, as it was installed."""
    try:
        return metadata.version("foldserve")
    except metadata.PackageNotFoundError:  # run from a copied folder
        return "unknown"
