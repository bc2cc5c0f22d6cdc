"""The command `foldserve`: what it says, what it hands over, and whose packages it runs."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from converter.commands import COMMANDS
from foldserve.command import main
from service.version import program_version
from tests.serving import serving

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
CHECKPOINT = ROOT / "models" / "mnist" / "checkpoint.pt"
EXAMPLE = ROOT / "models" / "mnist" / "example.json"
# As pip writes it; started as a file, it puts its own folder on the path, not the current one.
SCRIPT = "import sys\nfrom foldserve.command import main\nsys.exit(main())\n"
HOSTILE = "import sys\nsys.exit('the file of the user was run: ' + __name__)\n"


def said(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = main(words)
    out, err = capsys.readouterr()
    return code, out, err


# --- what it says ------------------------------------------------------------------------


def test_without_an_argument_it_shows_what_a_newcomer_needs(
    capsys: pytest.CaptureFixture[str],
) -> None:
    code, out, err = said(capsys)
    assert (code, err) == (2, "")  # 0 would mean: done and proven
    examples = re.findall(r"^  foldserve (\w+) .*\n      \w", out, flags=re.MULTILINE)
    assert sorted(examples) == ["fold", "inspect", "serve"]
    assert "foldserve --help" in out
    assert max(map(len, out.splitlines())) < 80


@pytest.mark.parametrize("words", [["--help"], ["-h"], ["help"]])
def test_help_lists_every_command(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = said(capsys, *words)
    assert (code, err) == (0, "")
    listed = re.findall(r"^  ([a-z][\w-]*)  +\w", out, flags=re.MULTILINE)
    assert listed == [
        *(name for name in COMMANDS if name != "compare"),
        "serve",
        "sign",
        "verify-signature",
    ]


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert said(capsys, "--version") == (0, f"Foldserve {program_version()}\n", "")


def test_the_script_of_the_package_is_this_function() -> None:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert scripts == {"foldserve": "foldserve.command:main"}


@pytest.mark.parametrize(
    ("words", "sentence", "hint"),
    [
        (["flod", "model.pt"], "no command 'flod'", "foldserve fold?"),
        (["server"], "no command 'server'", "foldserve serve?"),
        (["qqq"], "no command 'qqq'", "foldserve --help"),
        (["--port", "80"], "no option --port", "foldserve serve --port"),
        ([str(CHECKPOINT)], "is a file, no command", f"foldserve fold {CHECKPOINT}"),
        ([""], "no command ''", "foldserve --help"),
    ],
)
def test_a_wrong_command_is_told_the_right_one(
    words: list[str], sentence: str, hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = said(capsys, *words)
    assert (code, out) == (2, "")
    error, told = err.splitlines()
    assert sentence in error
    assert hint in told


@pytest.mark.parametrize("words", [["fold", "--help"], ["help", "fold"]])
def test_the_converter_calls_itself_by_the_command(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = said(capsys, *words)
    assert code == 0
    assert "foldserve fold" in out
    assert "python -m" not in out


def test_the_service_calls_itself_by_the_command(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["serve", "--help"])
    assert caught.value.code == 0
    assert "usage: foldserve serve [--models" in capsys.readouterr().out
    assert main(["serve", "--port", "x"]) == 2
    assert "Try: foldserve serve --help" in capsys.readouterr().err


# --- what it imports ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "absent"),
    [
        ([], ["torch", "onnx", "numpy", "rich", "pydantic", "onnxruntime"]),
        (["--help"], ["torch", "onnx", "numpy", "rich", "pydantic", "onnxruntime"]),
        (["--version"], ["torch", "onnx", "numpy", "rich", "pydantic", "onnxruntime"]),
        (["serve", "--help"], ["torch", "onnx", "rich", "converter", "onnxruntime"]),
        (
            ["sign", "--help"],
            ["torch", "onnx", "rich", "converter", "onnxruntime", "cryptography"],
        ),
        (
            ["verify-signature", "--help"],
            ["torch", "onnx", "rich", "converter", "onnxruntime", "cryptography"],
        ),
    ],
    ids=" ".join,
)
def test_help_is_light(words: list[str], absent: list[str]) -> None:
    program = (
        "import sys\nfrom foldserve.command import main\n"
        f"try:\n    main({words!r})\nexcept SystemExit:\n    pass\n"
        f"sys.stderr.write(' '.join(sys.modules.keys() & {set(absent)!r}))"
    )
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=1)
    assert done.stdout
    assert done.stderr == ""


@pytest.mark.parametrize("missing", ["rich", "torch", "onnx"])
def test_without_the_extra_it_names_the_extra(missing: str, tmp_path: Path) -> None:
    """A package that is not there, as after `pip install foldserve`."""
    program = (
        f"import sys\nsys.modules[{missing!r}] = None\n"  # fails as if it were not there
        "from foldserve.command import main\n"
        f"sys.exit(main(['fold', {str(CHECKPOINT)!r}, '-o', 'out.onnx']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False,
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    error, hint = done.stderr.splitlines()
    assert f"`foldserve fold` needs {missing}, which is not installed" in error
    assert hint == "hint:  pip install 'foldserve[converter]'"
    assert list(tmp_path.iterdir()) == []


# --- whose packages it runs --------------------------------------------------------------


def hostile(folder: Path, *names: str) -> Path:
    """A folder in which every name is one of the user's own modules."""
    (folder / "service").mkdir(parents=True)
    (folder / "service" / "__init__.py").write_text(HOSTILE)
    (folder / "service" / "__main__.py").write_text(HOSTILE)
    for name in ("converter", *names):
        (folder / f"{name}.py").write_text(HOSTILE)
    return folder


@pytest.fixture(params=["script", "script, PYTHONPATH with the folder", "module"])
def program(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> list[str]:
    """The start of a command line, in a current folder full of modules of the user's."""
    others = ["numpy", "onnx", "onnxruntime", "onnx_ir", "rich", "torch", "uvicorn", "pydantic"]
    if request.param == "script, PYTHONPATH with the folder":
        # Who asks for the folder gets it, as in every program of Python; not in place of ours.
        here = hostile(tmp_path / "here")
        monkeypatch.setenv("PYTHONPATH", f"{here}{os.pathsep}{os.pathsep}{ROOT}")
    else:
        here = hostile(tmp_path / "here", *others)
        monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.chdir(here)
    if request.param == "module":
        return [sys.executable, "-m", "foldserve"]
    script = tmp_path / "bin" / "foldserve"
    script.parent.mkdir()
    script.write_text(SCRIPT)
    return [sys.executable, str(script)]


def test_the_users_own_modules_are_seen_by_python_itself(program: list[str]) -> None:
    """Or the tests below would prove nothing."""
    del program
    done = subprocess.run(
        [sys.executable, "-m", "service"], capture_output=True, text=True, check=False
    )
    assert "the file of the user was run" in done.stderr


def test_the_converter_is_ours(program: list[str], tmp_path: Path) -> None:
    model = ROOT / "models" / "mnist" / "1" / "model.onnx"
    done = subprocess.run(
        [*program, "inspect", str(model), "--json", str(tmp_path / "report.json")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["provenance"]["command"].startswith(f"foldserve inspect {model}")


@pytest.fixture
def served(program: list[str]) -> Iterator[str]:
    command = [*program, "serve", "--models", str(ROOT / "models"), "--port", "0", "--workers", "2"]
    with serving(command) as url:
        yield url


def test_the_service_and_its_workers_are_ours(served: str) -> None:
    for _ in range(8):  # both workers
        answer = httpx.post(f"{served}/predict", content=EXAMPLE.read_bytes(), timeout=60)
        assert answer.json()["predictions"][0]["label"] == "7", answer.text
