"""A number for every axis of an .onnx model that may vary, for examples of its inputs.

In this order: what the user said, 1 for the batch, and else the usual sizes, tried one after the
other in onnxruntime until the model runs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from converter.errors import UserError
from converter.sources import inputs
from converter.sources.loaded import Input, InputShape
from converter.sources.wording import words

# Rank of the widest input with an unknown axis -> sizes to try for all unknown axes.
CANDIDATES = {
    4: (224, 32, 64, 28, 128, 256, 299, 384, 512, 640),
    5: (16, 32, 64, 112, 8),
}
SEQUENCES = (16, 128, 64, 32, 256, 512, 1, 1024, 4000, 16000)


def numbers(
    model: ir.Model,
    path: Path,
    given: Sequence[InputShape],
    notes: list[str],
    values: Mapping[str, float] | None = None,
) -> dict[str, int]:
    """The size of each named axis.

    Raises:
        UserError: when `given` contradicts the graph, or nothing is given and no size is found.
    """
    described = inputs.describe(model)
    known = from_user(described, given)
    batches = {str(i.shape[0]) for i in described if i.shape and isinstance(i.shape[0], str)}
    known |= {name: 1 for name in batches if name not in known}
    unknown = [
        axis for i in described for axis in i.shape if isinstance(axis, str) and axis not in known
    ]
    if not unknown:
        return known
    session = _session(path)
    for size in _candidates(described, known):
        attempt = known | dict.fromkeys(unknown, size)
        if session and _runs(session, inputs.describe(model, attempt, values)):
            words = ", ".join(f"{axis} = {size}" for axis in dict.fromkeys(unknown))
            notes.append(
                f"sizes taken for examples of the input: {words}; --input-shape overrides it"
            )
            return attempt
    first = next(i for i in described if set(i.shape) & set(unknown))
    usual = CANDIDATES.get(len(first.shape), SEQUENCES)[0]
    sample = ",".join(str(axis if isinstance(axis, int) else usual) for axis in first.shape[1:])
    raise UserError(
        f"input {first.name!r} has axes of unknown size: ({', '.join(map(str, first.shape))})",
        f"say the shape of one sample, without the batch axis: --input-shape {first.name}={sample}",
    )


def from_user(described: Sequence[Input], given: Sequence[InputShape]) -> dict[str, int]:
    """The named axes whose size the user's shapes tell.

    Raises:
        UserError: when a name is unknown or missing, or a shape contradicts the graph.
    """
    by_name = {i.name: i for i in described}
    found: dict[str, int] = {}
    for shape in given:
        if shape.name is None and len(described) > 1:
            raise UserError(
                "--input-shape needs a name, as the model has several inputs",
                f"they are: {', '.join(by_name)}",
            )
        target = by_name.get(shape.name or described[0].name)
        if target is None:
            raise UserError(
                f"--input-shape names {shape.name}, which is no input of the model",
                f"the model's inputs are: {', '.join(by_name)}",
            )
        axes = target.shape[1:] if shape.batched else target.shape
        if len(shape.sizes) != len(axes):
            raise _contradiction(target, shape)
        for axis, size in zip(axes, shape.sizes, strict=True):
            if size == 0 and isinstance(axis, str):
                continue  # stays open, and a size for examples is found
            if (found.get(axis, size) if isinstance(axis, str) else axis) != size:
                raise _contradiction(target, shape)
            if isinstance(axis, str):
                found[axis] = size
    return found


def fills(model: ir.Model, values: Mapping[str, object]) -> dict[str, float]:
    """What examples of an input are filled with. Raises UserError for what is no input."""
    names = [str(value.name) for value in inputs.required_inputs(model)]
    found = {}
    for name, value in values.items():
        if name not in names:
            raise UserError(
                f"--input-value names {name}, which is no input of the model",
                f"the model's inputs are: {', '.join(names)}",
            )
        if not isinstance(value, int | float):
            raise UserError(
                f"--input-value {name}={value} is no number, which the input {name} is made of"
            )
        found[name] = value
    return found


def _contradiction(target: Input, shape: InputShape) -> UserError:
    said = words(shape)
    return UserError(
        f"--input-shape {said} does not fit input {target.name!r} of shape "
        f"({', '.join(map(str, target.shape))})",
        "give the sizes without the batch axis, and only change axes that have a name",
    )


def _candidates(described: Sequence[Input], known: dict[str, int]) -> Iterator[int]:
    ranks = [
        len(i.shape)
        for i in described
        if any(isinstance(axis, str) and axis not in known for axis in i.shape)
    ]
    yield from CANDIDATES.get(max(ranks), SEQUENCES)


def _session(path: Path) -> Any:
    """The model as it is in onnxruntime; None when onnxruntime cannot run it at all."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    providers = ["CPUExecutionProvider"]
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=providers)
    except Exception:  # noqa: BLE001  onnxruntime raises classes that it does not export
        return None


def _runs(session: Any, described: Sequence[Input]) -> bool:
    """Whether the model runs with zeros of these shapes, or with the values that were said."""
    try:
        session.run(
            None, {i.name: np.full(i.example, i.value or 0, np.dtype(i.dtype)) for i in described}
        )
    except Exception:  # noqa: BLE001
        return False
    return True
