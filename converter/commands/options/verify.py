"""The options of `verify`."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from converter.commands.options.shared import File, Proving, Sizes


@dataclass(frozen=True)
class Verify:
    """Prove that two ONNX files compute the same.

    Attributes:
        original: the ONNX file that is the reference.
        candidate: the ONNX file that should equal it.
        certify: look at the graphs as well, whether B computes what A computes for every input;
            --certify=only: do not measure.
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
    json: File | None = None
