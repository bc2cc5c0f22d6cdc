"""`train` from end to end: its file, its repeatability, its refusals; and the shipped weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from converter.errors import UserError
from converter.publishing import curves
from converter.sources import checkpoint
from converter.training import Epoch, Progress, Step, TrainOptions, train
from converter.training.data import Dataset
from converter.training.devices import pick_device
from converter.training.evaluate import accuracy, loss_and_accuracy
from converter.training.options import DEFAULT_OUTPUT

pytestmark = pytest.mark.slow

Quick = Callable[..., TrainOptions]


def test_two_epochs_lower_the_loss_and_write_a_checkpoint_that_describes_itself(
    quick: Quick, data: Dataset
) -> None:
    options = quick(epochs=2)
    result = train(options)
    assert result.history[1].train_loss < result.history[0].train_loss

    content = torch.load(options.output, weights_only=True)
    assert content["format"] == "foldserve.checkpoint/1"
    assert content["arguments"] == {"width": 4, "hidden": 32}
    assert (content["seed"], content["epochs"], content["batch_size"]) == (7, 2, 50)
    assert content["statistics"] == {
        "kind": "exponential moving average",
        "momentum": 0.1,
        "batches": 40,
    }
    assert content["torch"] == torch.__version__
    assert content["dataset"] == "1000 training and 500 test images in MNIST's format"
    assert content["attribution"] == ""

    module = checkpoint.read(options.output).module()
    loss, share = loss_and_accuracy(module, data.test.images, data.test.labels)
    assert content["metrics"]["test_accuracy"] == share == result.test_accuracy
    assert content["metrics"]["test_loss"] == loss == result.test_loss
    assert result.bytes == options.output.stat().st_size
    written = sorted(path.name for path in options.output.parent.iterdir())
    assert written == ["checkpoint.pt", "checkpoint.pt.curves.json"]


def test_the_curves_lie_beside_it(quick: Quick) -> None:
    options = quick(epochs=2)
    result = train(options)
    drawn = {curve.name: curve for curve in curves.read(options.output)}
    assert drawn["train_loss"].steps == list(range(1, 41))
    assert drawn["validation_accuracy"].steps == [20, 40]
    assert drawn["validation_accuracy"].values[-1] == pytest.approx(result.test_accuracy)
    for epoch, loss in enumerate(np.reshape(drawn["train_loss"].values, (2, 20)).mean(1)):
        assert loss == pytest.approx(result.history[epoch].train_loss, rel=1e-5)


def test_the_same_options_give_the_same_bytes(quick: Quick, tmp_path: Path) -> None:
    first, second = (quick(output=tmp_path / name) for name in ("first.pt", "second.pt"))
    train(first)
    torch.rand(3)  # what the process drew before must not matter
    train(second)
    assert first.output.read_bytes() == second.output.read_bytes()


def test_another_seed_gives_other_weights(quick: Quick, tmp_path: Path) -> None:
    first, second = (quick(output=tmp_path / f"{seed}.pt", seed=seed) for seed in (1, 2))
    train(first)
    train(second)
    weights = [checkpoint.read(options.output).state_dict for options in (first, second)]
    assert not torch.equal(weights[0]["conv1.weight"], weights[1]["conv1.weight"])


def test_the_callers_torch_is_left_as_it_was(quick: Quick) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    train(quick(threads=2))
    assert torch.equal(torch.rand(3), expected)
    assert torch.get_num_threads() == 1  # as the fixture of all these tests set it
    assert not torch.are_deterministic_algorithms_enabled()


def test_the_number_of_threads_is_recorded(quick: Quick) -> None:
    options = quick(threads=2)
    assert train(options).threads == 2
    assert checkpoint.read(options.output).threads == 2


class Interrupting(Progress):
    """Ctrl-C in the middle of an epoch."""

    def step(self, step: Step, module: nn.Module) -> None:  # noqa: ARG002
        if step.step == 3:
            raise KeyboardInterrupt


def test_an_interruption_leaves_the_old_checkpoint_alone(quick: Quick) -> None:
    options = quick()
    options.output.parent.mkdir()
    options.output.write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt):
        train(options, Interrupting())
    assert options.output.read_bytes() == b"old"
    assert list(options.output.parent.iterdir()) == [options.output]


def test_a_rate_that_blows_up_writes_nothing(quick: Quick) -> None:
    options = quick(lr=1e38, arch="mlp", arch_args={})
    with pytest.raises(UserError, match="the training loss became"):
        train(options)
    assert list(options.output.parent.iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"arch": "lenet"}, "unknown architecture"),
        ({"arch_args": {"depth": 3}}, "takes no argument 'depth'"),
        ({"epochs": 0}, "--epochs is 0"),
        ({"batch_size": 1}, "--batch-size is 1"),
        ({"lr": 0.0}, "--lr is 0"),
        ({"lr": float("nan")}, "--lr is nan"),
        ({"lr": float("inf")}, "--lr is inf"),
        ({"seed": -1}, "--seed is -1"),
        ({"seed": 2**63}, "--seed is 9223372036854775808"),
        ({"threads": 0}, "--threads is 0"),
        ({"device": "tpu"}, "device 'tpu'"),
        ({"device": "meta"}, "cannot train on 'meta'"),
    ],
)
def test_impossible_options_are_refused_before_any_work(
    quick: Quick, changes: dict[str, Any], why: str
) -> None:
    with pytest.raises(UserError, match=why):
        train(quick(**changes))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_cuda_is_refused_where_there_is_none() -> None:
    assert pick_device("auto") == torch.device("cpu")
    with pytest.raises(UserError, match="torch finds no CUDA device") as raised:
        pick_device("cuda")
    assert str(torch.__version__) in raised.value.hint


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_gives_the_same_bytes_twice(quick: Quick, tmp_path: Path) -> None:
    first, second = (
        quick(output=tmp_path / name, device="cuda") for name in ("first.pt", "second.pt")
    )
    assert train(first).test_accuracy > 0.2
    train(second)
    assert first.output.read_bytes() == second.output.read_bytes()


def test_the_result_is_plain_json_values(quick: Quick) -> None:
    result = train(quick())
    content = result.to_json()
    assert content["test_accuracy"] == result.history[-1].validation_accuracy
    assert set(content["history"][0]) == set(Epoch.__dataclass_fields__)
    assert content["output"].endswith("checkpoint.pt")


def test_the_shipped_checkpoint_classifies_the_real_test_images(
    shipped: Path, data: Dataset
) -> None:
    module = checkpoint.read(shipped).module()
    assert accuracy(module, data.test.images, data.test.labels) >= 0.98


def test_the_shipped_checkpoint_was_trained_with_the_defaults(shipped: Path) -> None:
    found, default = checkpoint.read(shipped), TrainOptions()
    assert shipped.match(str(DEFAULT_OUTPUT))
    assert found.architecture == default.arch
    assert found.arguments == {"width": 16, "hidden": 128}
    assert (found.seed, found.epochs) == (default.seed, default.epochs)
    assert (found.batch_size, found.lr) == (default.batch_size, default.lr)


def test_every_running_variance_of_the_shipped_checkpoint_is_positive(shipped: Path) -> None:
    state = checkpoint.read(shipped).state_dict
    variances = [tensor for name, tensor in state.items() if name.endswith("running_var")]
    assert len(variances) == 6
    assert all(bool((tensor > 0).all()) for tensor in variances)
    assert all(bool(tensor.isfinite().all()) for tensor in state.values())
