"""One version folder whose signature is required: verified before any of it is used.

    model.sig -> who signed -> sha256 of model.json -> name and version -> sha256 of every file

The signature lists every file with its sha256, model.json among them, and model.json has the name
and the number of the version: so neither an older version nor that of another model can stand in
its place. A folder may hold what is signed and nothing else; links are not followed.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Protocol

from service.manifest import MANIFEST_FILE, MODEL_FILE, FileEntry, Manifest
from service.models import bundle
from service.models.bundle import LONGEST_MANIFEST_BYTES, Rejected
from service.models.external import Buffer
from service.models.held import Held
from service.signing.names import LONGEST_SIGNATURE_BYTES, SIGNATURE_FILE, Unverified

# Not there on Windows, where links need a privilege.
_FLAGS = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
_BINARY = getattr(os, "O_BINARY", 0)
# Memory that the system gives in one go: touched page by page it takes longer than the hashing.
_IN_ONE_GO = getattr(mmap, "MAP_POPULATE", None)  # Linux has it
_SMALL_BYTES = 1024 * 1024
_CHUNK_BYTES = 256 * 1024  # hashed while it is still in the cache of the processor


class Checked(Protocol):
    """A signature that holds: `service.signing.keys.Verified`."""

    @property
    def signer(self) -> str:
        """Whose it is."""

    @property
    def digests(self) -> dict[str, str]:
        """The sha256 of each file that it signs, in hex, by name."""


class Trust(Protocol):
    """Whose signatures count: `service.signing.keys.Trust`, which needs an extra package."""

    def verify(self, text: bytes) -> Checked:
        """What the signature file signs; raises Unverified."""


@dataclass(frozen=True, slots=True)
class Signed:
    """A version whose signature holds. `signer`: whose it is; `held`: the files, if asked for."""

    manifest: Manifest
    signer: str
    held: Held | None


def read(folder: Path, name: str, version: int, trust: Trust, *, hold: bool) -> Signed:
    """Verify a version folder: its signature, and by it each of its files, read once.

    Args:
        folder: models/<name>/<version>.
        name, version: what the path says, which the signed manifest must confirm.
        trust: whose signatures count.

    Raises:
        Rejected: with the reason.
    """
    present = _present(folder)
    if MANIFEST_FILE not in present:
        bundle.refuse_unfetched(folder)
    if SIGNATURE_FILE not in present:
        raise unsigned()
    if MANIFEST_FILE not in present:
        raise Rejected(f"it has no {MANIFEST_FILE}, which ties its signature to name and version")
    text = _small(folder, MANIFEST_FILE, LONGEST_MANIFEST_BYTES)
    signature = _small(folder, SIGNATURE_FILE, LONGEST_SIGNATURE_BYTES)
    manifest, signer = agree(text, signature, name, version, trust)
    listed = {*manifest.files, MANIFEST_FILE, SIGNATURE_FILE}
    for stray in sorted(present - listed):
        raise Rejected(f"{stray[:200]!r} is not signed: remove it, or sign the version again")
    files = {file: _verified(folder, file, entry, hold) for file, entry in manifest.files.items()}
    return Signed(manifest, signer, Held({**files, MANIFEST_FILE: text}) if hold else None)


def agree(
    text: bytes, signature: bytes, name: str, version: int, trust: Trust
) -> tuple[Manifest, str]:
    """The manifest of a version, once a signature vouches for it and for what it lists.

    Args:
        name, version: which the manifest must confirm.
        trust: whose signatures count.

    Returns:
        The manifest, of which every sha256 is signed, and who signed.

    Raises:
        Rejected: with the reason.
    """
    try:
        found = trust.verify(signature)
    except Unverified as error:
        raise Rejected(str(error)) from None
    signed = dict(found.digests)
    expected = signed.pop(MANIFEST_FILE, None)
    if expected is None:
        raise Rejected(f"{SIGNATURE_FILE} does not sign {MANIFEST_FILE}")
    _compare(MANIFEST_FILE, hashlib.sha256(text).hexdigest(), expected)
    manifest = bundle.parse(text, name, version)
    for file in sorted({*signed} ^ {*manifest.files}):
        raise Rejected(
            f"{file[:200]!r} is signed, but {MANIFEST_FILE} does not list it"
            if file in signed
            else f"{MANIFEST_FILE} lists {file[:200]!r}, which is not signed"
        )
    for file, entry in manifest.files.items():
        _compare(file, entry.sha256, signed[file])
    return manifest, found.signer


def manifest_of(folder: Path, name: str, version: int, trust: Trust) -> Manifest | None:
    """The manifest of a version folder if it is signed, its files not looked at; None if not."""
    try:
        text = _small(folder, MANIFEST_FILE, LONGEST_MANIFEST_BYTES)
        signature = _small(folder, SIGNATURE_FILE, LONGEST_SIGNATURE_BYTES)
        return agree(text, signature, name, version, trust)[0]
    except Rejected:
        return None


def unsigned() -> Rejected:
    """That a version has no signature."""
    return Rejected(f"it is not signed: it has no {SIGNATURE_FILE}")


def _present(folder: Path) -> set[str]:
    """What lies in the folder: regular files and nothing else."""
    names = set()
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_symlink():
                    raise Rejected(f"{entry.name[:200]!r} is a link, which no signature covers")
                if not entry.is_file():
                    raise Rejected(f"{entry.name[:200]!r} is not a regular file")
                names.add(entry.name)
    except OSError as error:
        raise Rejected(f"the version folder cannot be read: {error.strerror}") from None
    return names


@contextmanager
def _opened(folder: Path, name: str) -> Iterator[tuple[BufferedReader, int]]:
    """A regular file of the folder and its size; raises Rejected."""
    try:
        descriptor = os.open(folder / name, _FLAGS | _BINARY)
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise Rejected(f"{name} is not a regular file")
            yield file, status.st_size
    except FileNotFoundError:
        raise Rejected(f"{name} is missing") from None
    except OSError as error:
        raise Rejected(f"{name} cannot be read: {error.strerror}") from None


def _small(folder: Path, name: str, longest: int) -> bytes:
    with _opened(folder, name) as (file, _):
        content = file.read(longest + 1)
    if len(content) > longest:
        raise Rejected(f"{name} is larger than {longest} bytes")
    return content


def _verified(folder: Path, name: str, entry: FileEntry, hold: bool) -> Buffer:
    """The content of a file, or nothing if it is not to be held."""
    with _opened(folder, name) as (file, size):
        if size != entry.bytes:
            raise Rejected(f"{name} has {size} bytes, {MANIFEST_FILE} says {entry.bytes}")
        if hold:
            # onnxruntime takes the graph as bytes and nothing else.
            content, digest = (_held_bytes if name == MODEL_FILE else _held)(file, size)
        else:
            content, digest = b"", hashlib.file_digest(file, "sha256").hexdigest()
    _compare(name, digest, entry.sha256)
    return content


def _held_bytes(file: BufferedReader, size: int) -> tuple[Buffer, str]:
    """The content of a file, and its sha256."""
    content = file.read(size)
    return content, hashlib.sha256(content).hexdigest()


def _held(file: BufferedReader, size: int) -> tuple[Buffer, str]:
    """The same; a large file lies in memory of its own."""
    if size < _SMALL_BYTES or _IN_ONE_GO is None:
        return _held_bytes(file, size)
    content = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _IN_ONE_GO)
    digest = hashlib.sha256()
    with memoryview(content) as view:
        for start in range(0, size, _CHUNK_BYTES):
            with view[start : start + _CHUNK_BYTES] as chunk:
                file.readinto(chunk)  # a file that is shorter by now leaves zeros: another hash
                digest.update(chunk)
    return content, digest.hexdigest()


def _compare(name: str, found: str, signed: str) -> None:
    if found != signed:
        raise Rejected(
            f"sha256 of {name} is {found[:12]}..., {SIGNATURE_FILE} says {signed[:12]}..."
        )
