"""Fetch the four MNIST files once, check every byte of them, and keep them in the cache."""

from __future__ import annotations

import contextlib
import http.client
import os
import time
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.error import HTTPError

from converter.errors import UserError
from converter.training import idx
from converter.training.mnist import SHA256, expected_files
from converter.training.progress import Progress

MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)
SILENCE = 20.0  # seconds without a byte before a mirror is given up
PATIENCE = 600.0  # seconds for a whole file
LARGEST = 16 << 20  # bytes; the largest of the four, compressed, has 9.9 million
PIECE = 1 << 16


class _MirrorError(Exception):
    """A mirror did not give the file; the sentence says why, and the next one is asked."""


def cache_folder() -> Path:
    """`$XDG_CACHE_HOME/foldserve/mnist`, or `~/.cache/foldserve/mnist` when that is not set.

    Source: XDG Base Directory Specification 0.8: a relative path is to be ignored.
    """
    named = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (named if named.is_absolute() else Path.home() / ".cache") / "foldserve" / "mnist"


def fetch(
    folder: Path | None = None,
    *,
    mirrors: Sequence[str] = MIRRORS,
    sha256: Mapping[str, str] = SHA256,
    silence: float = SILENCE,
    patience: float = PATIENCE,
    progress: Progress | None = None,
) -> Path:
    """Make sure that `folder` holds the four files, asking each mirror in turn for those missing.

    A file in the folder whose checksum is wrong is fetched again. A new file gets its name
    only when it is complete and its checksum is right.

    Args:
        folder: where to keep them, `cache_folder()` when None.
        mirrors: URLs of folders, the first is asked first.
        sha256: for each file, without `.gz`, the checksum of its uncompressed content.
        silence: seconds without a byte after which a mirror is given up.
        patience: seconds that one file may take.

    Returns:
        The folder.

    Raises:
        UserError: when no mirror gave a file, or the folder cannot be written.
    """
    folder = folder or cache_folder()
    progress = progress or Progress()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"{folder} cannot be made: {error.strerror}", f"use --data-dir: {expected_files()}"
        ) from error
    for stem, checksum in sha256.items():
        path = folder / f"{stem}.gz"
        if not _is_right(path, checksum):
            _fetch_one(path, checksum, mirrors, silence, patience, progress)
    return folder


def _is_right(path: Path, checksum: str) -> bool:
    with contextlib.suppress(UserError):
        return path.is_file() and idx.read(path, rank=_rank(path)).sha256 == checksum
    return False


def _fetch_one(
    path: Path,
    checksum: str,
    mirrors: Sequence[str],
    silence: float,
    patience: float,
    progress: Progress,
) -> None:
    aside = path.with_name(f".{path.name}.{os.getpid()}.part")
    refusals: list[str] = []
    try:
        for mirror in mirrors:
            url = mirror.rstrip("/") + "/" + path.name
            progress.say(f"downloading {url}")
            try:
                _download(url, aside, silence, patience)
                _verify(aside, checksum)
            except _MirrorError as error:
                refusals.append(f"{url}: {error}")
                progress.say(refusals[-1])
                continue
            aside.replace(path)
            return
    except OSError as error:
        raise UserError(
            f"{path} cannot be written: {error.strerror or error}",
            f"free some space, set XDG_CACHE_HOME, or use --data-dir: {expected_files()}",
        ) from error
    finally:
        with contextlib.suppress(OSError):
            aside.unlink(missing_ok=True)
    raise UserError(
        f"no mirror gave {path.name}:\n" + "\n".join(f"  {line}" for line in refusals),
        f"get the files in some other way and use --data-dir: {expected_files()}",
    )


def _download(url: str, aside: Path, silence: float, patience: float) -> None:
    """Write what `url` answers to `aside`. Raises _MirrorError, and OSError of the disk."""
    deadline = time.monotonic() + patience
    size = 0
    with aside.open("wb") as file:
        try:
            request = urllib.request.Request(url, headers={"User-Agent": "foldserve"})  # noqa: S310
            response = urllib.request.urlopen(request, timeout=silence)  # noqa: S310
        except HTTPError as error:
            error.close()  # it holds the connection
            raise _MirrorError(str(error)) from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise _MirrorError(str(getattr(error, "reason", error))) from error
        with response:
            while True:
                try:
                    piece = response.read(PIECE)
                except (OSError, http.client.HTTPException) as error:
                    raise _MirrorError(f"after {size} bytes: {error}") from error
                if not piece:
                    break
                size += len(piece)
                if size > LARGEST:
                    raise _MirrorError(f"more than {LARGEST} bytes, no file of MNIST is as large")
                if time.monotonic() > deadline:
                    raise _MirrorError(f"not complete after {patience:g} seconds")
                file.write(piece)
            promised = response.headers.get("Content-Length", "")
            if promised.isdigit() and int(promised) != size:
                raise _MirrorError(f"ended after {size} of {promised} bytes")


def _verify(aside: Path, checksum: str) -> None:
    try:
        found = idx.read(aside, rank=_rank(aside)).sha256
    except UserError as error:
        raise _MirrorError(error.message.removeprefix(f"{aside} ")) from error
    if found != checksum:
        raise _MirrorError(f"its uncompressed content has sha256 {found}, not {checksum}")


def _rank(path: Path) -> int:
    """The file's name says it: `...-idx3-ubyte` are images, `...-idx1-ubyte` labels."""
    return 3 if "-idx3-" in path.name else 1
