"""Transfer learning: a trained network, a new head, and batch-norms that are frozen or not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from converter.architectures import described
from converter.architectures.modules import weights_of
from converter.errors import UserError
from converter.finetuning.frozen import freeze
from converter.finetuning.options import Transfer
from converter.sources import checkpoint
from converter.statistics.drift import Drift, Held, drift
from converter.statistics.moments import Moments
from converter.statistics.norms import find, stored
from converter.training.data import Dataset, pixels
from converter.training.determinism import deterministic
from converter.training.devices import pick_device
from converter.training.evaluate import loss_and_accuracy
from converter.training.loop import fit
from converter.training.progress import History, Observer


@dataclass(frozen=True)
class Base:
    """The network to start from: an architecture as a checkpoint names it, and its weights.

    Attributes:
        architecture, arguments, heads: what `described.build` takes.
        state_dict: its weights; None for random ones.
    """

    architecture: str
    arguments: Mapping[str, Any]
    heads: Sequence[Mapping[str, Any]] = ()
    state_dict: Mapping[str, torch.Tensor] | None = None


@dataclass(frozen=True)
class Transferred:
    """The result of `finetune`.

    Attributes:
        module: in evaluation mode, on the CPU.
        head: where the new head is, and what it is.
        frozen: names of the batch-norms that were frozen.
        moved: for each batch-norm before the head, how far its statistics moved, in units of its
            final standard deviations.
        before: accuracy on the test images with the new head still random.
        history: every step and epoch.
        test_loss, test_accuracy: at the end.
    """

    module: nn.Module
    head: described.Head
    frozen: list[str]
    moved: list[Drift]
    before: float
    history: History
    test_loss: float
    test_accuracy: float


def finetune(
    base: Base, data: Dataset, how: Transfer, observers: Sequence[Observer] = ()
) -> Transferred:
    """Put a new head on `base` and train it on `data`. Writes nothing.

    Raises:
        UserError: the network has no dense layer at its end, does not take such images, or the
            options are invalid.
    """
    how.check()
    device = pick_device(how.device)
    with deterministic(how.seed, device, how.threads):
        module = described.build(base.architecture, base.arguments, base.heads)
        if base.state_dict is not None:
            load(module, base.state_dict)
        at = how.head_at or described.classifier(module, pixels(data.train.images[:2]))
        head = described.parse_head({"at": at, "hidden": how.hidden, "classes": len(data.labels)})
        held = {name: Held.by(norm) for name, norm in find(module).tracked.items()}
        if how.only_head:
            module.requires_grad_(False)
        frozen = freeze(module, how.freeze_bn)
        described.attach(module, head)
        _, before = loss_and_accuracy(module, data.test.images, data.test.labels)
        history = fit(module, data, replace(how, device=str(device)), observers)
        test_loss, accuracy = loss_and_accuracy(module, data.test.images, data.test.labels)
    module.cpu().eval()
    tracked = find(module).tracked
    moved = []
    for name, start in held.items():
        if name in tracked:
            mean, variance = stored(tracked[name])
            moved.append(drift(name, start, Moments(1, mean, variance)))
    return Transferred(module, head, frozen, moved, before, history, test_loss, accuracy)


def load(module: nn.Module, state: Mapping[str, torch.Tensor]) -> None:
    """Raises UserError where the weights are not those of the module."""
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        raise UserError(f"the weights do not fit the network: {error}") from error


def to_checkpoint(
    base: Base, data: Dataset, how: Transfer, result: Transferred
) -> checkpoint.Checkpoint:
    """A checkpoint that `fold`, `recalibrate` and `finetune` read."""
    return checkpoint.Checkpoint(
        architecture=base.architecture,
        arguments=dict(base.arguments),
        state_dict=weights_of(result.module),
        input_shape=list(data.task.input_shape),
        labels=data.labels,
        preprocessing={} if data.preprocessing is None else data.preprocessing.model_dump(),
        metrics={
            "test_accuracy": result.test_accuracy,
            "test_loss": result.test_loss,
            "train_loss": result.history.epochs[-1].train_loss,
        },
        description=f"{data.subject}, learned from {base.architecture}.",
        seed=how.seed,
        epochs=how.epochs,
        batch_size=how.batch_size,
        lr=how.lr,
        threads=how.threads,
        statistics=checkpoint.statistics_of(result.module) | {"frozen": len(result.frozen)},
        torch=str(torch.__version__),
        dataset=data.description,
        attribution=data.attribution,
        training={"freeze_bn": how.freeze_bn, "only_head": how.only_head} | how.unusual(),
        heads=[*map(dict, base.heads), result.head.to_plain()],
    )
