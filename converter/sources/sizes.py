"""A size for every axis of an .onnx model that may vary, for examples of its inputs.

In this order: what the user gave, what the user's data has, 1 for the batch, and else the usual
sizes, tried one after the other in onnxruntime until the model runs.
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


# How many of the numbers that integer scalars are compared with are tried as inputs.
_MOST = 4


def numbers(
    model: ir.Model,
    path: Path,
    given: Sequence[InputShape],
    notes: list[str],
    values: Mapping[str, float] | None = None,
    data: Mapping[str, Sequence[int]] | None = None,
) -> dict[str, int]:
    """The size of each named axis.

    Args:
        data: the shapes of the user's data, by the inputs' names.

    Raises:
        UserError: when `given` contradicts the graph, or nothing is given and no size is found.
    """
    described = inputs.describe(model)
    known = from_user(described, given)
    seen = from_data(described, known, data or {})
    if seen:
        notes.append(f"sizes of examples as in the data: {_listed(seen)}")
    known |= seen
    known |= {name: 1 for name in _batches(described) if name not in known}
    unknown = [
        axis for i in described for axis in i.shape if isinstance(axis, str) and axis not in known
    ]
    if not unknown:
        return known
    session = _session(path)
    fills = [dict(values or {}) | more for more in _scalars(model, described, values or {})]
    best: dict[str, int] = {}
    most = 0
    for sizes in _candidates(described, known) if session else ():
        runs = sum(_runs(session, inputs.describe(model, known | sizes, f)) for f in fills)
        if runs > most:
            best, most = sizes, runs
        if most == len(fills):
            break
    if best:
        notes.append(
            f"sizes taken for examples of the input: {_listed(best)}; --input-shape overrides it"
        )
        return known | best
    first = next(i for i in described if set(i.shape) & set(unknown))
    example = " ".join(_option(i) for i in described if set(i.shape) & set(unknown))
    whole = "(" in example
    raise UserError(
        f"input {first.name!r} has axes of unknown size: ({', '.join(map(str, first.shape))})",
        "say the shape of one sample, without the batch axis"
        + (", or in parentheses the whole shape" if whole else "")
        + f": {example}; fold and verify also take sizes from --data FILE.npz",
    )


def from_data(
    described: Sequence[Input], known: Mapping[str, int], data: Mapping[str, Sequence[int]]
) -> dict[str, int]:
    """The sizes that the user's data has for axes that are not known yet.

    The batch of the data is only taken where it cannot vary by itself because other axes must
    agree with it: a state (2, batch, 128). Data that does not fit is refused when it is read.
    """
    fixed = any(not i.shape or isinstance(i.shape[0], int) for i in described)
    skipped = set() if fixed and len(described) > 1 else _batches(described)
    found: dict[str, int] = {}
    for i in described:
        shape = data.get(i.name) or (data.get("") if len(described) == 1 else None) or ()
        if len(shape) != len(i.shape):
            continue
        for axis, size in zip(i.shape, shape, strict=True):
            if isinstance(axis, str) and size > 0 and axis not in known and axis not in skipped:
                found.setdefault(axis, size)
    return found


def _batches(described: Sequence[Input]) -> set[str]:
    return {str(i.shape[0]) for i in described if i.shape and isinstance(i.shape[0], str)}


def _listed(sizes: Mapping[str, int]) -> str:
    return ", ".join(f"{axis} = {size}" for axis, size in sizes.items())


def _option(target: Input) -> str:
    """The option for an input with open axes; the whole shape where there is no batch in front."""
    usual = CANDIDATES.get(len(target.shape), SEQUENCES)[0]
    if isinstance(target.shape[0], str):
        sample = ",".join(str(a if isinstance(a, int) else usual) for a in target.shape[1:])
        return f"--input-shape {target.name}={sample}"
    whole = ",".join(str(a if isinstance(a, int) else 1) for a in target.shape)
    return f"--input-shape '{target.name}=({whole})'"


def _scalars(
    model: ir.Model, described: Sequence[Input], said: Mapping[str, float]
) -> Iterator[dict[str, float]]:
    """Values to try for integer scalars that nobody gave: 0, or a number the graph compares with.

    With a sampling rate of 0, for instance, the example takes the graph's last `else`.
    """
    yield {}
    scalars = [
        i.name
        for i in described
        if not i.shape and np.dtype(i.dtype).kind in "iu" and i.name not in said
    ]
    if not scalars:
        return
    met: dict[int, None] = {}
    for node in model.graph.all_nodes():
        if node.op_type in {"Equal", "Less", "Greater", "LessOrEqual", "GreaterOrEqual"}:
            for value in node.inputs:
                constant = ir.convenience.get_const_tensor(value) if value is not None else None
                if constant is not None and constant.size == 1 and constant.dtype.is_integer():
                    met[int(constant.numpy().item())] = None
    for number in [number for number in met if number > 0][:_MOST]:
        yield dict.fromkeys(scalars, number)


def from_user(described: Sequence[Input], given: Sequence[InputShape]) -> dict[str, int]:
    """The sizes of the named axes that the user's shapes give.

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
                f"--input-shape names {shape.name}, which is not an input of the model",
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
    """What examples of each input are filled with. Raises UserError for a name of no input."""
    names = [str(value.name) for value in inputs.required_inputs(model)]
    found = {}
    for name, value in values.items():
        if name not in names:
            raise UserError(
                f"--input-value names {name}, which is not an input of the model",
                f"the model's inputs are: {', '.join(names)}",
            )
        if not isinstance(value, int | float):
            raise UserError(
                f"--input-value {name}={value} is not a number, which the input {name} is made of"
            )
        found[name] = value
    return found


def _contradiction(target: Input, shape: InputShape) -> UserError:
    said = words(shape)
    if shape.batched and target.shape and isinstance(target.shape[0], int):
        hint = f"its first axis is not a batch, so say the whole shape: {_option(target)}"
    else:
        hint = "give the sizes without the batch axis, and only change axes that have a name"
    return UserError(
        f"--input-shape {said} does not fit input {target.name!r} of shape "
        f"({', '.join(map(str, target.shape))})",
        hint,
    )


def _candidates(described: Sequence[Input], known: Mapping[str, int]) -> Iterator[dict[str, int]]:
    """Sizes for the unknown axes: the same for all, except for an axis that may be the batch."""
    opened = {
        i.name: [a for a in i.shape if isinstance(a, str) and a not in known] for i in described
    }
    unknown = list(dict.fromkeys(axis for axes in opened.values() for axis in axes))
    # Behind a fixed first axis there may be a batch: the state of a recurrent layer.
    inner = {
        a for i in described if i.shape and isinstance(i.shape[0], int) for a in opened[i.name]
    }
    batch = next((known[name] for name in _batches(described)), 1)
    ranks = [len(i.shape) for i in described if opened[i.name]]
    for size in CANDIDATES.get(max(ranks), SEQUENCES):
        yield dict.fromkeys(unknown, size)
        if inner:
            yield {axis: batch if axis in inner else size for axis in unknown}


def _session(path: Path) -> Any:
    """A session of the unchanged model; None when onnxruntime cannot load it."""
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
    """Whether the model runs with zeros of these shapes, or with the values that were given."""
    try:
        session.run(
            None, {i.name: np.full(i.example, i.value or 0, np.dtype(i.dtype)) for i in described}
        )
    except Exception:  # noqa: BLE001
        return False
    return True
