"""The shapes that a graph really gives, from runs: the declared ones may be stale or missing.

    one run on an example, then one for each open axis of the inputs in which it has another size

    size follows that of an open axis of the inputs in every run    the axis has its name
    size differs, and follows none                                  open, with a name of its own
    size is always the same                                         fixed, if that was tested

The outputs are by rows if axis 0 of each has as many rows as the inputs, in all of these runs.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from service.axes import is_symbol
from service.batching.batch import Run
from service.errors import ServiceError
from service.manifest import Dim, TensorSpec
from service.models.runtime import own_name
from service.signature import Tensors

_BUDGET_S = 1.0
_MOST_ELEMENTS = 2**24
_ROWS = ""  # the key of axis 0 of all inputs, if it is open in all of them

Sizes = dict[str, int]  # of the open axes of the inputs, by key


@dataclass(frozen=True, slots=True)
class Seen:
    """`outputs`: as they are. `by_rows`: axis 0 counts the rows of the inputs in every one."""

    outputs: list[TensorSpec]
    by_rows: bool


@dataclass(frozen=True, slots=True)
class _Axes:
    """The open axes of the inputs: those with one key have one size."""

    keys: dict[tuple[str, int], str]  # (input, axis): key
    names: dict[str, str]  # key: what an axis that follows it is called

    @classmethod
    def of(cls, inputs: Sequence[TensorSpec]) -> _Axes:
        rows = bool(inputs) and all(s.shape and isinstance(s.shape[0], str) for s in inputs)
        counted = {str(s.shape[0]) for s in inputs} if rows else set()
        keys: dict[tuple[str, int], str] = {}
        names: dict[str, str] = {}
        for spec in inputs:
            for axis, dim in enumerate(spec.shape):
                if not isinstance(dim, str):
                    continue
                symbol = is_symbol(dim)
                if rows and (axis == 0 or (symbol and dim in counted)):
                    key = _ROWS
                else:
                    key = dim if symbol else own_name(spec.name, axis)
                keys[spec.name, axis] = key
                names.setdefault(key, dim if symbol else "batch" if key == _ROWS else key)
        return cls(keys, names)

    def sizes(self, tensors: Tensors) -> Sizes:
        return {key: tensors[name].shape[axis] for (name, axis), key in self.keys.items()}

    def resized(self, tensors: Tensors, key: str, size: int) -> Tensors:
        """The same with another size of one key; values are repeated, so indices stay valid."""
        changed = {}
        for name, array in tensors.items():
            shape = [
                size if self.keys.get((name, axis)) == key else was
                for axis, was in enumerate(array.shape)
            ]
            changed[name] = np.resize(array, shape)
        return changed


def look(
    run: Run, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec], example: Tensors
) -> Seen:
    """Run a model a few times, and describe its outputs.

    Args:
        run: may raise a ServiceError; on the example itself it does not.
        inputs: with a name for each axis that is open.
        outputs: as the graph declares them; names and dtypes are right, shapes may be anything.
        example: one tensor for each input, with at least one row.
    """
    axes = _Axes.of(inputs)
    runs = [(axes.sizes(example), _shapes(run(example)))]
    tried: set[str] = set()
    end = time.monotonic() + _BUDGET_S
    for key in axes.names:
        for size in _others(runs[0][0][key], rows=key == _ROWS):
            changed = axes.resized(example, key, size)
            if sum(array.size for array in changed.values()) > _MOST_ELEMENTS:
                break
            if time.monotonic() > end and (key != _ROWS or key in tried):
                break
            try:
                runs.append((axes.sizes(changed), _shapes(run(changed))))
            except ServiceError:
                continue
            tried.add(key)
            if key != _ROWS:
                break
    by_rows = _ROWS in tried and all(
        shape and shape[0] == sizes[_ROWS] for sizes, shapes in runs for shape in shapes.values()
    )
    return Seen([_spec(spec, axes, runs, tried) for spec in outputs], by_rows)


def _others(size: int, *, rows: bool) -> Iterator[int]:
    """Sizes to try in the place of `size`."""
    if rows:
        yield from (other for other in (1, 3) if other != size)
    else:
        yield from (size + 1, 2 * size)
        if size > 1:
            yield size // 2


def _shapes(outputs: Tensors) -> dict[str, tuple[int, ...]]:
    return {name: np.shape(array) for name, array in outputs.items()}


def _spec(
    claimed: TensorSpec,
    axes: _Axes,
    runs: Sequence[tuple[Sizes, dict[str, tuple[int, ...]]]],
    tried: set[str],
) -> TensorSpec:
    """An output as the runs have shown it."""
    shapes = [found[claimed.name] for _, found in runs]
    rank = len(shapes[0])
    same_rank = all(len(shape) == rank for shape in shapes)
    dims: list[Dim] = []
    for axis in range(rank):
        own = own_name(claimed.name, axis)
        said = claimed.shape[axis] if len(claimed.shape) == rank else own
        if isinstance(said, str) and not is_symbol(said):
            said = own
        if not same_rank:
            dims.append(own)
            continue
        sizes = [shape[axis] for shape in shapes]
        follows = [
            key
            for key in axes.names
            if all(given[key] == size for (given, _), size in zip(runs, sizes, strict=True))
        ]
        dims.append(_dim(said, own, sizes, follows, axes, tried))
    return claimed.model_copy(update={"shape": dims})


def _dim(
    said: Dim, own: str, sizes: list[int], follows: list[str], axes: _Axes, tried: set[str]
) -> Dim:
    """One axis. `said`: by the file. `follows`: keys of the inputs that had the same sizes."""
    of_input = {axes.names[key]: key for key in axes.names}
    if len(set(sizes)) > 1:
        if follows:
            return axes.names[follows[0]]
        return said if isinstance(said, str) and said not in of_input else own
    named = isinstance(said, str) and said != own
    if said == sizes[0] or (named and of_input.get(str(said)) not in tried):
        return said
    # A size that the file does not know is fixed if others were changed and it was not.
    return sizes[0] if tried and sizes[0] > 0 else own
