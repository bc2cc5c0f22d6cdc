"""Take architectures through the stages, each stage in its own process (`cases.py`).

What the first two stages give is kept in a folder for each architecture, and used again.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import lines
from benchmarks.zoo import cases, engine, results
from benchmarks.zoo.catalogue import Architecture
from benchmarks.zoo.names import EXPORT, EXPORTERS, MODEL, RIVAL_NAMES, RIVALS, USER
from benchmarks.zoo.progress import Listener
from benchmarks.zoo.results import Row

# Raise it when a network is built, fed or exported otherwise: kept exports are made again.
RECIPE = 1
# What tells that a network was exported as before: then what the peers said of it still holds.
SAME = ("input", "exporter", "batchnorms", "megabytes", "sensitivity")


@dataclass(frozen=True)
class Settings:
    """How a run is done.

    Attributes:
        results: the file that rows are appended to.
        cache: where exports are kept.
        cache_bytes: new ones are dropped after use while more than this is kept.
        seconds, memory: limits of one stage of one architecture (`limits.run`).
        jobs: architectures at a time.
        budget: seconds after which no further architecture is started.
        stages: the module whose `main` runs a stage; a test has its own.
        preload: what the process imports that the stages are forked from.
        peers: the tools to ask; what they said before is used again, also where they are not asked.
        exporter: which one the converter is to try first.
        prepare: export and ask the peers only; no rows.
    """

    results: Path
    cache: Path
    cache_bytes: int = 20 * 10**9
    seconds: float = 300.0
    memory: int = 6 * 10**9
    jobs: int = 1
    budget: float = float("inf")
    peers: tuple[str, ...] = RIVAL_NAMES
    exporter: str = EXPORTERS[0]
    prepare: bool = False
    stages: str = "benchmarks.zoo.stages"
    preload: str = "benchmarks.zoo.warm"


def run(work: Iterable[Architecture], settings: Settings, listener: Listener) -> list[Row]:
    """Run `work` in order; returns the rows, in the order in which they came."""
    versions = {"engine": engine.version(), "checker": engine.checker()}
    former = results.read(settings.results)
    cases.prepare(settings.jobs, settings.preload)

    def keep(row: Row) -> None:
        if not settings.prepare:
            lines.append(settings.results, row)

    return cases.run(
        work,
        lambda net, stop: measure(net, settings, versions, stop, former.get(net.name, {})),
        keep,
        jobs=settings.jobs,
        budget=settings.budget,
        listener=listener,
    )


def measure(
    architecture: Architecture,
    settings: Settings,
    versions: dict[str, str],
    stop: threading.Event,
    former: Row,
) -> Row:
    """All stages of one architecture as a row; what fails is in the row.

    Args:
        architecture, settings: of the run.
        versions: of the engine and of the checker.
        stop: ends it early.
        former: the row that it had; of its peers what is not asked again, where the export is as it
            was, and all but the certificate if only the checker has changed.

    Raises:
        StoppedError: `stop` was set meanwhile.
    """
    folder = settings.cache / architecture.name.replace(":", "-")
    row: Row = {
        "name": architecture.name,
        "family": architecture.family,
        **versions,
        "status": "ok",
        "million_parameters": round(architecture.parameters / 1e6, 2),
    }
    try:
        made = _kept(folder / EXPORT)
        if made is None or not _serves(made, folder, settings):
            shutil.rmtree(folder, ignore_errors=True)
            made = _stage("export", architecture.name, folder, settings, stop, settings.exporter)
            made["recipe"] = RECIPE
            folder.mkdir(parents=True, exist_ok=True)
            (folder / EXPORT).write_text(json.dumps(made))
        if "error" in made:
            return row | {"status": "not exported", "error": made["error"]}
        row |= {
            key: value for key, value in made.items() if key not in {"recipe", "errors", "asked"}
        }
        row["export_peak_mb"] = row.pop("peak_mb")
        as_before = all(former.get(key) == row.get(key) for key in SAME)
        row["peers"] = (former.get("peers", {}) if as_before else {}) | _peers(
            architecture.name, folder, settings, stop
        )
        if settings.prepare:
            return row
        only_checker = former.get("checker") not in {None, row["checker"]}
        if as_before and former["engine"] == row["engine"] and only_checker:
            again = former | row | _certified(architecture.name, folder, settings, stop)
            # The verdict of a proof may rest on the certificate.
            if again["certified"] == former["certified"]:
                return again
        folded = _stage("fold", architecture.name, folder, settings, stop)
        return row | folded | {"status": "not folded" if "error" in folded else "ok"}
    finally:
        if (folder / MODEL).is_file() and kept_bytes(settings.cache) > settings.cache_bytes:
            shutil.rmtree(folder, ignore_errors=True)


def _certified(
    name: str, folder: Path, settings: Settings, stop: threading.Event
) -> dict[str, Any]:
    """What the row says of a certificate, from a fold that is not proven again."""
    found = _stage("certify", name, folder, settings, stop)
    if "error" in found:
        return {"certified": False, "certificate": f"Not certified: {found['error']['sentence']}"}
    del found["peak_mb"]
    return found


def _serves(made: dict[str, Any], folder: Path, settings: Settings) -> bool:
    """Whether a kept export is what is wanted; one by the better exporter always is."""
    asked = made.get("asked", EXPORTERS[0])
    if asked not in (EXPORTERS[0], settings.exporter):
        return False
    return "error" in made or all((folder / name).is_file() for name in (MODEL, USER))


def _peers(name: str, folder: Path, settings: Settings, stop: threading.Event) -> dict[str, Any]:
    """What each peer left, from earlier runs or this one."""
    kept = _kept(folder / RIVALS) or {"recipe": RECIPE, "peers": {}}
    missing = [peer for peer in settings.peers if peer not in kept["peers"]]
    if missing:
        asked = _stage("peers", name, folder, settings, stop, *missing)
        kept["peers"] |= asked.get("peers", {})
        (folder / RIVALS).write_text(json.dumps(kept))
    found: dict[str, Any] = kept["peers"]
    return found


def _stage(
    stage: str, name: str, folder: Path, settings: Settings, stop: threading.Event, *more: str
) -> dict[str, Any]:
    """What a stage printed, or why it did not."""
    words = [stage, name, str(folder), *more]
    printed = cases.stage(settings.stages, words, settings.seconds, settings.memory, stop)
    if printed.failure is None:
        return printed.found
    kind, sentence = printed.failure
    return {"error": {"class": kind, "sentence": sentence}}


def _kept(path: Path) -> dict[str, Any] | None:
    """What an earlier run left, if it was made by the same recipe."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if found.get("recipe") == RECIPE else None


def kept_bytes(cache: Path) -> int:
    """What the models that are kept for further runs take of the disk."""
    total = 0
    # Unlike Path.rglob, os.walk passes over a folder that another job has just dropped.
    for folder, _, names in os.walk(cache):
        for name in names:
            if name.startswith((MODEL, USER)):
                with contextlib.suppress(OSError):
                    total += Path(folder, name).stat().st_size
    return total
