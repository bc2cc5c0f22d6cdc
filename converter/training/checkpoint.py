"""A checkpoint that describes itself: weights, how to build the network, how to feed it.

A plain dictionary of tensors, strings, numbers, lists and dictionaries, so that
`torch.load(path, weights_only=True)` reads it and no code of a stranger runs. It holds no time,
no path and no host name: the same weights give the same bytes.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_origin, get_type_hints

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from converter.errors import UserError
from converter.training import networks

FORMAT = "foldserve.checkpoint/1"
OPTIONAL = frozenset({"training", "heads"})


@dataclass(frozen=True)
class Checkpoint:
    """The keys of the file, but for `format`.

    Attributes:
        architecture, arguments: what `networks.build` takes.
        state_dict: float32 tensors on the CPU, and int64 counters of the batch-norms.
        input_shape: sizes of one sample, without the batch axis.
        labels: the name of each class, in the order of the logits.
        preprocessing: the fields of `service.manifest.Preprocessing`.
        metrics: `test_accuracy` in [0, 1], `test_loss` and `train_loss` in nats.
        description: one sentence for people.
        seed, epochs, batch_size, lr, threads: what the training was asked for.
        statistics: how the batch-norms' running statistics came about, see `statistics_of`.
        torch: the version of torch that trained it.
        dataset, attribution: what it learned from, and whom to name.
        training: what else was asked for; missing in the file when nothing was.
        heads: what was put in place of its last layer, see `networks.Head`; missing likewise.
    """

    architecture: str
    arguments: dict[str, int]
    state_dict: dict[str, Tensor]
    input_shape: list[int]
    labels: list[str]
    preprocessing: dict[str, Any]
    metrics: dict[str, float]
    description: str
    seed: int
    epochs: int
    batch_size: int
    lr: float
    threads: int
    statistics: dict[str, Any]
    torch: str
    dataset: str
    attribution: str
    training: dict[str, Any] = field(default_factory=dict)
    heads: list[dict[str, Any]] = field(default_factory=list)

    def module(self) -> nn.Module:
        """The network with its weights, in evaluation mode, on the CPU.

        Raises:
            UserError: when the architecture is unknown, takes no such arguments, or the weights
                are not its weights.
        """
        module = networks.build(self.architecture, self.arguments, self.heads)
        try:
            module.load_state_dict(self.state_dict)
        except RuntimeError as error:
            raise UserError(
                f"the weights are not those of {self.architecture!r}: {error}",
                "the checkpoint's architecture, arguments and state_dict contradict each other",
            ) from error
        return module.eval()


def read(path: Path) -> Checkpoint:
    """Read a checkpoint of this format; no code in the file is run.

    Raises:
        UserError: when the file cannot be read, is of another format, or misses a key or has
            one of the wrong type.
    """
    try:
        file = io.BytesIO(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from error
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # torch lets errors of many kinds out of a damaged file
        # torch's own words would tell people to read it without that protection.
        raise UserError(
            f"{path} is not a file of plain weights: damaged, of another kind, or with "
            "whole Python objects in it",
            "give a checkpoint that `train` or `finetune` wrote",
        ) from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise UserError(f"{path} is not a checkpoint of format {FORMAT!r}")
    values = {}
    for key, hint in get_type_hints(Checkpoint).items():
        kind = get_origin(hint) or hint
        if key in OPTIONAL and key not in content:
            continue
        if type(content.get(key)) is not kind:
            found = type(content[key]).__name__ if key in content else "missing"
            raise UserError(f"{key!r} of {path} is {found}, not {kind.__name__}")
        values[key] = content[key]
    for name, tensor in values["state_dict"].items():
        if type(name) is not str or type(tensor) is not Tensor:
            raise UserError(f"{name!r} in the state_dict of {path} is no tensor with a name")
    return Checkpoint(**values)


def statistics_of(module: nn.Module) -> dict[str, Any]:
    """How the running statistics of the module's batch-norms were estimated.

    Returns:
        `kind`, `momentum` (the weight of the newest batch) and `batches` (how many were seen);
        only `kind` for a network without batch-norms.
    """
    norms = [norm for norm in module.modules() if isinstance(norm, _BatchNorm)]
    if not norms:
        return {"kind": "none"}
    return {
        "kind": "exponential moving average",
        "momentum": norms[0].momentum,
        "batches": max(int(norm.num_batches_tracked or 0) for norm in norms),
    }


def weights_of(module: nn.Module) -> dict[str, Tensor]:
    """A copy of the module's state on the CPU, contiguous, in the module's order."""
    state: Mapping[str, Tensor] = module.state_dict()
    return {name: tensor.detach().cpu().contiguous().clone() for name, tensor in state.items()}


def to_bytes(checkpoint: Checkpoint) -> bytes:
    """The file's content. Equal checkpoints give equal bytes."""
    buffer = io.BytesIO()  # given a path instead, torch writes that path's stem into the archive
    content = {
        key: value for key, value in vars(checkpoint).items() if value or key not in OPTIONAL
    }
    torch.save({"format": FORMAT, **content}, buffer)
    return buffer.getvalue()
