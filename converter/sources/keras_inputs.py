"""What a Keras model takes: the name, shape and type of each input, as its file states them."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from converter.errors import UserError
from converter.sources.loaded import InputShape


@dataclass(frozen=True)
class Spec:
    """An input without its batch axis; None is a size that the file leaves open."""

    name: str
    sizes: tuple[int | None, ...] | None
    dtype: str = "float32"

    def __str__(self) -> str:
        return (
            "(" + ", ".join("any" if size is None else str(size) for size in self.sizes or ()) + ")"
        )


def specs(model: Any, config: dict[str, Any], path: Path) -> tuple[list[Spec], Any]:
    """The inputs in Keras' order, and the structure that the model takes them in.

    Raises:
        UserError: when an input is not a dense tensor of numbers with a batch axis.
    """
    tensors = list(getattr(model, "inputs", None) or ())
    if not tensors:  # a user-defined class: only call() and the shape that it was built with tell
        return _of_call(model, config), None
    structure = getattr(model, "_inputs_struct", None)
    if structure is None:
        structure = getattr(getattr(model, "_functional", None), "_inputs_struct", tensors)
    found = []
    for tensor in tensors:
        name = str(getattr(tensor._keras_history.operation, "name", tensor.name))
        kinds = {"ragged": getattr(tensor, "ragged", False), "sparse": tensor.sparse}
        kinds["text"] = tensor.dtype == "string"
        if said := [kind for kind, is_so in kinds.items() if is_so]:
            raise UserError(
                f"{path}: the input {name!r} is {said[0]}, which ONNX has no tensors of",
                "save the part of the model that takes dense tensors of numbers",
            )
        if not tensor.shape or tensor.shape[0] is not None:
            raise UserError(
                f"{path}: the input {name!r} has the fixed batch size {tuple(tensor.shape)[:1]}",
                "build the model without batch_size (and stateful=True) and set its weights",
            )
        found.append(Spec(name, tuple(tensor.shape[1:]), str(tensor.dtype)))
    return found, structure if len(found) > 1 else tensors[0]


def _of_call(model: Any, config: dict[str, Any]) -> list[Spec]:
    parameters = inspect.signature(model.call).parameters.values()
    names = [
        p.name
        for p in parameters
        if p.default is p.empty and p.kind in {p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD}
    ]
    build = config.get("build_config")
    shape = build.get("input_shape") if isinstance(build, dict) else None
    known = (
        isinstance(shape, list)
        and len(shape) > 0
        and all(size is None or isinstance(size, int) for size in shape)
    )
    sizes = tuple(shape[1:]) if known and len(names) == 1 and shape is not None else None
    return [Spec(name, sizes) for name in names]


# Names of the axes between batch and channels, by how many of them the file leaves open.
_AXES: dict[int, tuple[str, ...]] = {
    1: ("length",),
    2: ("height", "width"),
    3: ("depth", "height", "width"),
}


def shapes(found: Sequence[Spec], given: Sequence[InputShape]) -> list[InputShape]:
    """A shape for each input, in order.

    What the file leaves open stays open: a size that the user gives is the example's, and one that
    nobody gives is 0, to be found.

    Raises:
        UserError: when `given` names other inputs or contradicts the file, or when the file does
            not even say how many axes an input has.
    """
    names = ", ".join(spec.name for spec in found)
    by_name = {shape.name or found[0].name: shape for shape in given}
    if len(by_name) < len(given) or (len(found) > 1 and any(not s.name for s in given)):
        raise UserError(
            "every --input-shape needs its own name when there are several",
            f"the model's inputs are: {names}",
        )
    if unknown := [name for name in by_name if name not in {spec.name for spec in found}]:
        raise UserError(
            f"--input-shape names {', '.join(unknown)}, but there is no such input",
            f"the model's inputs are: {names}",
        )
    missing = [s for s in found if s.sizes is None and s.name not in by_name]
    if missing:
        raise UserError(
            "the file does not tell the sizes of " + ", ".join(s.name for s in missing),
            "say the shape of each, without the batch axis, channels last: "
            + " ".join(f"--input-shape {spec.name}=224,224,3" for spec in missing),
        )
    return [_shape(spec, by_name.get(spec.name), len(found) > 1) for spec in found]


def _shape(spec: Spec, said: InputShape | None, several: bool) -> InputShape:
    if said is not None:
        _check(spec, said)
    dtype = (said and said.dtype) or spec.dtype
    if spec.sizes is None:
        assert said is not None
        return InputShape(said.sizes, spec.name, dtype, said.axes)
    count = spec.sizes.count(None)
    usual = iter(_AXES.get(count, tuple(f"axis_{place}" for place in range(1, count + 1))))
    axes = [
        "" if size is not None else f"{spec.name}_{next(usual)}" if several else next(usual)
        for size in spec.sizes
    ]
    if said is not None and said.axes:
        axes = [
            own if own not in {"", "?"} else axis for own, axis in zip(said.axes, axes, strict=True)
        ]
    sizes = said.sizes if said is not None else tuple(size or 0 for size in spec.sizes)
    sizes = tuple(want or size for want, size in zip(spec.sizes, sizes, strict=True))
    return InputShape(sizes, spec.name, dtype, tuple(axes) if any(axes) else ())


def _check(spec: Spec, said: InputShape) -> None:
    if spec.sizes is not None and (
        len(said.sizes) != len(spec.sizes)
        or any(
            b is not None and a not in (0, b) for a, b in zip(said.sizes, spec.sizes, strict=True)
        )
    ):
        raise UserError(
            f"--input-shape {','.join(map(str, said.sizes))} does not fit the input "
            f"{spec.name!r}, which the file says to be {spec} without the batch axis",
            "Keras models mostly have their channels last: 224,224,3",
        )


def layers_of(model: Any) -> list[Any]:
    """The model and every layer in it, each once."""
    found: dict[int, Any] = {}
    waiting = [model]
    while waiting:
        layer = waiting.pop()
        if id(layer) not in found:
            found[id(layer)] = layer
            waiting.extend(part for part in getattr(layer, "_layers", ()) if hasattr(part, "call"))
    return list(found.values())
