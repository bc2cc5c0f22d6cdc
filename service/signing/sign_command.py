"""`foldserve sign`: sign a version that lies there already.

For one that was published without a key, whose model.json was edited (its part `serving` is the
operator's), or whose key is changed. 0 it is signed; 2 it is not, and nothing was written.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from service.manifest import MANIFEST_FILE
from service.models import bundle
from service.models.bundle import Rejected
from service.signing import asked
from service.signing.asked import NEEDS_EXTRA, Wrong, version_folder
from service.signing.names import SIGNATURE_FILE

if TYPE_CHECKING:
    from service.signing.signing import SigningKey

PROGRAM = "foldserve sign"


def main(argv: Sequence[str]) -> int:
    """The exit code; `argv` without the program's name."""
    given = parser().parse_args(argv)
    try:
        folder = version_folder(given.version)
        sign(folder, _key(given.key, given.key_chain))
    except Wrong as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    sys.stdout.write(f"Signed {folder.parent.name} version {folder.name}.\n")
    return 0


def parser() -> argparse.ArgumentParser:
    """What the command takes."""
    made = asked.parser(
        PROGRAM,
        "Sign a version of a model that was published before: write model.sig into its folder, in "
        "the place of one that is there.",
        "Exit codes: 0 signed, 2 nothing was written.",
    )
    password = "its password is taken from SIGNING_KEY_PASSWORD"  # noqa: S105  the name of one
    asked.add_file(made, "--key", f"the private key; {password}", required=True)
    asked.add_file(made, "--key-chain", "certificates of the key, the signing one first")
    return made


def sign(folder: Path, key: SigningKey) -> None:
    """Write the signature of a version folder, by one rename.

    Raises:
        Wrong: it is not a whole version of a model, or cannot be written to.
    """
    try:
        manifest = bundle.read(folder, folder.parent.name, int(folder.name))
    except Rejected as reason:
        raise Wrong(f"{folder} is not a version that can be signed: {reason}.") from None
    if manifest is None:
        raise Wrong(
            f"{folder} has no {MANIFEST_FILE}, which ties a signature to name and version: "
            "publish the model with `foldserve fold --publish`."
        )
    try:
        present = {path.name for path in folder.iterdir()}
        for stray in sorted(present - {*manifest.files, MANIFEST_FILE, SIGNATURE_FILE}):
            raise Wrong(f"{folder / stray} is not listed in {MANIFEST_FILE}: remove it.")
        text = (folder / MANIFEST_FILE).read_bytes()
        _write(folder, key.sign_version(text))
    except OSError as error:
        raise Wrong(f"{folder} cannot be written to: {error.strerror}.") from None


def _write(folder: Path, signature: bytes) -> None:
    """Beside the folder first: within it a half-written file would be a file too many."""
    descriptor, name = tempfile.mkstemp(prefix=".sign-", dir=folder.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(signature)
            file.flush()
            os.fsync(descriptor)
        Path(name).chmod(0o644)
        Path(name).replace(folder / SIGNATURE_FILE)
    finally:
        Path(name).unlink(missing_ok=True)


def _key(path: Path, chain: Path | None) -> SigningKey:
    try:
        from service.signing.keys import TrustUnusable
        from service.signing.signing import PASSWORD_VARIABLE, read_key
    except ImportError:
        raise Wrong(NEEDS_EXTRA) from None
    try:
        return read_key(path, "--key", os.environ.get(PASSWORD_VARIABLE), chain)
    except TrustUnusable as error:
        raise Wrong(str(error)) from None
