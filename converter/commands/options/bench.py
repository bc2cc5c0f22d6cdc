"""The options of `bench`."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from converter.commands.options.shared import Count, File, Sizes


@dataclass(frozen=True)
class Bench:
    """Measure how two ONNX files compare in speed.

    Attributes:
        a: the first ONNX file.
        b: the second, with the same inputs.
        batch: samples in a run; may be repeated (default: 1 and 8).
        rounds: pairs of runs that count.
        threads: of each run; 0: as onnxruntime likes.
        json: write the times as JSON.
    """

    a: Annotated[Path, Parameter(name="A")]
    b: Annotated[Path, Parameter(name="B")]
    _: KW_ONLY
    batch: Annotated[tuple[Count, ...], Parameter(metavar="N")] = ()
    rounds: Annotated[int, Parameter(validator=Number(gte=2), metavar="N")] = 30
    threads: Annotated[int, Parameter(validator=Number(gte=0), metavar="N")] = 0
    sizes: Sizes = field(default_factory=Sizes)
    json: File | None = None
