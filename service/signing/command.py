"""`foldserve verify-signature`: whether a version is signed by somebody who is trusted.

0 it is, and each of its files is as it was signed; 1 it is not; 2 it could not be looked at.
The check is that of the service with --require-signature; nothing is loaded and nothing is run.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from service.manifest import MANIFEST_FILE
from service.models import signed
from service.models.bundle import Rejected
from service.signing import asked
from service.signing.asked import NEEDS_EXTRA, Wrong, version_folder

if TYPE_CHECKING:
    from service.signing.keys import Trust

PROGRAM = "foldserve verify-signature"


@dataclass(frozen=True, slots=True)
class Found:
    """What is known of a version. `reason`: why it is not verified, None if it is."""

    folder: Path
    name: str
    version: int
    signer: str | None = None
    files: tuple[str, ...] = ()
    reason: str | None = None

    def record(self) -> dict[str, Any]:
        """For programs."""
        return {
            "path": str(self.folder),
            "model": self.name,
            "version": self.version,
            "verified": self.reason is None,
            "signer": self.signer,
            "files": list(self.files),
            "reason": self.reason,
        }

    def sentence(self) -> str:
        """For people."""
        if self.reason is not None:
            return f"{self.name} version {self.version} is not verified: {self.reason}."
        return (
            f"{self.name} version {self.version} is signed by {self.signer}; its "
            f"{len(self.files)} files are as they were signed."
        )


def main(argv: Sequence[str]) -> int:
    """The exit code; `argv` without the program's name."""
    given = parser().parse_args(argv)
    try:
        found = look(given.version, trust(given.public_key, given.certificate_chain))
    except Wrong as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    told = json.dumps(found.record(), indent=2) if given.json else found.sentence()
    sys.stdout.write(told + "\n")
    return 0 if found.reason is None else 1


def parser() -> argparse.ArgumentParser:
    """What the command takes."""
    made = asked.parser(
        PROGRAM,
        "Tell whether a version of a model is signed by somebody who is trusted, and whether each "
        "of its files is as it was signed.",
        "Exit codes: 0 verified, 1 not, 2 it could not be looked at.",
    )
    asked.add_file(made, "--public-key", "the public keys that are trusted")
    asked.add_file(made, "--certificate-chain", "the root certificates that are trusted")
    made.add_argument("--json", action="store_true", help="write the answer as JSON")
    return made


def trust(public_key: Path | None, certificate_chain: Path | None) -> Trust:
    """Who is trusted, out of both files."""
    try:
        from service.signing.keys import Trust, TrustUnusable, read_trust
    except ImportError:
        raise Wrong(NEEDS_EXTRA) from None
    given = {"--public-key": public_key, "--certificate-chain": certificate_chain}
    try:
        read = [read_trust(path, flag) for flag, path in given.items() if path is not None]
    except TrustUnusable as error:
        raise Wrong(str(error)) from None
    if not read:
        raise Wrong("say who is trusted: --public-key FILE or --certificate-chain FILE.")
    return Trust(
        tuple(key for each in read for key in each.keys),
        tuple(root for each in read for root in each.roots),
    )


def look(path: str, whom: Trust) -> Found:
    """Verify the version in a folder, or the highest one of a model's folder."""
    folder = version_folder(path)
    found = Found(folder, folder.parent.name, int(folder.name))
    try:
        read = signed.read(folder, found.name, found.version, whom, hold=False)
    except Rejected as reason:
        return Found(folder, found.name, found.version, reason=str(reason))
    files = tuple(sorted({*read.manifest.files, MANIFEST_FILE}))
    return Found(folder, found.name, found.version, read.signer, files)
