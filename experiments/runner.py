"""Make the runs that are missing, one after the other or several at once, and keep each.

A run belongs to the process that makes it: with `jobs` above 1 each has a process of its own,
which reads the data once and writes its records itself. A process whose parent is gone ends.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from pathlib import Path

from converter.errors import UserError
from converter.training import datasets
from converter.training.data import Dataset
from experiments.records import Folder, Record
from experiments.running import Machine, run
from experiments.settings import Settings


@dataclass(frozen=True)
class Job:
    """What a process needs to know to make runs.

    Attributes:
        folder: where records go.
        dataset, data_dir: what to train on, see `datasets.load`.
        machine: where to train.
    """

    folder: Path
    dataset: str = "mnist"
    data_dir: Path | None = None
    machine: Machine = field(default_factory=Machine)

    def load(self) -> Dataset:
        """Raises UserError, see `datasets.load`."""
        return datasets.load(self.dataset, self.data_dir)


class Listener:
    """What the runner tells. Override what you want to hear."""

    def plan(self, total: int, done: int) -> None:
        """Before the first run: how many there are, and how many of them are there already."""

    def finished(self, record: Record, number: int) -> None:
        """A run is written; it is the `number`th that is done."""


def complete(
    runs: Sequence[Settings], job: Job, *, jobs: int = 1, listener: Listener | None = None
) -> list[Record]:
    """The records of `runs`, in their order; those that are in the folder are not made again.

    Raises:
        UserError: see `running.run` and `records.Folder`; for data that cannot be read, or
            others than the finished runs had; when a process dies.
        KeyboardInterrupt: passed on; what was finished stays.
    """
    listener = listener or Listener()
    folder = Folder(job.folder)
    folder.prepare()
    wanted = list(dict.fromkeys(runs))
    found = {settings: record for settings in wanted if (record := folder.read(settings))}
    missing = [settings for settings in wanted if settings not in found]
    listener.plan(len(wanted), len(found))
    if missing:
        data = job.load()
        digest = datasets.digest(data)
        _require_same_data(data, digest, list(found.values()), job)
        made = _here(missing, data, digest, job) if jobs == 1 else _in_processes(missing, job, jobs)
        for record in made:
            found[record.settings] = record
            listener.finished(record, len(found))
    return [found[settings] for settings in runs]


def _require_same_data(data: Dataset, digest: str, found: Sequence[Record], job: Job) -> None:
    if any(record.digest != digest for record in found):
        raise UserError(
            f"runs in {job.folder} were made with other data than {data.description}",
            "give another --output: results on different data cannot be compared",
        )


def _here(missing: Sequence[Settings], data: Dataset, digest: str, job: Job) -> Iterator[Record]:
    for settings in missing:
        yield _make(settings, data, digest, job)


def _make(settings: Settings, data: Dataset, digest: str, job: Job) -> Record:
    record = run(settings, data, job.machine, digest)
    Folder(job.folder).write(record)
    return record


def _in_processes(missing: Sequence[Settings], job: Job, jobs: int) -> Iterator[Record]:
    # Forked processes would share torch's threads, which do not survive that.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(
        min(jobs, len(missing)), mp_context=context, initializer=_begin, initargs=(job,)
    )
    try:
        futures: list[Future[Record]] = [pool.submit(_one, settings) for settings in missing]
        for future in as_completed(futures):
            yield future.result()
    except BrokenProcessPool as error:
        raise UserError(
            "a process that trained died, most likely for lack of memory",
            "the finished runs are kept; give fewer --jobs and start again",
        ) from error
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        for process in multiprocessing.active_children():
            process.terminate()


# What the initializer of a process has read, for its runs.
_DATA: dict[str, tuple[Dataset, str, Job]] = {}


def _begin(job: Job) -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # the parent says that it was interrupted
    parent = multiprocessing.parent_process()
    assert parent is not None

    def end_with_parent() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()
    data = job.load()
    _DATA["now"] = data, datasets.digest(data), job


def _one(settings: Settings) -> Record:
    data, digest, job = _DATA["now"]
    return _make(settings, data, digest, job)
