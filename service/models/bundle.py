"""One version folder, read and checked before any of it is used.

A version is served only if model.json parses, names this very model and version, and every
file it lists is a regular file inside the folder with the size and sha256 it had when it was
published. A folder with a bare model.onnx and no model.json is taken as it is.
"""

from __future__ import annotations

import hashlib
import json
import stat
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from service.manifest import MANIFEST_FILE, MODEL_FILE, FileEntry, Manifest, first_problem
from service.models.external import mapped
from service.signing.names import SIGNATURE_FILE

# Stands in the folder of a version that could not be fetched from a store, and holds the reason.
UNFETCHED_FILE = "unfetched.txt"

# Nodes that may take longer for some values than for others.
CONTROL_FLOW = (b"Loop", b"Scan", b"If")
# Nodes that give something else each time.
RANDOM = (
    b"RandomNormal", b"RandomNormalLike", b"RandomUniform", b"RandomUniformLike", b"Multinomial",
    b"Bernoulli",
)  # fmt: skip
_LONGEST_REASON = 1000
LONGEST_MANIFEST_BYTES = 16 * 1024 * 1024


class Rejected(Exception):
    """The version cannot be served; the text is the reason, a sentence without any path."""


def read(folder: Path, name: str, version: int) -> Manifest | None:
    """The manifest of a version folder, all of its files verified; None for a bare model.

    Args:
        folder: models/<name>/<version>.
        name, version: what the path says, which the manifest must confirm.

    Raises:
        Rejected: with the reason.
    """
    if not (folder / MANIFEST_FILE).exists():
        refuse_unfetched(folder)
        if (folder / MANIFEST_FILE).is_symlink():
            raise Rejected(f"{MANIFEST_FILE} is a link that leads nowhere")
        own_file(folder, MODEL_FILE)
        return None
    path = own_file(folder, MANIFEST_FILE)
    try:
        if path.stat().st_size > LONGEST_MANIFEST_BYTES:
            raise Rejected(f"{MANIFEST_FILE} is larger than {LONGEST_MANIFEST_BYTES} bytes")
        text = path.read_bytes()
    except OSError as error:
        raise Rejected(f"{MANIFEST_FILE} cannot be read: {error.strerror}") from None
    manifest = parse(text, name, version)
    _verify_files(folder, manifest)
    return manifest


def parse(text: bytes, name: str, version: int) -> Manifest:
    """The manifest of a version, out of the text of model.json.

    Raises:
        Rejected: it is not valid, or of another model or version.
    """
    try:
        manifest = Manifest.model_validate_json(text)
    except ValidationError as error:
        raise Rejected(f"{MANIFEST_FILE} is not valid: {first_problem(error)}") from None
    if (manifest.name, manifest.version) != (name, version):
        raise Rejected(
            f"{MANIFEST_FILE} says {manifest.name!r} version {manifest.version}, "
            f"but lies in the folder of {name!r} version {version}"
        )
    return manifest


def peek(folder: Path) -> dict[str, Any]:
    """What model.json of a version says, valid or not; {} if that cannot be read.

    A pipe would block, a huge file fill the memory: the check of the version refuses both.
    """
    path = folder / MANIFEST_FILE
    with suppress(OSError, ValueError, RecursionError):
        if path.is_file() and path.stat().st_size <= LONGEST_MANIFEST_BYTES:
            said = json.loads(path.read_bytes())
            return said if isinstance(said, dict) else {}
    return {}


def refuse_unfetched(folder: Path) -> None:
    """Raises Rejected if the version could not be fetched from its store, with the reason."""
    if (folder / UNFETCHED_FILE).is_file():
        reason = (folder / UNFETCHED_FILE).read_text()[:_LONGEST_REASON]
        raise Rejected(f"it could not be fetched: {reason}")


def check_sha256(name: str, found: str, entry: FileEntry) -> None:
    """Raises Rejected if the file of that name is not the one that was published."""
    if found != entry.sha256:
        raise Rejected(
            f"sha256 of {name} is {found[:12]}..., {MANIFEST_FILE} says {entry.sha256[:12]}..."
        )


def own_file(folder: Path, name: str) -> Path:
    """The path of a file of the version folder, with links followed only inside the folder.

    Raises:
        Rejected: missing, not a regular file, or outside of the folder.
    """
    path = folder / name
    try:
        real = path.resolve(strict=True)
        # A pipe or a device would block the first read for ever.
        regular = stat.S_ISREG(real.stat().st_mode)
    except (OSError, RuntimeError):
        raise Rejected(f"{name} is missing or cannot be read") from None
    if folder.resolve() not in real.parents:
        raise Rejected(f"{name} is a link out of the version folder")
    if not regular:
        raise Rejected(f"{name} is not a regular file")
    return path


def has_node(model: Path | bytes, ops: Sequence[bytes]) -> bool:
    """Whether a node of model.onnx may be of one of these types.

    `op_type` is field 4 of NodeProto: the bytes 0x22, length, name. Weights that happen to
    contain these bytes only make the answer too careful.

    Args:
        model: the file, or its content.
    """
    marks = [b'"' + bytes([len(op)]) + op for op in ops]
    with nullcontext(model) if isinstance(model, bytes) else mapped(model) as content:
        return any(content.find(mark) >= 0 for mark in marks)


def size_bytes(folder: Path) -> int:
    """All files of the version folder together, the weights beside model.onnx included."""
    return sum(path.stat().st_size for path in folder.iterdir() if path.is_file())


def _verify_files(folder: Path, manifest: Manifest) -> None:
    for name, entry in manifest.files.items():
        path = own_file(folder, name)
        try:
            size = path.stat().st_size
            if size != entry.bytes:
                raise Rejected(f"{name} has {size} bytes, {MANIFEST_FILE} says {entry.bytes}")
            with path.open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise Rejected(f"{name} cannot be read: {error.strerror}") from None
        check_sha256(name, found, entry)
    _refuse_unlisted_weights(folder, manifest)


def _refuse_unlisted_weights(folder: Path, manifest: Manifest) -> None:
    """onnxruntime opens the weight files that model.onnx names, listed (and hashed) or not.

    The name stands in model.onnx as plain UTF-8. So a file beside it that is not listed is
    harmless only if its name does not occur there. The signature of the version cannot be listed;
    `external.check` sees to it that no weights are read from it.
    """
    known = {*manifest.files, MANIFEST_FILE, SIGNATURE_FILE}
    strays = {
        path.name.encode()
        for path in folder.rglob("*")
        if path.name not in known and not path.is_dir()
    }
    if not strays:
        return
    with mapped(folder / MODEL_FILE) as content:
        if not len(content):
            raise Rejected(f"{MODEL_FILE} is empty")
        for name in sorted(strays):
            if content.find(name) >= 0:
                raise Rejected(
                    f"{MODEL_FILE} mentions {name.decode()!r}, which {MANIFEST_FILE} does "
                    "not list: list it with its sha256, or remove it"
                )
