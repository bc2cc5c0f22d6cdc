"""The training curves of a checkpoint: a small file beside it, which publishing reads.

    checkpoint.pt
    checkpoint.pt.curves.json    {"format": ..., "sha256": of checkpoint.pt, "curves": [...]}

The hash ties a record to its weights: a record that an earlier training, or another file of the
same name, has left behind is not published. A curve has at most 200 points. If there are more
steps, each point is the mean of consecutive steps, placed at the last of them:

    b_i = ceil(n*i / m),  i = 0..m;    value_i = mean(v[b_i : b_(i+1)]),  step_i = step[b_(i+1) - 1]
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from service.manifest import MOST_CURVE_POINTS, MOST_CURVES, Curve, Strict

FORMAT: Literal["foldserve.curves/1"] = "foldserve.curves/1"
_LARGEST_BYTES = 1024 * 1024
_DIGITS = 6


class _Record(Strict):
    """The file's content."""

    format: Literal["foldserve.curves/1"]
    sha256: str
    curves: list[Curve] = Field(max_length=MOST_CURVES)


class CurvesUnusable(Exception):
    """The file is there, but its curves cannot be published; the text says why."""


def beside(checkpoint: Path) -> Path:
    """Where the curves of a checkpoint lie."""
    return checkpoint.with_name(f"{checkpoint.name}.curves.json")


def of(drawn: Mapping[str, tuple[Sequence[int], Sequence[float]]]) -> list[Curve]:
    """Curves of recorded numbers over steps, with at most `MOST_CURVE_POINTS` points each.

    Args:
        drawn: for each name the steps, ascending, and as many numbers; without steps, no curve.
    """
    return [_thinned(name, steps, values) for name, (steps, values) in drawn.items() if steps]


def _thinned(name: str, steps: Sequence[int], values: Sequence[float]) -> Curve:
    points = min(len(steps), MOST_CURVE_POINTS)
    bounds = [-(-len(steps) * i // points) for i in range(points + 1)]
    parts = list(itertools.pairwise(bounds))
    means = [sum(values[begin:end]) / (end - begin) for begin, end in parts]
    return Curve(
        name=name,
        steps=[steps[end - 1] for _, end in parts],
        values=[float(f"{mean:.{_DIGITS}g}") for mean in means],
    )


def to_bytes(curves: Sequence[Curve], checkpoint: bytes) -> bytes:
    """The content of the file beside a checkpoint with that content."""
    content: dict[str, Any] = {
        "format": FORMAT,
        "sha256": hashlib.sha256(checkpoint).hexdigest(),
        "curves": [curve.model_dump() for curve in curves],
    }
    return json.dumps(content).encode() + b"\n"


def read(checkpoint: Path) -> list[Curve]:
    """The curves beside a checkpoint; none if there is no such file.

    Raises:
        CurvesUnusable: it cannot be read, is not such a record, or belongs to other weights.
    """
    path = beside(checkpoint)
    if not path.is_file():
        return []
    try:
        if path.stat().st_size > _LARGEST_BYTES:
            raise CurvesUnusable(f"{path.name} is too large to be a record of curves")
        record = _Record.model_validate_json(path.read_bytes())
        with checkpoint.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise CurvesUnusable(
            f"{path.name} is not a record of curves: {where}: {first['msg']}"
        ) from error
    except OSError as error:
        raise CurvesUnusable(f"{path.name} cannot be read: {error.strerror or error}") from error
    if record.sha256 != digest:
        raise CurvesUnusable(f"{path.name} is the record of other weights than {checkpoint.name}")
    return record.curves
