"""The documentation builds, its code runs, and what is generated is current."""

from __future__ import annotations

import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

from converter import cli
from converter.commands.parsing import parsed
from converter.folding.refusal import Code
from converter.report.reasons import PHRASES

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page: Path) -> list[tuple[str, str]]:
    return BLOCK.findall(page.read_text())


def test_it_builds_without_a_warning(tmp_path: Path) -> None:
    """Strict: a dead link, a dead anchor or a page outside the navigation is an error."""
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for page in PAGES:
        built = (tmp_path / page.relative_to(DOCS)).with_suffix(".html")
        html = built.read_text()
        for picture in re.findall(r'<(?:img|source)[^>]+(?:src|srcset)="([^"]+)"', html):
            assert (built.parent / picture).is_file(), f"{page.name} shows {picture}"
        scripts = re.findall(r'<(?:script|link rel="stylesheet")[^>]+(?:src|href)="([^"]+)"', html)
        assert not [address for address in scripts if "//" in address], "from elsewhere"


@pytest.mark.slow
def test_the_code_of_a_model_of_your_own_runs(tmp_path: Path) -> None:
    """The blocks of the page, in order, in one empty folder: each shell line, each program. Those
    that need a running service are text."""
    runs = [(kind, text) for kind, text in blocks(DOCS / "fold.md") if kind != "text"]
    assert {kind for kind, _ in runs} == {"python", "sh"}
    program = "".join(
        text
        if kind == "python"
        else "".join(f"converter({shlex.split(line)[3:]!r})\n" for line in text.splitlines())
        for kind, text in runs
    )
    prelude = "from converter.cli import main\ndef converter(a): assert main(a) == 0, a\n"
    (tmp_path / "page.py").write_text(prelude + program)
    done = subprocess.run(
        [sys.executable, "page.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_the_commands_of_signing_run(tmp_path: Path) -> None:
    """The blocks of the page, in order, in one folder with a trained model."""
    shutil.copy(ROOT / "models" / "mnist" / "checkpoint.pt", tmp_path / "model.pt")
    shown = "".join(text for kind, text in blocks(DOCS / "signatures.md") if kind == "sh")
    assert shown.count("foldserve ") == 5
    done = subprocess.run(
        ["sh", "-e"],
        input=f'foldserve() {{ {shlex.quote(sys.executable)} -m foldserve "$@"; }}\n{shown}',
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "mine version 1 is signed by key " in done.stdout
    assert "Signed mine version 1." in done.stdout
    assert "mine version 2 is signed by certificate CN=Release" in done.stdout


def commands() -> list[tuple[str, list[str]]]:
    """`python -m converter ...`, or `foldserve ...`, wherever it is in a block or in the text."""
    found: list[tuple[str, list[str]]] = []
    for page in PAGES:
        text = page.read_text()
        lines = [line for _, block in blocks(page) for line in block.splitlines()]
        lines = [
            re.sub(r"^foldserve (?!serve|sign|verify-signature)", "python -m converter ", line)
            for line in lines
        ]
        lines += re.findall(r"`(python -m converter [a-z][^`]*)`", text)
        lines += re.findall(r"^    (python -m converter [^\n]*)$", text, re.MULTILINE)
        found += [
            (page.name, shlex.split(line, comments=True)[3:])
            for line in lines
            if line.startswith("python -m converter ") and "..." not in line
        ]
    return [(page, arguments) for page, arguments in found if len(arguments) > 1]


@pytest.mark.parametrize(("page", "arguments"), commands(), ids=str)
def test_a_command_is_one_that_the_converter_takes(page: str, arguments: list[str]) -> None:
    if "[" in "".join(arguments) or "usage:" in arguments:
        pytest.skip("a synopsis, not a command")
    assert type(parsed(cli.parser(), arguments)).__name__.lower() == arguments[0]


@pytest.mark.parametrize("name", ["http.md", "cli.md"])
def test_the_reference_is_current(name: str) -> None:
    made = runpy.run_path(str(DOCS / "reference.py"))["PAGES"][name]()
    assert (DOCS / "reference" / name).read_text() == made, "run: python docs/reference.py"


def test_the_pictures_are_current() -> None:
    draw = runpy.run_path(str(DOCS / "pictures.py"))
    for name in draw["PICTURES"]:
        assert (DOCS / "pictures" / f"{name}.svg").read_text() == draw["picture"](name)


def test_every_reason_is_explained() -> None:
    explained = re.findall(r"^\| `([a-z-]+)` \|", (DOCS / "why.md").read_text(), re.MULTILINE)
    assert sorted(explained) == sorted(get_args(Code)) == sorted(PHRASES)
