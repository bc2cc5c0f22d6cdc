"""Each peer in an environment of its own, from PyPI, with the versions that its file pins."""

from __future__ import annotations

import json
import subprocess
import sys
import venv
from dataclasses import dataclass
from pathlib import Path

from benchmarks.serving.peer import Peer

_TIMEOUT_S = 900


@dataclass(frozen=True)
class Installed:
    """`python` to start it with, or the `reason` why there is none; `version` of the peer."""

    python: Path
    version: str = ""
    reason: str = ""


def install(peer: Peer, folder: Path) -> Installed:
    """Make the environment in `folder`, unless it is there with these very requirements."""
    if not peer.requirements:
        return Installed(Path(sys.executable), "this tree")
    # Peers that differ in their configuration alone share an environment.
    home = folder / peer.requirements[0].partition("==")[0].partition("[")[0]
    python, stamp = home / "bin" / "python", home / "installed.json"
    version = peer.requirements[0].partition("==")[2]
    wanted = json.dumps(peer.requirements)
    if stamp.is_file() and stamp.read_text() == wanted:
        return Installed(python, version)
    stamp.unlink(missing_ok=True)
    try:
        venv.create(home, with_pip=True, clear=True)
        words = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        ran = subprocess.run(
            [*words, *peer.requirements],
            capture_output=True, text=True, check=False, timeout=_TIMEOUT_S,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError) as error:
        return Installed(python, version, f"not installed: {error}")
    if ran.returncode:
        errors = [line for line in ran.stderr.splitlines() if line.startswith("ERROR")]
        reason = " ".join((errors or ["pip failed"])[-1].split())
        return Installed(python, version, f"not installed: {reason[:300]}")
    frozen = subprocess.run(
        [str(python), "-m", "pip", "freeze"], capture_output=True, text=True, check=False
    )
    (home / "frozen.txt").write_text(frozen.stdout)
    stamp.write_text(wanted)
    return Installed(python, version)
