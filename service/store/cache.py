"""The local side of a store: a repository folder that several processes share.

    <name>/<version>/     whole and checked, or UNFETCHED_FILE with the reason why it is not
    .fetch-*              being fetched; after a process that was killed, the next one removes it
    .lock                 held by the process that changes anything

The time of a version folder says when a process last needed it. A version that the store still has
is removed once no process has needed it for LEASE_S: other workers may serve it still.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from service.manifest import MANIFEST_FILE
from service.models import signed
from service.models.bundle import UNFETCHED_FILE, Rejected, read
from service.models.folders import NAME, VERSION, Fingerprint, fingerprint
from service.models.signed import Trust
from service.store.address import identity

_STAGING = ".fetch-"
_LOCK = ".lock"
LEASE_S = 600.0


def folder_of(address: str, chosen: Path | None) -> Path:
    """A folder of its own for each address, below $XDG_CACHE_HOME or ~/.cache by default.

    Raises:
        OSError: this user has no home.
    """
    if chosen is None:
        try:
            home = Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser())
        except RuntimeError:
            raise OSError(errno.ENOENT, "this user has no home") from None
        chosen = home / "foldserve" / "models"
    return chosen / hashlib.sha256(identity(address).encode()).hexdigest()[:16]


class Cache:
    """Args:
        folder: created if need be, for this user alone.

    Raises:
        OSError: it cannot be created or written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
        (folder / _LOCK).touch()
        self._sound: dict[tuple[str, int], Fingerprint] = {}

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Of all processes that share the folder one fetches, the others then find it done."""
        with (self.folder / _LOCK).open("w") as lock:
            with contextlib.suppress(ImportError):  # Windows, where there are no workers either
                import fcntl

                fcntl.flock(lock, fcntl.LOCK_EX)
            for left in self.folder.glob(f"{_STAGING}*"):
                shutil.rmtree(left, ignore_errors=True)
            yield

    def versions(self) -> list[tuple[str, int]]:
        """What lies here, fetched or not."""
        return [
            (model.name, int(path.name))
            for model in sorted(self.folder.iterdir())
            if NAME.fullmatch(model.name) and model.is_dir()
            for path in sorted(model.iterdir())
            if VERSION.fullmatch(path.name)
        ]

    def path(self, name: str, version: int) -> Path:
        """Where a version lies, or will."""
        return self.folder / name / str(version)

    def manifest(self, name: str, version: int) -> bytes | None:
        """Of a version that was fetched."""
        try:
            return (self.path(name, version) / MANIFEST_FILE).read_bytes()
        except OSError:
            return None

    def sound(self, name: str, version: int, trust: Trust | None = None) -> bool:
        """Whether a version's files are still what its manifest says, and its signature is of one
        who is trusted; read again if they have changed."""
        path = self.path(name, version)
        prints = fingerprint(path)
        if self._sound.get((name, version)) != prints:
            try:
                if trust is None:
                    read(path, name, version)
                else:
                    signed.read(path, name, version, trust, hold=False)
            except Rejected:
                return False
            self._sound[name, version] = prints
        return True

    def size_bytes(self) -> int:
        """All files here."""
        return sum(entry[1] for entry in fingerprint(self.folder) if entry[1] > 0)

    @contextlib.contextmanager
    def staged(self, name: str, version: int) -> Iterator[Path]:
        """An empty folder, which becomes that version's at once when the block ends well."""
        stage = Path(tempfile.mkdtemp(prefix=_STAGING, dir=self.folder))
        try:
            (stage / "new").mkdir()
            yield stage / "new"
            _sync(stage / "new")
            target = self.path(name, version)
            target.parent.mkdir(exist_ok=True)
            if target.exists():  # the reason why it was not fetched, or other content before
                target.rename(stage / "old")
            (stage / "new").rename(target)
            _sync(target.parent)
        finally:
            shutil.rmtree(stage, ignore_errors=True)

    def note(self, name: str, version: int, reason: str) -> bool:
        """Leave the reason in the place of a version that could not be fetched.

        Returns:
            False if it lies there already.
        """
        path = self.path(name, version) / UNFETCHED_FILE
        with contextlib.suppress(OSError):
            if path.read_text() == reason:
                return False
        with self.staged(name, version) as stage:
            write(stage / UNFETCHED_FILE, reason.encode())
        return True

    def lease(self, name: str, version: int) -> None:
        """This process needs the version."""
        with contextlib.suppress(OSError):
            os.utime(self.path(name, version))

    def leased(self, name: str, version: int) -> bool:
        """Whether a process has needed the version lately."""
        try:
            return time.time() - self.path(name, version).stat().st_mtime < LEASE_S
        except OSError:
            return False

    def remove(self, name: str, version: int) -> None:
        """At once for readers: renamed, then removed."""
        stage = Path(tempfile.mkdtemp(prefix=_STAGING, dir=self.folder))
        with contextlib.suppress(OSError):
            self.path(name, version).rename(stage / "gone")
        shutil.rmtree(stage, ignore_errors=True)
        with contextlib.suppress(OSError):
            (self.folder / name).rmdir()  # if that was the last


def write(path: Path, content: bytes) -> None:
    """A file that is on the disk when this returns."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
