"""One version from a store: streamed into a folder aside, bounded and checked.

No more is read than the manifest says, and one byte to see that there is no more.
"""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

from service.manifest import MANIFEST_FILE, FileEntry, Manifest
from service.models import bundle
from service.models.bundle import Rejected
from service.store.access import Missing, Store, StoreError
from service.store.cache import write

CHUNK_BYTES = 8 * 1024 * 1024
_MOST_FILES = 1000
# The manifest's own rules keep files in the folder; a store's must be files of any system, too.
_FILE = re.compile(r"[^\x00-\x1f\x7f/\\:*?\"<>|]{1,200}")


def parse(text: bytes, name: str, version: int) -> Manifest:
    """The manifest of a version, as the service will want it.

    Raises:
        Rejected: it is not valid, or of another model or version, or has names that are no files'.
    """
    manifest = bundle.parse(text, name, version)
    if len(manifest.files) > _MOST_FILES:
        raise Rejected(f"{MANIFEST_FILE} lists more than {_MOST_FILES} files")
    for file in manifest.files:
        if not _FILE.fullmatch(file) or file == MANIFEST_FILE:
            raise Rejected(
                f"{MANIFEST_FILE} lists {file[:200]!r}, which is not a name for a file here"
            )
    return manifest


def download(store: Store, manifest: Manifest, text: bytes, folder: Path) -> None:
    """All files of a version into `folder`, each fsynced, the manifest last.

    Raises:
        Rejected: a file is missing, or has another size or sha256 than the manifest says.
        StoreError: it cannot be read.
        OSError: it cannot be written.
    """
    for file, entry in manifest.files.items():
        source = f"{manifest.name}/{manifest.version}/{file}"
        try:
            _copy(store, source, folder / file, entry)
        except Missing:
            raise Rejected(f"{file} is missing in the store") from None
        except StoreError as error:
            raise StoreError(f"{file} cannot be read: {error}") from None
    write(folder / MANIFEST_FILE, text)


def _copy(store: Store, source: str, target: Path, entry: FileEntry) -> None:
    digest, found = hashlib.sha256(), 0
    with target.open("wb") as local:
        while found < entry.bytes:
            # Past the end of a file a range is an error, so the last one begins before it.
            end = found + CHUNK_BYTES
            end = entry.bytes + 1 if end >= entry.bytes else end
            chunk = store.read(source, found, end)
            whole = found == 0 and len(chunk) > end  # the server knows no ranges
            found += len(chunk)
            if found > entry.bytes:
                raise Rejected(
                    f"{target.name} has more than the {entry.bytes} bytes that it should"
                )
            digest.update(chunk)
            local.write(chunk)
            if found < entry.bytes and (whole or found < end):
                raise Rejected(f"{target.name} ends after {found} of {entry.bytes} bytes")
        local.flush()
        os.fsync(local.fileno())
    bundle.check_sha256(target.name, digest.hexdigest(), entry)
