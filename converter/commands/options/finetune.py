"""The options of `finetune`."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import Annotated

from cyclopts import Group, Parameter

from converter.commands.options.shared import File, Pairs
from converter.finetuning.options import Transfer
from converter.training.options import NETWORK, WRITTEN, DataOptions

_TASK = Parameter(group=Group("The new task", sort_key=3))


@dataclass(frozen=True)
class Finetune:
    """Learn a new task from a trained network, batch-norms frozen.

    Attributes:
        file: a checkpoint of train or finetune, or with --arch a file of its weights; without
            FILE, --arch has random weights.
        arch: timm:NAME, torchvision:NAME, or an architecture of train.
        arch_arg: an argument of the architecture (in_chans=1); may be repeated.
        weights: which weights of a file with several sets, as for fold.
        classes: only these classes of the data.
        samples: only N training samples.
        output: the checkpoint to write.
        json: write the report as JSON.
    """

    file: Annotated[Path | None, Parameter(name="FILE")] = None
    _: KW_ONLY
    arch: Annotated[str | None, NETWORK, Parameter(metavar="ARCH")] = None
    arch_arg: Annotated[Pairs, NETWORK] = ()
    weights: Annotated[str | None, NETWORK, Parameter(metavar="KEY")] = None
    transfer: Transfer = field(default_factory=Transfer)
    data: DataOptions = field(default_factory=DataOptions)
    classes: Annotated[str | None, _TASK, Parameter(metavar="A,B,..")] = None
    samples: Annotated[int | None, _TASK, Parameter(metavar="N")] = None
    output: Annotated[File, WRITTEN] = Path("finetuned.pt")
    json: Annotated[File | None, WRITTEN] = None
