"""The options of `recalibrate`."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from converter.commands.options.shared import Count, File, Reading, Seed
from converter.statistics.modes import Mode


@dataclass(frozen=True)
class Recalibrate:
    """Replace moving averages by the statistics of a data set.

    Attributes:
        file: the trained model; a folder of Hugging Face's.
        data: the population: a folder with MNIST's files or with images by class, an .npz (x, y),
            or an .npy of inputs; best the training data, without augmentation.
        mode: layerwise: exact, each norm behind norms that are done, a pass for each; onepass:
            batches normalise themselves, one pass.
        output: the new model; default: FILE.recalibrated.pt, beside it.
        dry_run: show the drift, and write no model.
        limit: take N samples, drawn at random.
        seed: of --limit.
        batch_size: samples at a time.
        mean: of pictures in [0, 1], a number or one a channel.
        std: likewise; pictures become (x - M) / S.
        device: cpu, cuda or cuda:N.
        json: write the report as JSON.
    """

    file: Annotated[Path, Parameter(name="FILE")]
    _: KW_ONLY
    data: Annotated[Path, Parameter(metavar="DATA")]
    mode: Mode = "layerwise"
    output: File | None = None
    dry_run: bool = False
    limit: Count | None = None
    seed: Seed = 0
    batch_size: Count = 250
    mean: Annotated[str | None, Parameter(metavar="M,M,..")] = None
    std: Annotated[str | None, Parameter(metavar="S,S,..")] = None
    device: Annotated[str, Parameter(metavar="DEVICE")] = "cpu"
    json: File | None = None
    reading: Reading = field(default_factory=Reading)
