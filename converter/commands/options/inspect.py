"""The options of `inspect`."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from converter.commands.options.shared import Choice, Reading, Reports


@dataclass(frozen=True)
class Inspect:
    """Show what fold would do.

    Attributes:
        file: the trained model; a folder of Hugging Face's.
        explain: the way of these batch-norms step by step (layer1.*); may be repeated.
    """

    file: Annotated[Path, Parameter(name="FILE")]
    _: KW_ONLY
    explain: Annotated[tuple[str, ...], Parameter(metavar="NAME")] = ()
    choice: Choice = field(default_factory=Choice)
    reports: Reports = field(default_factory=Reports)
    reading: Reading = field(default_factory=Reading)
