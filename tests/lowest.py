"""Run suites with the oldest versions that pyproject.toml allows: are its lower bounds true?

    python tests/lowest.py service               its whole suite
    python tests/lowest.py converter -x          and what follows is for pytest

Both run in the environment .cache/lowest/, with exactly the lower bound of every direct dependency:
the tests of the service need the converter's, too. All else is borrowed from the environment that
this is run with: torch, whose lower bound cannot be tried where only a newer one can be installed,
and what only the tests need.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
import tomllib
import venv
from pathlib import Path

ROOT = Path(__file__).parents[1]
BORROWED = {"torch", "foldserve"}
_BOUND = re.compile(r"([\w.-]+)(?:\[[\w,]+\])?>=([\w.]+)(?: *;.*)?")

# The extras whose bounds are tried beside those of the base install.
EXTRAS = ("converter", "grpc", "images", "otel", "signing")
PARTS = {
    "service": ["tests/service"],
    "converter": ["tests/converter", "tests/test_main_job.py"],
}
# Ray and a browser are borrowed, and their tests are the longest.
SERVICE_WITHOUT = ("cluster", "cluster_imports", "node_failures", "playground", "docs_page")


def bounds() -> dict[str, str]:
    """Package -> its lower bound, of the base install and of EXTRAS."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = [*project["dependencies"]]
    for extra in EXTRAS:
        lines += project["optional-dependencies"][extra]
    found = {}
    for line in lines:
        match = _BOUND.fullmatch(line)
        if match is None:
            raise SystemExit(f"pyproject.toml: {line!r} has no lower bound that can be tried.")
        found[match[1]] = match[2]
    return {name: version for name, version in found.items() if name not in BORROWED}


def environment(asked: dict[str, str]) -> Path:
    """The Python of an environment with these versions, made anew when they have changed."""
    folder = ROOT / ".cache" / "lowest"
    python = folder / "bin" / "python"
    wanted = "".join(f"{name}=={version}\n" for name, version in sorted(asked.items()))
    stamp = folder / "installed.txt"
    if not (stamp.is_file() and stamp.read_text() == wanted):
        venv.create(folder, clear=True, with_pip=False, symlinks=True)
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", str(python)]
        subprocess.run([*pip, "install", "--quiet", *wanted.split()], check=True)
        (site,) = folder.glob("lib/python*/site-packages")
        borrowed = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
        (site / "borrowed.pth").write_text("\n".join(sorted(borrowed)) + "\n")
        stamp.write_text(wanted)
    # What is imported there is what was asked for, and nothing borrowed.
    program = (
        "import sys\nfrom importlib.metadata import version\nprint(*map(version, sys.argv[1:]))"
    )
    words = [str(python), "-P", "-c", program, *asked]
    versions = subprocess.run(words, check=True, capture_output=True, text=True).stdout.split()
    for (name, version), there in zip(asked.items(), versions, strict=True):
        if re.sub(r"(\.0)+$", "", there) != re.sub(r"(\.0)+$", "", version):
            raise SystemExit(f"{name} {there} is there, {version} was asked for.")
        sys.stdout.write(f"{name} {there}\n")
    sys.stdout.flush()
    return python


def main(part: str, *more: str) -> int:
    """The exit code of pytest."""
    python = environment(bounds())
    words = [str(python), "-m", "pytest", "-q", "-p", "no:cacheprovider", *more]
    if not any(word.startswith("tests/") for word in more):
        words += PARTS[part]
    for name in SERVICE_WITHOUT if part == "service" else ():
        words.append(f"--ignore=tests/service/test_{name}.py")
    variables = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(words, cwd=ROOT, env=variables, check=False).returncode


if __name__ == "__main__":
    if sys.argv[1:2] not in [[part] for part in PARTS]:
        sys.exit(f"usage: python tests/lowest.py {'|'.join(PARTS)} [OPTION OF PYTEST ...]")
    sys.exit(main(*sys.argv[1:]))
