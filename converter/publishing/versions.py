"""Publish a proven model as the next version of a model repository, atomically.

`models/<name>/<version>/` appears by one rename of a finished, fsynced folder that has passed the
service's own check: whatever happens before it leaves nothing, whatever happens after it leaves a
whole version.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

from converter.errors import UserError
from converter.files.atomic import A_DAY, stale, sync_directory
from converter.files.onnx_file import write_onnx
from converter.pipeline import FoldResult
from converter.publishing.certified import certificate_of
from converter.publishing.contract import inputs, manifest, write_selftest
from converter.publishing.remote import NAMES, publish_remote
from converter.publishing.sameness import OPERATORS, same_model
from converter.publishing.servable import TellOutputsPass, look, refuse_unservable
from service.manifest import (
    MANIFEST_FILE,
    MODEL_FILE,
    SELFTEST_FILE,
    FileEntry,
    Manifest,
)
from service.models.folders import NAME, VERSION
from service.signing.names import LONGEST_SIGNATURE_BYTES, SIGNATURE_FILE
from service.store.address import is_address, scheme

if TYPE_CHECKING:
    from service.signing.signing import SigningKey

_STAGE = ".publish-"


@dataclass(frozen=True)
class Published:
    """Where a model is now, a folder or an address.

    `left_out`: outputs that the service does not serve, and why. `fresh` is False when that version
    existed already.
    """

    path: Path | str
    version: int
    left_out: dict[str, str] = field(default_factory=dict)
    fresh: bool = True


def publish(
    result: FoldResult,
    folder: Path | str,
    *,
    if_changed: bool = False,
    key: SigningKey | None = None,
) -> Published:
    """Write the next version of a model into its folder (`models/NAME`).

    Args:
        result: a fold whose proof passed.
        folder: created if need be; its name is the model's name. Or an address of a model store,
            `s3://bucket/models/NAME`.
        if_changed: write nothing when the newest version is this same model.
        key: signs the version; then one that this key has not signed is not the same.

    Raises:
        ValueError: the proof did not pass.
        UserError: the name is invalid, the folder cannot be written to, or the service would not
            serve the model, with its own message. Then nothing is left behind.
    """
    if not result.proof.passed:
        raise ValueError("only a proven model may be published")
    if isinstance(folder, str) and is_address(folder):
        if scheme(folder) != "file":
            return _publish_remote(result, folder, if_changed, key)
        folder = unquote(folder.partition("://")[2])
    folder = Path(folder)
    check_folder(folder)
    name = folder.resolve().name
    try:
        with _created(folder):
            _sweep(folder)
            with tempfile.TemporaryDirectory(
                prefix=_STAGE, dir=folder, ignore_cleanup_errors=True
            ) as temporary:
                staged = Path(temporary) / "version"
                return _publish(result, folder, name, staged, if_changed, key)
    except OSError as error:
        raise UserError(
            f"cannot publish to {folder}: {error.strerror or error}.",
            "Check that the folder can be written to and has room.",
        ) from error


@contextlib.contextmanager
def _created(folder: Path) -> Iterator[None]:
    """Create the folder; if the block fails, remove the folders that had to be created."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except BaseException:
        for path in missing:
            with contextlib.suppress(OSError):  # not empty: another process uses it by now
                path.rmdir()
        raise


def check_folder(folder: Path) -> None:
    """Check that a model may be published there, before minutes of work.

    Raises:
        UserError: the name is not valid for a model, or the folder holds several models.
    """
    name = folder.resolve().name
    if not NAME.fullmatch(name):
        raise UserError(f"{name!r} is not a name for a model.", NAMES)
    inside = (path for path in _folders(folder) if not path.name.isdecimal())
    model = next((path for path in inside if any(map(_is_version, _folders(path)))), None)
    if model is not None:
        raise UserError(
            f"{folder} holds models, such as {model.name}: a version of one goes below its name.",
            f"Give the model a name: --publish {folder / 'NAME'}",
        )


def _folders(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.is_dir())
    except OSError:
        return []


def _is_version(folder: Path) -> bool:
    return folder.name.isdecimal() and (folder / MODEL_FILE).is_file()


def _publish_remote(
    result: FoldResult, address: str, if_changed: bool, key: SigningKey | None
) -> Published:
    staged: list[Published] = []

    def stage(folder: Path) -> Path:
        staged.append(publish(result, folder))
        return Path(staged[0].path)

    same = partial(same_model, version=False) if if_changed else None
    path, version, fresh = publish_remote(address, stage, same, key)
    return Published(path, version, staged[0].left_out, fresh)


def _sweep(folder: Path) -> None:
    """Remove what publishers that were killed more than a day ago have left here.

    Only folders with names of our form in which nothing was written for a day: no publisher takes
    that long.
    """
    for stage in stale(folder, re.compile(rf"{re.escape(_STAGE)}[a-z0-9_]{{8}}")):
        inside = (path.lstat().st_mtime for path in stage.rglob("*"))
        with contextlib.suppress(OSError):  # another publisher may sweep at the same time
            if not stage.is_symlink() and max(inside, default=0.0) < time.time() - A_DAY:
                shutil.rmtree(stage, ignore_errors=True)


def _publish(
    result: FoldResult,
    folder: Path,
    name: str,
    staged: Path,
    if_changed: bool,
    key: SigningKey | None,
) -> Published:
    staged.mkdir()
    write_onnx(result.model, staged / MODEL_FILE)
    served = look(staged / MODEL_FILE, inputs(result), result.proof.sample)
    told = TellOutputsPass(served.outputs)(result.model)
    if told.modified:
        write_onnx(told.model, staged / MODEL_FILE)
    self_test = write_selftest(result, staged / SELFTEST_FILE, served)
    files = {path.name: _entry(path) for path in sorted(staged.iterdir())}

    graph = {file: entry.sha256 for file, entry in files.items() if file != SELFTEST_FILE}
    certificate = certificate_of(result, staged / MODEL_FILE, graph)

    def describe(version: int) -> Manifest:
        return manifest(result, name, version, files, self_test, served, certificate)

    left_out = {**result.loaded.left_out, **served.left_out}
    newest = max(_versions(folder), default=0)
    there = folder / str(newest)
    if if_changed and newest and _same(there, describe(newest)) and _signed(there, key):
        return Published(there, newest, left_out, fresh=False)
    version, checked = newest + 1, False
    while True:
        if not VERSION.fullmatch(str(version)):
            raise UserError(
                f"{folder} has a version {version - 1} already, and none after it can be served.",
                "Move that folder away.",
            )
        text = describe(version).model_dump_json(indent=2, exclude=OPERATORS).encode() + b"\n"
        _write(staged / MANIFEST_FILE, text)
        if key is not None:
            _write(staged / SIGNATURE_FILE, key.sign_version(text))
        staged.chmod(0o755)
        if not checked:
            refuse_unservable(staged, name, version)
            checked = True
        sync_directory(staged)
        try:
            # A rename only replaces an empty folder, never an existing version.
            staged.rename(folder / str(version))
        except OSError as error:
            if error.errno not in {errno.EEXIST, errno.ENOTEMPTY}:
                raise
            version += 1  # another publisher has just taken this number
            continue
        sync_directory(folder)
        return Published(folder / str(version), version, left_out)


def _versions(folder: Path) -> list[int]:
    return [int(path.name) for path in folder.iterdir() if path.name.isdecimal()]


def _same(path: Path, mine: Manifest) -> bool:
    """Whether the version in that folder is the same as this one."""
    try:
        there = (path / MANIFEST_FILE).read_bytes()
    except OSError:
        return False
    if not same_model(there, mine.model_dump_json(exclude=OPERATORS).encode()):
        return False
    return all(
        (path / file).is_file() and _entry(path / file) == entry
        for file, entry in mine.files.items()
    )


def _signed(path: Path, key: SigningKey | None) -> bool:
    """Whether the version in that folder has the signature that it is to have."""
    if key is None:
        return True
    try:
        with (path / SIGNATURE_FILE).open("rb") as file:
            signature = file.read(LONGEST_SIGNATURE_BYTES + 1)
        return key.made(signature, (path / MANIFEST_FILE).read_bytes())
    except OSError:
        return False


def _entry(path: Path) -> FileEntry:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return FileEntry(sha256=digest, bytes=path.stat().st_size)


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
