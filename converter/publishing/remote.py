"""Publish to a model store: any address with a conditional write, such as s3://bucket/models/NAME.

    claim      <version>/.claim, made only if it is not there: two publishers never share a version
    files      the size of each is checked after it was sent
    signature  model.sig if a key is given, made of the manifest with the version that was claimed
    manifest   model.json, last and only if it is not there: a version without one is incomplete

A publisher that ends before the manifest leaves no version: it removes what it has sent, or, if it
cannot, leaves a number that is never used again.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from converter.errors import UserError
from converter.files.atomic import sync_directory
from service.manifest import MANIFEST_FILE
from service.models.folders import NAME, VERSION
from service.signing.names import SIGNATURE_FILE
from service.store.access import Missing, Store, StoreError, StoreUnusable
from service.store.address import redacted, scheme

if TYPE_CHECKING:
    from service.signing.signing import SigningKey

# Valid names of a model.
NAMES = "Letters, digits, '.', '_' and '-' only, beginning with a letter or a digit."
_CLAIM = ".claim"
_TRIES = 100  # how many versions in a row others may claim before us
# Stores where "only if it is not there" is atomic: the store itself does it, with fsspec's
# mode="create"; for folders it is done by a link, because fsspec looks first and then writes.
_FOLDERS = {"file", "local"}
_CONDITIONAL = {"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", *_FOLDERS}
_SLOWEST_BYTES_PER_S = 100_000


def open_store(address: str) -> Store:
    """The store at the address of a model's folder. No request is made yet.

    Raises:
        UserError: the package for the address is missing, it cannot be published to, or its last
            part is not a valid name of a model.
    """
    address = address.rstrip("/")
    shown = redacted(address)
    if scheme(address) not in _CONDITIONAL:
        raise UserError(
            f"cannot publish to {shown}: {scheme(address)}:// has no way to keep two publishers "
            "apart.",
            "Publish to a folder and copy the version there, its model.json last.",
        )
    try:
        store = Store(address)
    except StoreUnusable as error:
        raise UserError(f"cannot publish to an address: {error}") from None
    if "/" not in store.root:
        raise UserError(f"{shown} names no model.", "Write it as s3://BUCKET/models/NAME.")
    name = store.root.rpartition("/")[2]
    if not NAME.fullmatch(name):
        raise UserError(f"{name!r} is not a name for a model.", NAMES)
    return store


def publish_remote(
    address: str,
    stage: Callable[[Path], Path],
    same: Callable[[bytes, bytes], bool] | None,
    key: SigningKey | None = None,
) -> tuple[str, int, bool]:
    """Write the next version below `address`.

    Args:
        address: of the model's folder; its last part is the model's name.
        stage: publishes into a local folder `models/NAME`, and returns the version's folder.
        same: whether two manifests describe the same model apart from the version; if given,
            nothing is written when the newest version is the same.
        key: signs the version; then one that this key has not signed is not the same.

    Returns:
        The address of the version (without secrets), its number, and whether it is new.

    Raises:
        UserError: the package for the address is missing, or it cannot be written.
    """
    store = open_store(address)
    shown = store.address
    with tempfile.TemporaryDirectory(prefix="foldserve-") as folder:
        staged = stage(Path(folder) / store.root.rpartition("/")[2])
        try:
            version, fresh = _publish(store, staged, same, key)
        except StoreError as error:
            raise UserError(
                f"cannot publish to {shown}: {error}.",
                "Check the address and that you may write there.",
            ) from error
    return f"{shown}/{version}", version, fresh


def _publish(
    store: Store,
    staged: Path,
    same: Callable[[bytes, bytes], bool] | None,
    key: SigningKey | None,
) -> tuple[int, bool]:
    manifest = (staged / MANIFEST_FILE).read_bytes()
    taken = _versions(store)
    newest = _newest_whole(store, taken) if same else 0
    if same and newest and _is_there(store, newest, manifest, same, key):
        return newest, False
    version = _claim(store, max(taken, default=0) + 1)
    folder = f"{store.root}/{version}"
    sent = [f"{folder}/{_CLAIM}"]
    told = json.dumps({**json.loads(manifest), "version": version}, indent=2) + "\n"
    text = told.encode()
    try:
        for file in sorted(staged.iterdir()):
            if file.name != MANIFEST_FILE:
                sent.append(f"{folder}/{file.name}")
                _send(store, file, sent[-1])
        last = [(MANIFEST_FILE, text)]
        if key is not None:
            last.insert(0, (SIGNATURE_FILE, key.sign_version(text)))
        for name, content in last:
            sent.append(f"{folder}/{name}")
            _create(store, sent[-1], content)
    except FileExistsError:
        raise StoreError(f"somebody else has written version {version} meanwhile") from None
    except BaseException:
        _take_back(store, sent)
        raise
    with contextlib.suppress(StoreError):
        store.call("rm_file", f"{folder}/{_CLAIM}")  # the manifest marks the version as taken now
    return version, True


def _take_back(store: Store, sent: list[str]) -> None:
    """Remove files, the last one first; in a local folder, the emptied folders too."""
    for path in reversed(sent):
        with contextlib.suppress(StoreError):
            store.call("rm_file", path)
    if scheme(store.address) in _FOLDERS:
        version = Path(sent[0]).parent
        for folder in (version, version.parent):
            with contextlib.suppress(OSError):  # not empty
                folder.rmdir()


def _send(store: Store, file: Path, target: str) -> None:
    size = file.stat().st_size
    store.call("put_file", str(file), target, timeout_s=60 + size / _SLOWEST_BYTES_PER_S)
    if (found := store.call("info", target)["size"]) != size:
        raise StoreError(f"{file.name} arrived with {found} of {size} bytes")


def _create(store: Store, path: str, content: bytes) -> None:
    """Create a file that was not there before.

    Raises:
        FileExistsError: it was there, with other content. With the same content it is ours: an
            answer was lost, and the library below has repeated the request.
    """
    if scheme(store.address) in _FOLDERS:
        try:
            _create_here(Path(path), content)
        except FileExistsError:
            raise
        except OSError as error:
            raise StoreError(error.strerror or str(error)) from None
        return
    try:
        store.call("pipe_file", path, content, mode="create")
    except FileExistsError:
        if store.call("cat_file", path) != content:
            raise


def _create_here(path: Path, content: bytes) -> None:
    """Create a local file atomically and completely; it never replaces another.

    Raises:
        FileExistsError: there is a file of that name.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.part")
    try:
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(temporary, path)  # unlike a rename it replaces nothing
        except FileExistsError:
            raise
        except OSError:  # a file system without links: still exclusive, but not complete at once
            with path.open("xb") as file:
                file.write(content)
        sync_directory(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _claim(store: Store, first: int) -> int:
    """Claim the first version from `first` on that nobody else has."""
    mine = secrets.token_hex(16).encode()
    for version in range(first, first + _TRIES):
        if not VERSION.fullmatch(str(version)):
            raise StoreError(f"no version after {version - 1} can be served")
        folder = f"{store.root}/{version}"
        claim = f"{folder}/{_CLAIM}"
        try:
            if scheme(store.address) in _FOLDERS:  # in other stores this would create a bucket
                store.call("makedirs", folder, exist_ok=True)
            _create(store, claim, mine)
        except (FileExistsError, Missing):  # Missing: finished and removed meanwhile
            continue
        except BaseException:
            _take_back(store, [claim])
            raise
        if not store.call("exists", f"{folder}/{MANIFEST_FILE}"):
            return version
        store.call("rm_file", claim)  # it was finished after we looked
    raise StoreError(f"{_TRIES} versions were taken by others meanwhile")


def _versions(store: Store) -> list[int]:
    """The version numbers that are taken, by complete versions or by incomplete ones."""
    try:
        entries = store.call("ls", store.root, detail=True)
    except Missing:
        return []
    ends = (str(entry["name"]).rstrip("/").rpartition("/")[2] for entry in entries)
    return [int(end) for end in ends if VERSION.fullmatch(end)]


def _newest_whole(store: Store, taken: list[int]) -> int:
    """The highest version with a manifest; 0 if there is none."""
    for version in sorted(taken, reverse=True):
        if store.call("exists", f"{store.root}/{version}/{MANIFEST_FILE}"):
            return version
    return 0


def _is_there(
    store: Store,
    version: int,
    manifest: bytes,
    same: Callable[[bytes, bytes], bool],
    key: SigningKey | None,
) -> bool:
    folder = f"{store.root}/{version}"
    try:
        there = store.call("cat_file", f"{folder}/{MANIFEST_FILE}")
        if not same(there, manifest):
            return False
        if key and not key.made(store.call("cat_file", f"{folder}/{SIGNATURE_FILE}"), there):
            return False
        return all(
            store.call("info", f"{folder}/{file}")["size"] == entry["bytes"]
            for file, entry in json.loads(manifest)["files"].items()
        )
    except Missing:
        return False
