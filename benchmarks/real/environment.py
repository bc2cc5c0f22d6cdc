"""An environment of the benchmark's own: the libraries, on top of what the project has.

It lies in `.cache/real/venv` and sees the project's packages through a .pth file, so that torch,
onnx and onnxruntime are the very ones of the project; the libraries of `requirements.txt` are
installed beside them, without their dependencies, and never into the project's environment.
"""

from __future__ import annotations

import os
import subprocess
import sysconfig
import venv
from pathlib import Path

HERE = Path(__file__).parent
REQUIREMENTS = HERE / "requirements.txt"
_READY = "ready.txt"


class NotInstalledError(Exception):
    """pip's last line."""


def python(folder: Path) -> Path:
    return folder / "bin" / "python"


def is_ready(folder: Path) -> bool:
    """Whether all of the present requirements are there."""
    ready = folder / _READY
    return ready.is_file() and ready.read_text() == REQUIREMENTS.read_text()


def install(folder: Path) -> None:
    """Make the environment, or bring it up to the requirements.

    Raises:
        NotInstalledError: pip could not.
    """
    if not python(folder).is_file():
        venv.create(folder, with_pip=True)
        (own,) = folder.glob("lib/python*/site-packages")
        (own / "project.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    words = [str(python(folder)), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    done = subprocess.run(
        [*words, "--no-deps", "-r", str(REQUIREMENTS)],
        capture_output=True, text=True, errors="replace",
    )  # fmt: skip
    if done.returncode:
        last = [line for line in done.stderr.splitlines() if line.strip()][-1:]
        raise NotInstalledError(last[0] if last else f"pip ended with {done.returncode}")
    # torchaudio's compiled operators are for CUDA; without the file it does not ask for them.
    for file in folder.glob("lib/python*/site-packages/torchaudio/lib/*.so"):
        file.unlink()
    (folder / _READY).write_text(REQUIREMENTS.read_text())


def clean(root: Path) -> dict[str, str]:
    """What the environment's Python is started with: modules are looked for in `root` first."""
    there = [str(root), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    return os.environ | {"PYTHONPATH": os.pathsep.join(dict.fromkeys(there))}
