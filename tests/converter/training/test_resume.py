"""A training that was killed goes on as if it had not been: bit for bit, or not at all."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from converter.errors import UserError
from converter.sources import checkpoint
from converter.training import (
    Dataset,
    Epoch,
    FitOptions,
    Observer,
    Progress,
    Style,
    TrainOptions,
    build,
    fit,
    snapshot,
    train,
)
from converter.training.data import hold_out
from converter.training.trainer import unfinished

pytestmark = pytest.mark.slow

Quick = Callable[..., TrainOptions]


class Killed(Exception):
    """Stands for a kill, in this process."""


class KillAfter(Observer):
    """Ends the training in the middle of the epoch after `epochs`."""

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs

    def step(self, step: Any, module: nn.Module) -> None:  # noqa: ARG002
        if step.epoch == self.epochs + 1:
            raise Killed


STYLE = Style(dropout=0.3, norm="renorm")  # draws from torch's own generator, counts its steps


def make(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return build("mlp-small", style=STYLE, hidden=16)


@pytest.mark.parametrize("optimizer", ["adamw", "momentum"])
def test_the_weights_are_those_of_a_training_that_was_not_stopped(
    data: Dataset, tmp_path: Path, optimizer: str
) -> None:
    options = FitOptions(epochs=4, batch_size=100, optimizer=optimizer)
    whole = make()
    torch.manual_seed(1)
    expected = fit(whole, data, options)

    path = tmp_path / "state"
    broken = make()
    torch.manual_seed(1)
    with pytest.raises(Killed):
        fit(broken, data, options, [KillAfter(2)], save=lambda s: snapshot.write(path, s))
    torch.rand(5)  # another process has another generator
    resumed = make(seed=9)
    history = fit(resumed, data, options, resume=snapshot.read(path))

    assert [step.step for step in history.steps] == list(range(1, 41))
    assert history.steps == expected.steps
    assert [e.validation_loss for e in history.epochs] == [
        e.validation_loss for e in expected.epochs
    ]
    state = resumed.state_dict()
    assert all(torch.equal(state[key], value) for key, value in whole.state_dict().items())


PROGRAM = """
import sys
from pathlib import Path
from converter.cli import main
sys.exit(main(sys.argv[1:]))
"""


def test_kill_9_loses_at_most_an_epoch_and_no_bit(quick: Quick, tmp_path: Path) -> None:
    """The real command, killed by the real signal while an epoch runs, then resumed."""
    options = quick(
        arch="mlp-small",
        arch_args={"hidden": 32},
        epochs=6,
        style=Style(dropout=0.2),
        csv=tmp_path / "whole.csv",
    )
    train(options)
    expected = options.output.read_bytes()
    options.output.unlink()

    words = ["train", "--arch", "mlp-small", "--arch-arg", "hidden=32", "--epochs", "6"]
    words += ["--batch-size", "50", "--seed", "7", "--device", "cpu", "--threads", "1"]
    words += ["--dropout", "0.2", "--data-dir", str(options.data_dir)]
    words += ["--output", str(options.output), "--csv", str(tmp_path / "resumed.csv")]
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *words], stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("epoch 3/6"):
                os.kill(process.pid, signal.SIGKILL)
                break
        process.communicate(timeout=30)
    assert process.returncode == -signal.SIGKILL
    assert not options.output.exists()
    done = snapshot.read(unfinished(options.output)).done
    assert done >= 3  # it is written before it is heard of

    heard: list[str] = []

    class Heard(Progress):
        def say(self, sentence: str) -> None:
            heard.append(sentence)

        def epoch(self, epoch: Epoch, module: nn.Module) -> None:  # noqa: ARG002
            heard.append(f"epoch {epoch.number}")

    train(replace(options, resume=True, csv=tmp_path / "resumed.csv"), Heard())
    assert heard[0] == f"resuming after epoch {done}"
    assert heard[1:] == [f"epoch {number}" for number in range(done + 1, 7)]
    assert options.output.read_bytes() == expected
    assert not unfinished(options.output).exists()
    losses = [
        [line.split(",")[:6] for line in (tmp_path / name).read_text().splitlines()]
        for name in ("whole.csv", "resumed.csv")
    ]
    assert losses[0] == losses[1]
    assert len(losses[0]) == 1 + 6 * 20


def stop(options: TrainOptions) -> None:
    class Stop(Progress):
        def step(self, step: Any, module: nn.Module) -> None:  # noqa: ARG002
            if step.epoch == 2:
                raise Killed

    with pytest.raises(Killed):
        train(options, Stop())


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"lr": 0.02}, "has lr = 0.01, not 0.02"),
        ({"epochs": 3}, "has epochs = 2, not 3"),
        ({"arch_args": {"width": 5, "hidden": 32}}, "has arguments = "),
        ({"validation": 0.1}, "has data = "),
        ({"threads": 2}, "has threads = 1, not 2"),
    ],
)
def test_another_training_is_not_resumed(quick: Quick, changes: dict[str, Any], why: str) -> None:
    options = quick(epochs=2)
    stop(options)
    with pytest.raises(UserError, match=why) as raised:
        train(replace(options, resume=True, **changes))
    assert "leave out --resume" in raised.value.hint
    assert unfinished(options.output).exists()


def test_nothing_to_resume_starts_at_the_beginning_and_says_so(quick: Quick) -> None:
    heard: list[str] = []

    class Heard(Progress):
        def say(self, sentence: str) -> None:
            heard.append(sentence)

    train(quick(resume=True), Heard())
    assert "starts at its beginning" in heard[0]


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"nonsense"])
def test_a_damaged_state_is_refused(quick: Quick, content: bytes) -> None:
    options = quick(resume=True)
    kept = unfinished(options.output)
    kept.parent.mkdir()
    kept.write_bytes(content)
    with pytest.raises(UserError, match="is not a file of plain values"):
        train(options)


def test_a_checkpoint_is_no_state_of_a_training(quick: Quick) -> None:
    options = quick(resume=True)
    train(options)
    unfinished(options.output).write_bytes(options.output.read_bytes())
    with pytest.raises(UserError, match="is not a training of format"):
        train(options)


@pytest.mark.parametrize("changes", [{"options": []}, {"history": {}}, {"history": None}])
def test_a_state_that_contradicts_itself_is_refused(quick: Quick, changes: dict[str, Any]) -> None:
    options = quick(epochs=2, resume=True)
    stop(options)
    kept = unfinished(options.output)
    torch.save(torch.load(kept, weights_only=True) | changes, kept)
    with pytest.raises(UserError, match="is damaged"):
        train(options)


def test_the_best_weights_come_back_when_it_stops_early(data: Dataset) -> None:
    """A rate that is far too high makes the loss rise at some time."""
    held = hold_out(data, 0.2, seed=0)
    assert held.validation is not None
    module = make()
    options = FitOptions(
        epochs=50, batch_size=100, lr=0.5, schedule="constant", patience=2, augment=False
    )
    history = fit(module, held, options)
    losses = [epoch.validation_loss for epoch in history.epochs]
    assert history.stopped_early
    assert len(losses) < 50
    assert losses.index(min(losses)) == len(losses) - 3

    from converter.training.evaluate import loss_and_accuracy

    found, _ = loss_and_accuracy(module, held.validation.images, held.validation.labels)
    assert found == min(losses)


def test_the_test_images_never_decide_when_to_stop(data: Dataset, quick: Quick) -> None:
    with pytest.raises(UserError, match="the test images would decide"):
        fit(make(), data, FitOptions(patience=1))
    with pytest.raises(UserError, match="the test images would decide"):
        train(quick(patience=1))


def test_held_out_images_are_not_trained_on_and_are_the_same_for_a_seed(data: Dataset) -> None:
    first, again, other = (hold_out(data, 0.1, seed=seed) for seed in (0, 0, 1))
    assert first.validation is not None
    assert again.validation is not None
    assert other.validation is not None
    assert (len(first.train), len(first.validation)) == (900, 100)
    assert torch.equal(first.validation.images, again.validation.images)
    assert not torch.equal(first.validation.images, other.validation.images)
    whole = torch.cat([first.train.images, first.validation.images]).flatten(1).double()
    expected = data.train.images.flatten(1).double()
    assert torch.equal(whole.sum(0), expected.sum(0))
    assert torch.equal((whole**2).sum(0), (expected**2).sum(0))


@pytest.mark.parametrize("share", [-0.1, 1.0, 0.0001, float("nan")])
def test_a_share_that_leaves_nothing_is_refused(data: Dataset, share: float) -> None:
    with pytest.raises(UserError, match="--validation"):
        hold_out(data, share, seed=0)


def test_mixed_precision_is_for_cuda() -> None:
    with pytest.raises(UserError, match="mixed precision is for CUDA, the device is cpu"):
        FitOptions(mixed_precision=True).check()


def test_unusual_options_are_in_the_checkpoint(quick: Quick) -> None:
    options = quick(optimizer="sgd", schedule="constant", validation=0.1, style=Style(norm="none"))
    train(options)
    found = checkpoint.read(options.output)
    assert found.training == {"validation": 0.1, "optimizer": "sgd", "schedule": "constant"}
    assert found.statistics == {"kind": "none"}
    assert found.arguments["style"] == {"norm": "none"}
