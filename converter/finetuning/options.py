"""How a new task may be learned, declared once: for Python and for the command line."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from cyclopts import Group, Parameter

from converter.training.options import TRAINING, FitOptions, Number, Whole

Mode = Literal["stats", "all", "none"]

TRANSFER = Parameter(group=Group("How it is transferred", sort_key=2))


@Parameter(name="*")
@dataclass(frozen=True)
class Transfer(FitOptions):
    """How to learn the new task.

    Attributes:
        freeze_bn: stats: the statistics of the batch-norms stand still; all: their gamma and beta
            as well; none: they follow the new batches. The batch-norm of the new head always
            learns.
        hidden: the new head is dense, batch-norm, ReLU, dense with N features; 0: a single dense
            layer.
        head_at: the dense layer that it replaces (default: the one that gives the logits).
        only_head: the weights before the head stand still as well.
    """

    epochs: Annotated[Whole, TRAINING] = 3
    batch_size: Annotated[Whole, TRAINING] = 32
    lr: Annotated[Number, TRAINING] = 0.001
    device: Annotated[str, TRAINING, Parameter(metavar="DEVICE")] = "auto"
    freeze_bn: Annotated[Mode, TRANSFER] = "stats"
    hidden: Annotated[Whole, TRANSFER] = 64
    head_at: Annotated[str | None, TRANSFER, Parameter(metavar="NAME")] = None
    only_head: Annotated[bool, TRANSFER] = False
