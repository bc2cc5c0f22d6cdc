"""Everything that the next epoch depends on: a killed training goes on as if nothing had been.

Written after each epoch, under another name and then renamed: a kill loses the epoch that was
running and nothing else. Plain tensors, numbers and strings; `torch.load(weights_only=True)` reads
it, and no code of a stranger runs.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from converter.errors import UserError, first_line
from converter.files import atomic
from converter.training.progress import Epoch, History, Step

FORMAT = "foldserve.training/1"


@dataclass(frozen=True)
class Snapshot:
    """The state between two epochs.

    Attributes:
        module, optimizer, scaler: their `state_dict()`.
        order: the state of the generator of the order and the augmentation, uint8.
        torch_cpu, torch_device: the states of torch's own generators; the second is empty on
            the CPU.
        history: of all epochs so far.
        best: the weights of the epoch with the lowest validation loss, when the training may
            stop early; else empty.
        options: what the training was asked for; it can go on only with the same.
    """

    module: dict[str, Tensor]
    optimizer: dict[str, Any]
    scaler: dict[str, Any]
    order: Tensor
    torch_cpu: Tensor
    torch_device: Tensor
    history: History
    best: dict[str, Tensor]
    options: dict[str, Any]

    @property
    def done(self) -> int:
        """How many epochs were trained."""
        return len(self.history.epochs)

    def asked(self, options: Mapping[str, Any]) -> Snapshot:
        """The same with these `options`."""
        return replace(self, options=dict(options))


def write(path: Path, snapshot: Snapshot) -> None:
    """Replace the file by this snapshot, or leave it as it was. Raises UserError."""
    steps = snapshot.history.steps
    content = {field.name: getattr(snapshot, field.name) for field in fields(Snapshot)}
    content |= {
        "format": FORMAT,
        "history": {
            # Two tensors rather than a dictionary for each of thousands of steps.
            "integers": torch.tensor([(s.epoch, s.step) for s in steps], dtype=torch.int64),
            "numbers": torch.tensor([(s.loss, s.lr) for s in steps], dtype=torch.float64),
            "epochs": [asdict(epoch) for epoch in snapshot.history.epochs],
        },
    }
    buffer = io.BytesIO()
    torch.save(content, buffer)
    try:
        atomic.write_bytes(path, buffer.getvalue())
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror or error}") from error


def read(path: Path) -> Snapshot:
    """Read a snapshot; no code in the file is run. Raises UserError."""
    try:
        content = torch.load(io.BytesIO(path.read_bytes()), map_location="cpu", weights_only=True)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from error
    except Exception as error:  # torch lets errors of many kinds out of a damaged file
        raise UserError(f"{path} is not a file of plain values: {first_line(error)}") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise UserError(f"{path} is not a training of format {FORMAT!r}", _START_ANEW)
    try:
        told = content["history"]
        history = History(
            [
                Step(int(epoch), int(step), float(loss), float(lr))
                for (epoch, step), (loss, lr) in zip(
                    told["integers"].tolist(), told["numbers"].tolist(), strict=True
                )
            ],
            [Epoch(**epoch) for epoch in told["epochs"]],
        )
        known = {field.name: content[field.name] for field in fields(Snapshot)}
        if not isinstance(content["options"], dict):
            raise TypeError("its options are not a dictionary")
        return Snapshot(**(known | {"history": history}))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{path} is damaged: {error!r}", _START_ANEW) from error


def require_same(snapshot: Snapshot, options: Mapping[str, Any]) -> None:
    """Raises UserError, naming what differs, unless the training was asked for the same."""
    for key in sorted(snapshot.options.keys() | options.keys()):
        before, now = snapshot.options.get(key), options.get(key)
        if before != now:
            raise UserError(
                f"the training to resume has {key} = {before!r}, not {now!r}", _START_ANEW
            )


_START_ANEW = "leave out --resume to start anew"
