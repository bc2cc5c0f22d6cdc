"""What was chosen before, so that a restart does not measure again.

    <folder>/<key>.json    key = sha256 of all that the choice depends on

The key holds the hashes of the model's files, the processor and how much of it there is, the
versions of what runs, and the settings. A file that cannot be read is as good as none; one that
cannot be written is not missed. There are at most 256; the oldest go first.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import platform
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, fields
from importlib import metadata
from pathlib import Path
from typing import Any

from service.engines.choice import Trial
from service.version import program_version

logger = logging.getLogger("foldserve.engines")

FOLDER = Path("~/.cache/foldserve/engines")
_MOST_FILES = 256
_LONGEST_BYTES = 64 * 1024
_LONGEST_WAIT_S = 120.0
_PACKAGES = ("onnxruntime", "onnxruntime-gpu", "onnxruntime-ep-openvino")


def key(files: Mapping[str, str], settings: Mapping[str, Any]) -> str:
    """The name under which a choice is remembered.

    Args:
        files: sha256 by name, of the version.
        settings: whatever else it depends on, plain JSON types.
    """
    about = {
        "files": dict(files),
        "settings": dict(settings),
        "machine": _machine(),
        "of": _versions(),
    }
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()


def recall(folder: Path, name: str) -> list[Trial] | None:
    """The trials of then, or None."""
    try:
        with (folder / f"{name}.json").open("rb") as file:
            found = json.loads(file.read(_LONGEST_BYTES))
        trials = [Trial(**row) for row in found["trials"]]
        kinds = {f.name: f.type for f in fields(Trial)}
        good = all(
            isinstance(value, str)
            if kinds[name] == "str"
            else isinstance(value, int | float | None)
            for trial in trials
            for name, value in asdict(trial).items()
        )
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None
    return trials if good and trials else None


def keep(folder: Path, name: str, trials: list[Trial]) -> None:
    """Remember them, as far as the folder can be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=folder, suffix=".part", delete=False) as file:
            json.dump({"trials": [asdict(trial) for trial in trials]}, file)
        Path(file.name).replace(folder / f"{name}.json")
        there = sorted(folder.glob("*.json"), key=lambda path: path.stat().st_mtime)
        for old in [*there[:-_MOST_FILES], *folder.glob("*.part")]:
            old.unlink(missing_ok=True)
    except OSError as error:
        logger.info("the choice of an engine is not remembered: %s", error.strerror)


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """While it lasts no other process that remembers there measures; where that can be had.

    Workers that start together would disturb each other's measurements, and the second one finds
    what the first has remembered.
    """
    try:
        import fcntl

        folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(folder / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except (ImportError, OSError):
        yield
        return
    try:
        end = time.monotonic() + _LONGEST_WAIT_S
        while time.monotonic() < end:
            with suppress(OSError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            time.sleep(0.05)
        yield
    finally:
        os.close(lock)


def _machine() -> list[str]:
    """The processor, with what it can do: a machine of the same name may lack bfloat16."""
    about = [platform.machine(), platform.processor()]
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith(("model name", "flags", "Features")) and line not in about:
                about.append(line)
    return about


def _versions() -> dict[str, str]:
    found = {"foldserve": program_version()}
    for package in _PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found
