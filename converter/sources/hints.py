"""Hints on how to describe a model's inputs, in the model's own names and sizes."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from converter.sources.calls import Call, example
from converter.sources.infer import FirstLayer
from converter.sources.remembered import outputs_of
from converter.sources.wording import words
from converter.system.quiet import silent

_MOST = 4


def for_parameter(name: str, annotation: str, sizes: str) -> str:
    """The option that says what parameter `name` gets, according to its annotation."""
    text = annotation.replace("typing.", "").replace(" ", "")
    if "Tensor" not in text:
        for kind, value in (("bool", "true"), ("int", "1"), ("float", "1.0"), ("str", "TEXT")):
            if text.removeprefix("Optional[").startswith(kind):
                return f"--input-value {name}={value}"
    if text.lower().startswith(("list[", "tuple[", "sequence[")):
        return f"--input-shape {name}.0={sizes} --input-shape {name}.1={sizes}"
    if text.lower().startswith(("dict[", "mapping[")):
        return f"--input-shape {name}.KEY={sizes}"
    if "None" in text or text.startswith("Optional"):
        return f"--input-value {name}=none"
    return f"--input-shape {name}={sizes}"


def annotations_of(forward: Callable[..., Any]) -> dict[str, str]:
    """Each parameter's annotation as text, "" where there is none."""
    try:
        parameters = inspect.signature(forward).parameters
    except (TypeError, ValueError):
        return {}
    return {
        name: ""
        if p.annotation is p.empty
        else p.annotation
        if isinstance(p.annotation, str)
        else getattr(p.annotation, "__name__", "")
        if isinstance(p.annotation, type) and not hasattr(p.annotation, "__args__")
        else str(p.annotation)
        for name, p in parameters.items()
    }


def sizes_of(layer: FirstLayer | None) -> str:
    """What the first layer takes, as an example; SIZE,SIZE where that is not known."""
    if layer is None or not layer.shapes:
        return "SIZE,SIZE"
    sizes = ",".join(map(str, layer.shapes[0]))
    return f"{sizes}:{layer.dtype}" if layer.dtype else sizes


def for_all(names: Sequence[str], kinds: dict[str, str], layer: FirstLayer | None) -> str:
    """An option for each parameter; the first tensor among them probably meets the first layer."""
    said, first = [], True
    for name in names:
        option = for_parameter(name, kinds.get(name, ""), sizes_of(layer) if first else "SIZE,SIZE")
        first = first and option.startswith("--input-value")
        said.append(option)
    return " ".join(said)


def of_shapes(call: Call, layer: FirstLayer | None, batches: Sequence[int]) -> str:
    """What to do about shapes that a model does not run with, by its own inputs and channels."""
    first = call.shapes[0] if call.shapes else None
    if layer and first and _takes(layer, first.sizes):
        tried = ", ".join(map(str, batches[:-1])) + f" and {batches[-1]}"
        return (
            f"its first layer, {layer.what}, takes that, so it is another size, type or input: "
            f"call the model in Python with these shapes (batches of {tried} were tried)"
        )
    usual = f"--input-shape {first.name if first else ''}={sizes_of(layer)}"
    taken = f" is what its first layer takes, {layer.what}" if layer else ""
    return f"give the right one, without the batch axis: {usual}{taken}"


def _takes(layer: FirstLayer, sizes: Sequence[int]) -> bool:
    """Whether a shape has the layer's channels: first, or last if all shapes that it takes do."""
    ends = {shape[-1:] for shape in layer.shapes}
    place = slice(-1, None) if len(ends) == 1 else slice(0, 1)
    return any(
        len(known) == len(sizes) and known[place] == tuple(sizes[place]) for known in layer.shapes
    )


class _Asked(dict[Any, Any]):
    """Stands in for a dict of tensors, and notes which entries forward looks up."""

    def __init__(self, tensor: torch.Tensor) -> None:
        super().__init__()
        self.tensor = tensor
        self.asked: dict[str, None] = {}

    def __missing__(self, key: Any) -> torch.Tensor:
        self.asked[str(key)] = None
        return self.tensor

    def get(self, key: Any, _: Any = None) -> Any:
        return self[key]


def container(module: nn.Module, call: Call) -> str:
    """For a call that failed: how the model would take a list or a dict, if it does; else ""."""
    if len(call.names) != 1 or call.star or call.paths != ((call.names[0],),):
        return ""
    name, shape = call.names[0], call.shapes[0]
    option = f"--input-shape {name}"
    tensor = example(shape, call.batch)
    for count in range(1, _MOST + 1):
        for sequence in (list, tuple):
            if _runs(module, call, sequence([tensor] * count)):
                elements = " ".join(f"{option}.{i}={words(shape)}" for i in range(count))
                return f"it runs with a list of {count}: {elements}"
    asked = _Asked(tensor)
    _runs(module, call, asked)
    if asked.asked and all(key.isidentifier() for key in asked.asked):
        entries = " ".join(f"{option}.{key}={words(shape)}" for key in asked.asked)
        return f"forward() reads entries of a dict, so say each: {entries}"
    return ""


def _runs(module: nn.Module, call: Call, value: Any) -> bool:
    args, kwargs = replace(call, paths=((call.names[0],),)).filled([value])
    try:
        with silent():
            outputs_of(module, args, kwargs)
    except Exception:  # noqa: BLE001  the user's code
        return False
    return True
