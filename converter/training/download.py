"""Fetch the files of a data set once, check every byte of them, and keep them in the cache.

What a broken connection has brought is kept beside the files, and the next attempt, also that of
a later process, asks the same mirror for the rest only (RFC 9110, section 14: Range requests).
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import http.client
import os
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO
from urllib.error import HTTPError

from converter.errors import UserError
from converter.training import fashion, idx, mnist
from converter.training.progress import Progress

SILENCE = 20.0  # seconds without a byte before a mirror is given up
PATIENCE = 600.0  # seconds for a whole file
LARGEST = 32 << 20  # bytes; the largest file of all, compressed, has 26.4 million
PIECE = 1 << 16
WORTH_KEEPING = 1 << 16  # bytes of a broken transfer
ATTEMPTS = 5  # on one mirror, as long as each brings something


@dataclass(frozen=True)
class Origin:
    """Where a data set comes from.

    Attributes:
        name: of the folder in the cache.
        mirrors: URLs of folders, the first is asked first.
        checksums: of each file, by its name without `.gz`.
        digest: what is compared with a checksum; raises UserError for a damaged file.
        kind: what the checksum is, for messages.
    """

    name: str
    mirrors: Sequence[str]
    checksums: Mapping[str, str]
    digest: Callable[[Path], str]
    kind: str


class _MirrorError(Exception):
    """A mirror did not give the file; the sentence says why, and the next one is asked."""


def _content(path: Path) -> str:
    """sha256 of the uncompressed values: mirrors compress the same bytes differently."""
    return idx.read(path, rank=3 if "-idx3-" in path.name else 1).sha256


def _whole(path: Path) -> str:
    """md5 of the file as it is, which is what is published for Fashion-MNIST."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, fashion.new_md5).hexdigest()


MNIST = Origin(
    name="mnist",
    mirrors=(
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
    ),
    checksums=mnist.SHA256,
    digest=_content,
    kind="its uncompressed content has sha256",
)
FASHION_MNIST = Origin(
    name="fashion-mnist",
    mirrors=(
        "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
        "https://storage.googleapis.com/tensorflow/tf-keras-datasets/",
    ),
    checksums=fashion.MD5,
    digest=_whole,
    kind="it has md5",
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
    patience: float = PATIENCE,
    progress: Progress | None = None,
) -> Path:
    """Make sure that `folder` holds the files, asking each mirror in turn for those missing.

    A file in the folder whose checksum is wrong is fetched again. A new file gets its name
    only when it is complete and its checksum is right.

    Args:
        folder: where to keep them, `cache_folder(origin.name)` when None.
        silence: seconds without a byte after which a mirror is given up.
        patience: seconds that one file may take.

    Returns:
        The folder.

    Raises:
        UserError: when no mirror gave a file, or the folder cannot be written.
    """
    folder = folder or cache_folder(origin.name)
    progress = progress or Progress()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"{folder} cannot be made: {error.strerror}",
            f"use --data-dir: {mnist.expected_files()}",
        ) from error
    for stem, checksum in origin.checksums.items():
        path = folder / f"{stem}.gz"
        if not _is_right(path, checksum, origin):
            _fetch_one(path, checksum, origin, silence, patience, progress)
    return folder


def _is_right(path: Path, checksum: str, origin: Origin) -> bool:
    with contextlib.suppress(UserError, OSError):
        return path.is_file() and origin.digest(path) == checksum
    return False


def _fetch_one(
    path: Path,
    checksum: str,
    origin: Origin,
    silence: float,
    patience: float,
    progress: Progress,
) -> None:
    refusals: list[str] = []
    try:
        for mirror in origin.mirrors:
            url = mirror.rstrip("/") + "/" + path.name
            progress.say(f"downloading {url}")
            with _part(path, url) as (aside, file):
                try:
                    _download(url, file, silence, time.monotonic() + patience)
                    _verify(aside, file, checksum, origin)
                except _MirrorError as error:
                    refusals.append(f"{url}: {error}")
                    progress.say(refusals[-1])
                    continue
                aside.replace(path)
                for left in path.parent.glob(f".{path.name}.*.part"):  # of other mirrors
                    left.unlink(missing_ok=True)
                return
    except OSError as error:
        raise UserError(
            f"{path} cannot be written: {error.strerror or error}",
            "free some space, set XDG_CACHE_HOME, or use --data-dir: " + mnist.expected_files(),
        ) from error
    raise UserError(
        f"no mirror gave {path.name}:\n" + "\n".join(f"  {line}" for line in refusals),
        f"get the files in some other way and use --data-dir: {mnist.expected_files()}",
    )


@contextmanager
def _part(path: Path, url: str) -> Iterator[tuple[Path, IO[bytes]]]:
    """What there is of `url` already, ours alone while the block lasts.

    The name depends on the URL, since mirrors may compress the same bytes differently. When
    another process is busy with it, we start from nothing beside it.
    """
    mark = hashlib.sha256(url.encode()).hexdigest()[:8]
    aside = path.with_name(f".{path.name}.{mark}.part")
    file = aside.open("ab+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        aside = path.with_name(f".{path.name}.{mark}.{os.getpid()}.part")
        file = aside.open("wb+")
    with file:
        yield aside, file
        file.flush()
        with contextlib.suppress(FileNotFoundError):  # it has its name by now
            if aside.stat().st_size < WORTH_KEEPING:
                aside.unlink()


def _download(url: str, file: IO[bytes], silence: float, deadline: float) -> None:
    """Append what `url` still has to give. Raises _MirrorError, and OSError of the disk."""
    for attempt in range(1, ATTEMPTS + 1):
        before = file.seek(0, os.SEEK_END)
        try:
            _attempt(url, file, silence, deadline)
        except _MirrorError:
            brought = file.seek(0, os.SEEK_END) - before
            if brought < WORTH_KEEPING or attempt == ATTEMPTS or time.monotonic() > deadline:
                raise
        else:
            return


def _attempt(url: str, file: IO[bytes], silence: float, deadline: float) -> None:
    size = file.seek(0, os.SEEK_END)
    headers = {"User-Agent": "foldserve"} | ({"Range": f"bytes={size}-"} if size else {})
    try:
        request = urllib.request.Request(url, headers=headers)  # noqa: S310
        response = urllib.request.urlopen(request, timeout=silence)  # noqa: S310
    except HTTPError as error:
        error.close()  # it holds the connection
        if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            return  # there is nothing more; the checksum decides
        raise _MirrorError(str(error)) from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise _MirrorError(str(getattr(error, "reason", error))) from error
    with response:
        answered = response.headers.get("Content-Range", "")
        if size and not (response.status == 206 and answered.startswith(f"bytes {size}-")):
            file.truncate(0)  # the mirror begins again
            size = 0
        start = size
        while True:
            try:
                piece = response.read(PIECE)
            except (OSError, http.client.HTTPException) as error:
                raise _MirrorError(f"after {size} bytes: {error}") from error
            if not piece:
                break
            size += len(piece)
            if size > LARGEST:
                file.truncate(0)
                raise _MirrorError(f"more than {LARGEST} bytes, no file of it is as large")
            if time.monotonic() > deadline:
                raise _MirrorError("not complete in the time that one file may take")
            file.write(piece)
        promised = response.headers.get("Content-Length", "")
        if promised.isdigit() and int(promised) != size - start:
            raise _MirrorError(f"ended after {size - start} of {promised} bytes")


def _verify(aside: Path, file: IO[bytes], checksum: str, origin: Origin) -> None:
    """Raises _MirrorError; what is wrong is not worth keeping."""
    file.flush()
    try:
        found = origin.digest(aside)
    except UserError as error:
        file.truncate(0)
        raise _MirrorError(error.message.removeprefix(f"{aside} ")) from error
    if found != checksum:
        file.truncate(0)
        raise _MirrorError(f"{origin.kind} {found}, not {checksum}")
