"""The options of `python -m experiments`: a grid of settings, or claims; the data, the results.

The grid's options are the fields of `Settings`: their names, their help and their types.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from cyclopts import Group, Parameter, Token
from cyclopts.validators import Number

from experiments.claims import CLAIMS
from experiments.settings import Settings

# The fields of `Settings` that take several values, and those that take one.
AXES = (
    "arch", "norm", "activation", "bn_position", "optimizer", "lr", "batch_size", "momentum",
    "dropout", "init_scale",
)  # fmt: skip
COMMON = ("epochs", "images", "evaluations")
# What a grid has when nothing is said: the question that the command is for.
DEFAULT_AXES: Mapping[str, tuple[Any, ...]] = {"norm": ("none", "batch")}
DEFAULT_SEEDS = 3

_GRID = Group(
    "The grid",
    help="Several values are separated by commas; every combination is trained.",
    sort_key=1,
)
_Jobs = Annotated[int, Parameter(validator=Number(gte=1, lte=1024), metavar="N")]


def _values(kind: type) -> Callable[[Any, Sequence[Token]], tuple[Any, ...]]:
    """A converter: "0.1,1" -> (0.1, 1.0)."""

    def values(_: Any, tokens: Sequence[Token]) -> tuple[Any, ...]:
        return tuple(kind(part.strip()) for part in tokens[-1].value.split(","))

    return values


def _several(name: str) -> Parameter:
    default = getattr(Settings, name)
    choices = get_args(_HINTS[name]) if get_origin(_HINTS[name]) is Literal else ()
    shown = ",".join(str(value) for value in DEFAULT_AXES.get(name, (default,)))
    return Parameter(
        metavar="A,B",
        converter=_values(type(default)),
        n_tokens=1,
        show_default=f"{shown}; of {', '.join(choices)}" if choices else shown,
    )


def _one(name: str) -> Parameter:
    return Parameter(metavar="N", show_default=str(getattr(Settings, name)))


_HINTS = get_type_hints(Settings)


@Parameter(name="*", group=_GRID)
@dataclass(frozen=True)
class Grid:
    """The fields of `Settings`, several values of most; None where nothing is said."""

    arch: Annotated[tuple[str, ...] | None, _several("arch")] = None
    norm: Annotated[tuple[str, ...] | None, _several("norm")] = None
    activation: Annotated[tuple[str, ...] | None, _several("activation")] = None
    bn_position: Annotated[tuple[str, ...] | None, _several("bn_position")] = None
    optimizer: Annotated[tuple[str, ...] | None, _several("optimizer")] = None
    lr: Annotated[tuple[float, ...] | None, _several("lr")] = None
    batch_size: Annotated[tuple[int, ...] | None, _several("batch_size")] = None
    momentum: Annotated[tuple[float, ...] | None, _several("momentum")] = None
    dropout: Annotated[tuple[float, ...] | None, _several("dropout")] = None
    init_scale: Annotated[tuple[float, ...] | None, _several("init_scale")] = None
    epochs: Annotated[int | None, _one("epochs")] = None
    images: Annotated[int | None, _one("images")] = None
    evaluations: Annotated[int | None, _one("evaluations")] = None
    recalibrate: bool = False
    seeds: Annotated[
        int | None,
        Parameter(metavar="N", help="repetitions.", show_default=str(DEFAULT_SEEDS)),
    ] = None


Grid.__doc__ = Settings.__doc__  # the help of each option


@dataclass(frozen=True, kw_only=True)
class Experiments:
    """Train with and without batch-norm, and report what was measured.

    Attributes:
        dataset: mnist, fashion-mnist, an .npz file, or a folder of pictures.
        data_dir: where the files of a named data set are; without it they are downloaded once.
        output: report.html, report.md, its figures, and runs/, from which a comparison that was
            stopped goes on.
        report_only: train nothing; write the report of the runs that are finished.
        jobs: runs at once.
        threads: of each run.
        device: auto, cpu, cuda or cuda:N.
    """

    grid: Grid = field(default_factory=Grid)
    claims: Annotated[
        tuple[str, ...] | None,
        Parameter(
            consume_multiple=True,
            metavar="[NAME ..]",
            help="instead of a grid, test claims of papers and tutorials; all, or: "
            + ", ".join(claim.name for claim in CLAIMS),
        ),
    ] = None
    dataset: Annotated[str, Parameter(metavar="WHICH")] = "mnist"
    data_dir: Annotated[Path | None, Parameter(metavar="FOLDER")] = None
    output: Annotated[Path, Parameter(metavar="FOLDER")] = Path("comparison")
    report_only: bool = False
    jobs: _Jobs = 1
    threads: _Jobs = 1
    device: Annotated[str, Parameter(metavar="DEVICE")] = "cpu"
