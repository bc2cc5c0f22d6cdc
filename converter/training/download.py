"""Fetch the files of a data set once, check every byte of them, and keep them in the cache."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pooch
from requests import RequestException

from converter.errors import UserError
from converter.training import fashion, mnist
from converter.training.progress import Progress

SILENCE = 20.0  # seconds without a byte before a mirror is given up
LONGEST = 600.0  # seconds for a whole file
LARGEST = 32 << 20  # bytes; the largest file of all has 26.4 million
PIECE = 1 << 16


@dataclass(frozen=True)
class Origin:
    """Where a data set comes from.

    Attributes:
        name: of the folder in the cache.
        mirrors: URLs of folders, the first is asked first.
        checksums: sha256 of each file, by its name without `.gz`.
    """

    name: str
    mirrors: Sequence[str]
    checksums: Mapping[str, str]


MNIST = Origin(
    name="mnist",
    mirrors=(
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
    ),
    checksums=mnist.COMPRESSED_SHA256,
)
FASHION_MNIST = Origin(
    name="fashion-mnist",
    mirrors=(
        "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
        "https://storage.googleapis.com/tensorflow/tf-keras-datasets/",
    ),
    checksums=fashion.COMPRESSED_SHA256,
)


def cache_folder(name: str = MNIST.name) -> Path:
    """`$XDG_CACHE_HOME/foldserve/NAME`, or `~/.cache/foldserve/NAME` when that is not set.

    Source: XDG Base Directory Specification 0.8: a relative path is to be ignored.
    """
    named = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (named if named.is_absolute() else Path.home() / ".cache") / "foldserve" / name


def fetch(
    folder: Path | None = None,
    *,
    origin: Origin = MNIST,
    silence: float = SILENCE,
    longest: float = LONGEST,
    progress: Progress | None = None,
) -> Path:
    """Make sure that `folder` holds the files, asking each mirror in turn for those missing.

    A file in the folder whose checksum is wrong is fetched again. A new file gets its name
    only when it is complete and its checksum is right.

    Args:
        folder: where to keep them, `cache_folder(origin.name)` when None.
        silence: seconds without a byte after which a mirror is given up.
        longest: seconds that one file may take.

    Returns:
        The folder.

    Raises:
        UserError: when no mirror gave a file, or the folder cannot be written.
    """
    folder = folder or cache_folder(origin.name)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"{folder} cannot be made: {error.strerror}",
            f"use --data-dir: {mnist.expected_files()}",
        ) from error
    pooch.get_logger().setLevel(logging.WARNING)  # `progress` is told instead
    for stem, checksum in origin.checksums.items():
        path = folder / f"{stem}.gz"
        if not (path.is_file() and pooch.file_hash(str(path)) == checksum):
            _fetch_one(path, checksum, origin.mirrors, silence, longest, progress or Progress())
    return folder


def _fetch_one(
    path: Path,
    checksum: str,
    mirrors: Sequence[str],
    silence: float,
    longest: float,
    progress: Progress,
) -> None:
    refusals: list[str] = []
    for mirror in mirrors:
        url = mirror.rstrip("/") + "/" + path.name
        progress.say(f"downloading {url}")
        downloader = pooch.HTTPDownloader(
            progressbar=_Watch(progress, longest),
            chunk_size=PIECE,
            timeout=silence,
            headers={"User-Agent": "foldserve", "Accept-Encoding": "identity"},
        )
        try:
            pooch.retrieve(url, f"sha256:{checksum}", path.name, path.parent, downloader=downloader)
        except (RequestException, ValueError) as error:
            refusals.append(f"{url}: {_reason(error)}")
            progress.say(refusals[-1])
        except OSError as error:
            raise UserError(
                f"{path} cannot be written: {error.strerror or error}",
                "free some space, set XDG_CACHE_HOME, or use --data-dir: " + mnist.expected_files(),
            ) from error
        else:
            return
    raise UserError(
        f"no mirror gave {path.name}:\n" + "\n".join(f"  {line}" for line in refusals),
        f"get the files in some other way and use --data-dir: {mnist.expected_files()}",
    )


class _Watch:
    """The progress bar of a download, as pooch calls it; it ends one that has no end.

    A mirror that is not what we think, or somebody who answers in its place, may send bytes for
    ever, or so slowly that the time between two of them never becomes too long.
    """

    def __init__(self, progress: Progress, longest: float) -> None:
        self.progress = progress
        self.total = 0  # set by pooch: what the mirror promises, 0 when it promises nothing
        self.arrived: int | None = None
        self.deadline = time.monotonic() + longest

    def update(self, size: int) -> None:
        """`size` more bytes, or fewer, have arrived."""
        total = self.total or None
        if self.arrived is None:
            self.progress.received(0, total)
        self.arrived = (self.arrived or 0) + size
        if self.arrived > LARGEST:
            raise ValueError(f"more than {LARGEST} bytes, no file of it is as large")
        if time.monotonic() > self.deadline:
            raise ValueError("not complete in the time that one file may take")
        if size:
            self.progress.received(min(self.arrived, total or self.arrived), total)

    def reset(self) -> None:
        """The file is complete; pooch then gives its whole size to `update`."""
        self.arrived = 0

    def close(self) -> None:
        """Nothing to do."""


def _reason(error: BaseException) -> str:
    """The first sentence of the error that came first: requests wraps it two or three times."""
    while inner := error.__cause__ or error.__context__:
        error = inner
    return str(error).partition(". ")[0].strip()
