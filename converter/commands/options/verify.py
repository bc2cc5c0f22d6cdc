"""The options of `verify`."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter
from cyclopts.validators import Number

from converter.commands.options.shared import File, Proving, Sizes


@dataclass(frozen=True)
class Verify:
    """Prove that two ONNX files compute the same.

    Attributes:
        original: the ONNX file that is the reference.
        candidate: the ONNX file that should equal it.
        certify: look at the graphs as well, whether B computes what A computes for every input;
            --certify=only: do not measure.
        roundings: certify weights of B that were moved by up to so many roundings (default: 3);
            tools that compute a fold in float32 need more.
        json: write the proof as JSON.
    """

    original: Annotated[Path, Parameter(name="A")]
    candidate: Annotated[Path, Parameter(name="B")]
    _: KW_ONLY
    proving: Proving = field(default_factory=Proving)
    sizes: Sizes = field(default_factory=Sizes)
    certify: Annotated[bool | Literal["only"], Parameter(metavar="[=only]", show_choices=False)] = (
        False
    )
    roundings: Annotated[float | None, Parameter(validator=Number(gte=1, lte=64), metavar="K")] = (
        None
    )
    json: File | None = None
