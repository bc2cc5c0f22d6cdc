"""The command from its arguments to its exit status, in a log, on a terminal, and interrupted."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from rich.console import Console
from torch import nn

from converter import cli
from converter.commands.options.train import Train
from converter.commands.parsing import parsed
from converter.commands.train import run
from converter.errors import UserError
from converter.report.progress import Live
from converter.training import Epoch, Run, Step, Style, TrainOptions, TrainResult
from converter.training.console import Told, table
from converter.training.options import arch_args

pytestmark = pytest.mark.slow


def parse(*words: str) -> Train:
    found = parsed(cli.parser(), ["train", *words])
    assert isinstance(found, Train)
    return found


def options_of(asked: Train) -> TrainOptions:
    return asked.options()


@pytest.fixture(autouse=True)
def plain_output(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "200")


def small(subset: Path, output: Path) -> list[str]:
    words = ["--arch-arg", "width=2", "--arch-arg", "hidden=8", "--batch-size", "100"]
    words += ["--threads", "1"]
    return [*words, "--data-dir", str(subset), "--output", str(output), "--device", "cpu"]


def test_no_arguments_mean_the_defaults() -> None:
    assert options_of(parse()) == TrainOptions()


def test_every_option_arrives() -> None:
    words = "--arch mlp --arch-arg first=9 --data-dir d --output o.pt --epochs 3 --batch-size 4"
    words += " --lr 0.5 --seed 6 --device cpu --threads 2 --norm renorm --bn-position after"
    words += " --activation gelu --momentum 0.2 --eps 1e-3 --no-scale --no-center --dropout 0.1"
    words += " --init-scale 2 --input-norm --dataset fashion-mnist --image-size 8x9"
    words += " --validation 0.25 --optimizer sgd --schedule constant --no-augment --patience 3"
    words += " --resume --csv c.csv"
    assert options_of(parse(*words.split())) == TrainOptions(
        arch="mlp",
        arch_args={"first": 9},
        data_dir=Path("d"),
        output=Path("o.pt"),
        epochs=3,
        batch_size=4,
        lr=0.5,
        seed=6,
        device="cpu",
        threads=2,
        style=Style(
            norm="renorm",
            bn_position="after",
            activation="gelu",
            momentum=0.2,
            eps=1e-3,
            scale=False,
            center=False,
            dropout=0.1,
            init_scale=2.0,
            input_norm=True,
        ),
        dataset="fashion-mnist",
        image_size=(8, 9),
        validation=0.25,
        optimizer="sgd",
        schedule="constant",
        augment=False,
        patience=3,
        resume=True,
        csv=Path("c.csv"),
    )


@pytest.mark.parametrize(
    ("words", "output"),
    [
        ("--seed 1", "models/mnist/checkpoint.pt"),
        ("--arch resnet", "resnet.pt"),
        ("--dataset fashion-mnist", "mnist_cnn.pt"),
        ("--arch timm:resnet18", "timm-resnet18.pt"),
        ("--arch resnet --output a/b.pt", "a/b.pt"),
    ],
)
def test_another_network_is_not_written_over_the_one_that_ships(words: str, output: str) -> None:
    assert options_of(parse(*words.split())).output == Path(output)


def test_no_affine_is_neither_scale_nor_center() -> None:
    assert options_of(parse("--no-affine")).style == Style(scale=False, center=False)


@pytest.mark.parametrize("size", ["", "0", "x", "8x", "8x0", "12345", "8x8x8", "-8"])
def test_an_image_size_that_is_none_is_refused(size: str) -> None:
    with pytest.raises(UserError, match="--image-size is"):
        options_of(parse("--image-size", size))


@pytest.mark.parametrize("pair", ["width", "width=", "width=x", "width=-1", "width=1.5", "w=²"])
def test_an_arch_arg_that_is_no_pair_is_refused(pair: str) -> None:
    with pytest.raises(UserError, match="is not NAME=NUMBER"):
        arch_args([pair])


def test_an_arch_arg_of_too_many_digits_is_refused() -> None:
    with pytest.raises(UserError, match="is not NAME=NUMBER"):
        arch_args(["width=" + "9" * 5000])


def test_an_arch_arg_given_twice_is_refused() -> None:
    with pytest.raises(UserError, match="'width' is given twice"):
        arch_args(["width=1", "width=2"])


def test_lines_go_to_stderr_the_table_to_stdout_and_the_rest_to_json(
    subset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output, report = tmp_path / "new" / "checkpoint.pt", tmp_path / "reports" / "result.json"
    words = [*small(subset, output), "--epochs", "2", "--json", str(report)]
    assert run(parse(*words)) == 0

    content = json.loads(report.read_text())
    assert [epoch["number"] for epoch in content["history"]] == [1, 2]
    assert content["bytes"] == output.stat().st_size
    assert torch.load(output, weights_only=True)["metrics"] == {
        "test_accuracy": content["test_accuracy"],
        "test_loss": content["test_loss"],
        "train_loss": content["history"][-1]["train_loss"],
    }

    shown = capsys.readouterr()
    lines = shown.err.splitlines()
    assert lines[0] == "training: 10 steps an epoch, epochs: 2"
    assert lines[1].startswith("epoch 1/2  train loss ")
    assert f"accuracy {content['test_accuracy']:.2%}" in lines[2]
    assert len(lines) == 3
    assert "\x1b" not in shown.err + shown.out
    assert f"{output} (" in shown.out
    assert f"{content['test_accuracy']:.2%}" in shown.out


def test_errors_are_for_the_caller_and_nothing_is_written(tmp_path: Path, subset: Path) -> None:
    output, report = tmp_path / "checkpoint.pt", tmp_path / "result.json"
    words = [*small(subset, output), "--json", str(report), "--arch-arg", "depth=3"]
    with pytest.raises(UserError, match="takes no argument 'depth'"):
        run(parse(*words))
    assert list(tmp_path.iterdir()) == []


def test_a_report_that_cannot_be_written_is_known_before_the_training(
    subset: Path, tmp_path: Path
) -> None:
    words = [*small(subset, tmp_path / "checkpoint.pt"), "--json", str(tmp_path)]
    with pytest.raises(UserError, match="is a folder"):
        run(parse(*words))
    assert list(tmp_path.iterdir()) == []


PROGRAM = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in a shell's background jobs
from converter.cli import main
sys.exit(main(["train", *sys.argv[1:]]))
"""


def test_ctrl_c_ends_it_with_a_sentence_and_can_be_resumed(subset: Path, tmp_path: Path) -> None:
    words = [*small(subset, tmp_path / "checkpoint.pt"), "--epochs", "100000"]
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *words], stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == "training: 10 steps an epoch, epochs: 100000\n"
        process.stderr.readline()  # the first epoch
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=30)
    assert process.returncode == 130
    kept = tmp_path / "checkpoint.pt.unfinished"
    last = f"interrupted; with --resume the same command goes on from {kept}"
    assert said.splitlines()[-1] == last
    assert "Traceback" not in said
    assert list(tmp_path.iterdir()) == [kept]


EPOCH = Epoch(
    number=1, train_loss=0.5, validation_loss=0.25, validation_accuracy=0.9931, seconds=2.0
)


@pytest.mark.parametrize("terminal", [True, False])
def test_a_terminal_gets_a_bar_and_a_log_gets_lines(terminal: bool) -> None:
    screen = io.StringIO()
    with Live(Console(file=screen, force_terminal=terminal, width=120)) as live:
        bar = Told(live)
        bar.say("downloading [a] file")
        module = nn.Identity()
        bar.start(Run(module, epochs=1, batches=2))
        bar.step(Step(epoch=1, step=1, loss=0.5, lr=0.01), module)
        bar.step(Step(epoch=1, step=2, loss=0.25, lr=0.01), module)
        bar.epoch(EPOCH, module)
    text = screen.getvalue()
    assert "downloading [a] file" in text
    assert ("epoch 1, loss 0.2500" in text) is terminal
    assert ("2/2" in text) is terminal
    assert "accuracy 99.31%" in text


def test_the_table_says_what_lies_where() -> None:
    result = TrainResult(
        output=Path("out[1]/checkpoint.pt"),
        bytes=594_417,
        parameters=144_954,
        history=[EPOCH],
        stopped_early=False,
        test_accuracy=0.9931,
        test_loss=0.25,
        device="cpu",
        threads=2,
        seconds=61.2,
        dataset="MNIST",
        augmented=True,
    )
    page = io.StringIO()
    Console(file=page, width=120).print(table(result))
    for words in ("out[1]/checkpoint.pt (594 kB)", "144,954", "99.31%", "61 s on cpu, 2 CPU"):
        assert words in page.getvalue()
