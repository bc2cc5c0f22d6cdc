"""The options of `fold`."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from converter.commands.options.shared import Choice, File, Proving, Reading, Reports


@dataclass(frozen=True)
class Fold:
    """Fold the batch-norms of a model and prove it.

    Attributes:
        file: the trained model; a folder of Hugging Face's.
        output: the folded model; default: FILE.folded.onnx.
        publish: write models/NAME/<next version>/; also s3://bucket/models/NAME and the like.
        if_changed: with --publish: no new version if the newest is this very model.
        sign: with --publish: sign the version with this private key (PEM, elliptic curve).
        sign_chain: with --sign: certificates of the key, the signing one first.
        labels: a classifier's labels, one a line.
    """

    file: Annotated[Path, Parameter(name="FILE")]
    _: KW_ONLY
    output: Annotated[File | None, Parameter(alias="-o")] = None
    publish: Annotated[str | None, Parameter(metavar="models/NAME")] = None
    if_changed: bool = False
    sign: File | None = None
    sign_chain: File | None = None
    labels: File | None = None
    choice: Choice = field(default_factory=Choice)
    proving: Proving = field(default_factory=Proving)
    reports: Reports = field(default_factory=Reports)
    reading: Reading = field(default_factory=Reading)
