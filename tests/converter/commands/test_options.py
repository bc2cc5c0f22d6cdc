"""What the options of every command promise: light to import, helpful when mistyped, plain."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import get_args

import pytest

from converter import cli
from converter.architectures import style
from converter.architectures.parts import _KINDS, ACTIVATIONS
from converter.commands import COMMANDS
from converter.commands.options.shared import Choice
from converter.commands.parsing import parsed
from converter.finetuning.options import Mode, Transfer
from converter.folding import FoldOptions
from converter.statistics.modes import Mode as Population
from converter.statistics.recalibration import MODES
from converter.training import FitOptions, TrainOptions
from converter.training.options import Optimizer, Schedule
from converter.training.schedules import OPTIMIZERS, SCHEDULES

ROOT = Path(__file__).parents[3]
HEAVY = {"torch", "onnx", "onnx_ir", "onnxruntime", "numpy", "onnxscript"}


def told(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = cli.main(words)
    out, err = capsys.readouterr()
    return code, out, err


@pytest.mark.parametrize(
    "words",
    [["--help"], ["--version"], ["fodl"], *([name, "--help"] for name in COMMANDS)],
    ids=" ".join,
)
def test_help_and_a_mistake_import_nothing_heavy(words: list[str]) -> None:
    """Torch takes seconds: whoever asks for help, or mistypes, does not wait for it."""
    program = (
        "import sys; from converter.cli import main; main(sys.argv[1:]);"
        f"heavy = {HEAVY!r} & sys.modules.keys(); assert not heavy, heavy"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *words], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_the_table_needs_no_library() -> None:
    program = (
        "import sys; before = set(sys.modules); import converter.commands;"
        "new = {n.partition('.')[0] for n in sys.modules.keys() - before};"
        "assert new - sys.stdlib_module_names <= {'converter'}, new"
    )
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_and_examples_that_parse(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = told(capsys, name, "--help")
    assert (code, err) == (0, "")
    assert f"Usage: python -m converter {name}" in out
    assert COMMANDS[name].summary[1:] in out
    for line, meaning in COMMANDS[name].examples:
        assert type(parsed(cli.parser(), shlex.split(line))).__name__.lower() == name
        assert f"python -m converter {line}" in out
        assert meaning in out
    assert COMMANDS[name].examples or name == "compare"


@pytest.mark.parametrize(
    ("words", "error", "hint"),
    [
        ("fold m.pt --jsn r.json", "unknown option: --jsn", "did you mean --json?"),
        ("fold m.pt --epochs 3", "unknown option: --epochs", "fold --help"),
        ("train --epoch 3", "unknown option: --epoch", "did you mean --epochs?"),
        ("fodl m.pt", 'unknown command "fodl"', 'did you mean "fold"?'),
        ("train --optimizer sdg", 'invalid value "sdg" for --optimizer', 'Did you mean "sgd"?'),
        ("train --epochs three", "invalid value for --epochs", "train --help"),
        ("bench a.onnx b.onnx --batch 0", 'invalid value "0" for --batch', "must be >= 1"),
        ("fold", "FILE is missing", "fold --help"),
        ("recalibrate m.pt", "--data is missing", "recalibrate --help"),
        ("fold m.pt --json", "--json needs a value", "fold --help"),
        ("fold m.pt n.pt", "there is no place for 'n.pt'", "fold --help"),
        ("train --image-size 8x", "--image-size is '8x'", "48x64"),
        ("train --momentum 2", "'momentum' is 2.0", "above 0, up to 1"),
        ("compare --claims steps", "not a command of the converter", "experiments --claims steps"),
    ],
)
def test_a_mistake_is_said_with_what_was_meant(
    words: str, error: str, hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = told(capsys, *words.split())
    assert (code, out) == (2, "")
    first, second = err.splitlines()
    assert first.startswith("error: ")
    assert error in first
    assert second.startswith("hint:  ")
    assert hint in second


@pytest.mark.parametrize("columns", ["50", "80", "200"])
@pytest.mark.parametrize("name", COMMANDS)
def test_no_line_is_wider_than_the_terminal_and_none_has_colours_in_a_pipe(
    name: str, columns: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for variable in ("FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("COLUMNS", columns)
    _, out, _ = told(capsys, name, "--help")
    assert max(map(len, out.splitlines())) <= int(columns)
    assert "\x1b" not in out


def test_an_example_can_be_copied_from_a_narrow_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "50")
    _, out, _ = told(capsys, "bench", "--help")
    shown = " ".join(out.replace("\\\n", " ").split())
    assert f"python -m converter {COMMANDS['bench'].examples[0][0]}" in shown


def test_colours_on_a_terminal_unless_they_are_not_wanted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "\x1b[36m" in told(capsys, "fold", "--help")[1]
    monkeypatch.setenv("NO_COLOR", "1")
    assert not re.search(r"\x1b\[[0-9;]*3[0-9]", told(capsys, "fold", "--help")[1])


def test_an_option_given_twice_counts_as_it_was_given_last_and_lists_grow() -> None:
    asked = parsed(cli.parser(), shlex.split("fold m.pt --seed 1 --seed 2 --only a --only b"))
    assert asked.proving.seed == 2
    assert asked.choice.only == ("a", "b")


def test_no_flag_has_an_opposite_that_nobody_declared(capsys: pytest.CaptureFixture[str]) -> None:
    assert told(capsys, "fold", "m.pt", "--no-trust-pickle")[0] == 2
    assert told(capsys, "fold", "m.pt", "--empty-only")[0] == 2
    asked = parsed(cli.parser(), ["train", "--no-augment", "--no-scale"])
    assert (asked.options().augment, asked.options().style.scale) == (False, False)


def test_a_choice_is_one_fact() -> None:
    """What may be typed is what the tables behind it have."""
    assert get_args(Optimizer) == tuple(OPTIMIZERS)
    assert get_args(Schedule) == tuple(SCHEDULES)
    assert get_args(style.Activation) == tuple(ACTIVATIONS)
    assert set(get_args(style.Norm)) == {*_KINDS, "none"}
    assert get_args(Population) == tuple(MODES)
    assert get_args(Mode)
    assert [f.name for f in fields(Choice)] == [f.name for f in fields(FoldOptions)]


def test_a_finetuning_is_asked_for_like_a_training() -> None:
    words = shlex.split("finetune m.pt --lr 0.5 --optimizer sgd --schedule constant --no-augment")
    asked = parsed(cli.parser(), words).transfer
    assert isinstance(asked, FitOptions)
    assert asked == Transfer(lr=0.5, optimizer="sgd", schedule="constant", augment=False)
    assert asked.unusual() == {"optimizer": "sgd", "schedule": "constant", "augment": False}
    assert isinstance(TrainOptions(), FitOptions)
