"""One version from a store: streamed into a folder aside, bounded and checked.

No more is read than the manifest says, and one byte to see that there is no more.
"""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

from service.manifest import MANIFEST_FILE, FileEntry, Manifest
from service.models import bundle, signed
from service.models.bundle import Rejected
from service.models.signed import Trust
from service.signing.names import LONGEST_SIGNATURE_BYTES, SIGNATURE_FILE
from service.store.access import Missing, Store, StoreError
from service.store.cache import write

CHUNK_BYTES = 8 * 1024 * 1024
_MOST_FILES = 1000
# The manifest's own rules keep files in the folder; a store's must be files of any system, too.
_FILE = re.compile(r"[^\x00-\x1f\x7f/\\:*?\"<>|]{1,200}")


def parse(
    text: bytes, name: str, version: int, signature: bytes | None = None, trust: Trust | None = None
) -> Manifest:
    """The manifest of a version, as the service will want it.

    Args:
        name, version: which it must confirm.
        signature: of model.sig, None if there is none.
        trust: whose signature it must be, None for no matter whose or none.

    Raises:
        Rejected: it is not valid or not signed, of another model or version, or has names that are
            no files'.
    """
    if trust is None:
        manifest = bundle.parse(text, name, version)
    elif signature is None:
        raise signed.unsigned()
    else:
        manifest, _ = signed.agree(text, signature, name, version, trust)
    if len(manifest.files) > _MOST_FILES:
        raise Rejected(f"{MANIFEST_FILE} lists more than {_MOST_FILES} files")
    for file in manifest.files:
        if not _FILE.fullmatch(file) or file in {MANIFEST_FILE, SIGNATURE_FILE}:
            raise Rejected(
                f"{MANIFEST_FILE} lists {file[:200]!r}, which is not a name for a file here"
            )
    return manifest


def signature_of(store: Store, name: str, version: int) -> bytes | None:
    """The bytes of a version's model.sig, None if it has none.

    Raises:
        Rejected: it is larger than any signature.
        StoreError: it cannot be read.
    """
    try:
        text = store.read(f"{name}/{version}/{SIGNATURE_FILE}", 0, LONGEST_SIGNATURE_BYTES + 1)
    except Missing:
        return None
    if len(text) > LONGEST_SIGNATURE_BYTES:
        raise Rejected(f"{SIGNATURE_FILE} is larger than {LONGEST_SIGNATURE_BYTES} bytes")
    return text


def download(
    store: Store, manifest: Manifest, text: bytes, folder: Path, signature: bytes | None = None
) -> None:
    """All files of a version into `folder`, each fsynced, the manifest last.

    Args:
        manifest, text: of the version, and the bytes it was read from.
        signature: of model.sig, None to leave that out.

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
    if signature is not None:
        write(folder / SIGNATURE_FILE, signature)
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
