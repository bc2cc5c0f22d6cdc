"""The options of `train`: those of a training, and how two of them are said on a command line."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Annotated

from cyclopts import Parameter

from converter.architectures.style import STYLE
from converter.commands.options.shared import File
from converter.training.options import ARCH_ARG, NETWORK, WRITTEN, TrainOptions, arch_args


@dataclass(frozen=True, kw_only=True)
class Train:
    """Train a network, by default the one that ships.

    Attributes:
        no_affine: the norms learn nothing: gamma = 1, beta = 0.
        json: also write the result, with every epoch, here.
    """

    training: TrainOptions = field(default_factory=TrainOptions)
    arch_arg: Annotated[
        tuple[str, ...], NETWORK, Parameter(metavar="NAME=NUMBER", help=ARCH_ARG)
    ] = ()
    no_affine: Annotated[bool, STYLE] = False
    json: Annotated[File | None, WRITTEN] = None

    def options(self) -> TrainOptions:
        """What is asked of the training. Raises UserError."""
        options = replace(self.training, arch_args=arch_args(self.arch_arg))
        if self.no_affine:
            return replace(options, style=replace(options.style, scale=False, center=False))
        return options
