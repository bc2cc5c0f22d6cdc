"""A call of `forward`: which tensors go where among its parameters, lists and dicts.

`xs.0` (or `xs[0]`) is the first element of the list that the parameter `xs` takes, `batch.image`
the entry "image" of the dict `batch`; they nest. In the graph they are called xs_0, batch_image.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from converter.errors import UserError
from converter.sources.loaded import InputShape

BATCH = 2
# Batch sizes for code that takes one sample only, or groups its rows by four, eight or three.
BATCHES = (BATCH, 1, 4, 8, 3, 16)
Path = tuple[str | int, ...]


def path_of(name: str) -> Path:
    """`batch.boxes[1]` -> ("batch", "boxes", 1)."""
    parts = [part for part in re.split(r"[.\[\]]+", name) if part]
    return tuple(
        int(part) if part.isdigit() and place else part for place, part in enumerate(parts)
    )


def name_of(path: Path) -> str:
    """The name in the graph: ("batch", "boxes", 1) -> "batch_boxes_1"."""
    return "_".join(map(str, path))


@dataclass(frozen=True)
class Call:
    """A call of `forward` that works, and what it returned.

    Attributes:
        names: the inputs' names in the graph.
        shapes: the shape and type of each input, without the batch axis.
        every: all of forward's parameters, in order.
        star: the name of forward's `*xs` parameter, when it has no other.
        batch: the size of the example's batch axis: the first of `BATCHES` that works.
        output: what `forward` returned for the example.
        notes: what was assumed.
        paths: where each input goes; () when each is the parameter of the same name.
        constants: values that are not tensors, and where they go.
        keywords: parameters that can only be passed by name.
        rest: the name of forward's `*xs` parameter, when it has others before it.
        sequence: what lists of tensors are made as: `list`, or `tuple` where forward wants that.
    """

    names: tuple[str, ...]
    shapes: tuple[InputShape, ...]
    every: tuple[str, ...] = ()
    star: str = ""
    batch: int = BATCH
    output: Any = None
    notes: list[str] = field(default_factory=list)
    paths: tuple[Path, ...] = ()
    constants: tuple[tuple[Path, Any], ...] = ()
    keywords: frozenset[str] = frozenset()
    rest: str = ""
    sequence: type = list

    @property
    def is_plain(self) -> bool:
        """Whether every argument is a tensor of a known parameter: exporters take it as it is."""
        return (
            not self.constants
            and all(len(path) == 1 for path in self.paths)
            and (bool(self.star) or set(self.names) <= set(self.every))
        )

    @property
    def has_open_axes(self) -> bool:
        return any(any(shape.axes) for shape in self.shapes)

    def fills(self) -> dict[str, float]:
        """The value that examples of an input are filled with, where the user gives one."""
        pairs = zip(self.names, self.shapes, strict=True)
        return {name: shape.fill for name, shape in pairs if shape.fill is not None}

    def resized(self, change: Callable[[int], int]) -> Call:
        """The same call with other sizes of the axes that may vary, except the batch."""
        shapes = tuple(
            replace(
                s,
                sizes=tuple(
                    max(change(n), 1) if axis else n
                    for n, axis in zip(s.sizes, s.axes or ("",) * len(s.sizes), strict=True)
                ),
            )
            for s in self.shapes
        )
        return replace(self, shapes=shapes)

    def tensors(self, seed: int = 0) -> list[Tensor]:
        return [example(shape, self.batch, seed) for shape in self.shapes]

    def arguments(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The example as `module(*args, **kwargs)` takes it."""
        return self.filled(self.tensors())

    def filled(self, tensors: Sequence[Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Positional where they are forward's first parameters, else by name."""
        if self.star and self.is_plain:
            return tuple(tensors), {}
        paths = self.paths or tuple((name,) for name in self.names)
        top: dict[str | int, Any] = {}
        for path, value in (*zip(paths, tensors, strict=True), *self.constants):
            _put(top, path, value)
        given = {str(key): _packed(value, self.sequence) for key, value in top.items()}
        rest = given.pop(self.rest, ()) if self.rest else ()
        first = []
        for name in self.every:
            if name not in given or name in self.keywords:
                break
            first.append(given.pop(name))
        return (*first, *rest), given


class _Branch(dict[str | int, Any]):
    """A list or a dict that is being built, as opposed to a dict that the user gave as a value."""


def _put(top: dict[str | int, Any], path: Path, value: Any) -> None:
    for step in path[:-1]:
        inner = top.setdefault(step, _Branch())
        if not isinstance(inner, _Branch):
            raise UserError(f"{name_of(path)} is given both as a list or dict and as a value")
        top = inner
    if path[-1] in top:
        raise UserError(f"{'.'.join(map(str, path))} is given twice, or as two things")
    top[path[-1]] = value


def _packed(value: Any, sequence: type) -> Any:
    if not isinstance(value, _Branch):
        return value
    items = {key: _packed(child, sequence) for key, child in value.items()}
    if all(isinstance(key, int) for key in items):
        if sorted(items) != list(range(len(items))):
            raise UserError(
                f"a list has the elements {', '.join(map(str, items))}",
                "number them from 0, without gaps: xs.0, xs.1",
            )
        return sequence(items[index] for index in range(len(items)))
    return items


def example(shape: InputShape, batch: int, seed: int = 0) -> Tensor:
    """Seeded normal numbers, or zeros for whole numbers, which are valid indices everywhere.

    With a seed other than 0, whole numbers are drawn too: 0 or 1, which are mostly valid indices.
    """
    dtype: torch.dtype = getattr(torch, shape.dtype or "float32")
    sizes = (batch, *shape.sizes) if shape.batched else shape.sizes
    if shape.fill is not None:
        return torch.full(sizes, shape.fill, dtype=dtype)
    generator = torch.Generator().manual_seed(seed)
    if not dtype.is_floating_point:
        return torch.randint(0, 2 if seed else 1, sizes, generator=generator).to(dtype)
    return torch.randn(sizes, generator=generator).to(dtype)
