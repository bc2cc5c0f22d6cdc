"""The inputs of a proof: seeded random ones at several batch sizes, and the user's own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import ml_dtypes
import numpy as np

from converter.errors import UserError
from converter.evaluation.oracle import Array, Feeds
from converter.files import arrays
from converter.sources.loaded import Input

BATCHES = (1, 2, 5)
# How many rows of the user's data are used: enough for a proof, which is not an evaluation.
MOST_ROWS = 64
WRITTEN = "It must be an .npz or .npy written by numpy."  # what to give instead


def random_feeds(inputs: Sequence[Input], batch: int | None, seed: int) -> Feeds:
    """Standard normal numbers, indices within their table, other integers of 0 and 1, for a
    batch of `batch` samples; or the value that the user gave.

    `batch` None keeps the batch size that the graph fixes.
    """
    rng = np.random.default_rng([seed, batch or 0])
    return {item.name: _draw(item, batch, rng) for item in inputs}


def _draw(item: Input, batch: int | None, rng: np.random.Generator) -> Array:
    shape = item.example if batch is None or not batched(item) else (batch, *item.example[1:])
    dtype = np.dtype(ml_dtypes.bfloat16) if item.dtype == "bfloat16" else np.dtype(item.dtype)
    if item.value is not None:
        return np.full(shape, item.value, dtype)
    if dtype.kind == "f" or item.dtype == "bfloat16":
        return rng.standard_normal(shape).astype(dtype)
    # Small integers are valid as indices into nearly any table.
    return rng.integers(0, item.upper or 2, shape).astype(dtype)


def batches(dynamic: bool) -> Sequence[int | None]:
    """The batch sizes to try: 1, 2 and 5, or only the one that the graph fixes."""
    return BATCHES if dynamic else (None,)


def load_data(path: Path, inputs: Sequence[Input]) -> Feeds:
    """The user's inputs from an .npz (by input name) or an .npy (a single input).

    Raises:
        UserError: the file is unreadable, or does not fit the inputs.
    """
    found = {name or inputs[0].name: a for name, a in arrays.load(path, WRITTEN).items()}
    if len(inputs) == 1 and len(found) == 1 and inputs[0].name not in found:
        found = {inputs[0].name: next(iter(found.values()))}
    return {item.name: _fitting(item, found, path) for item in inputs}


def data_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """The shapes of the user's inputs by name, "" for that of an .npy.

    Raises:
        UserError: the file is unreadable.
    """
    return {name: np.shape(array) for name, array in arrays.load(path, WRITTEN).items()}


def _fitting(item: Input, found: dict[str, Array], path: Path) -> Array:
    if item.name not in found:
        raise UserError(
            f"{path} has no array {item.name!r}, only {', '.join(map(repr, found)) or 'none'}.",
            "Name the arrays as the model's inputs: np.savez(file, " + f"{item.name}=...).",
        )
    array = np.asarray(found[item.name])
    if array.dtype.kind not in "biuf" and array.dtype != ml_dtypes.bfloat16:
        raise UserError(f"{path}: {item.name!r} holds {array.dtype}, not real numbers.")
    fits = array.ndim == len(item.shape) and all(
        isinstance(want, str) or want == got
        for want, got in zip(item.shape, array.shape, strict=True)
    )
    if not fits or not array.size:
        raise UserError(
            f"{path}: {item.name!r} has shape {array.shape}, the model wants {item.shape}."
        )
    array = array[:MOST_ROWS] if batched(item) else array
    return array.astype(item.dtype if item.dtype != "bfloat16" else ml_dtypes.bfloat16)


def batched(item: Input) -> bool:
    """Whether the first axis of an input is the batch, and may vary."""
    return bool(item.shape) and isinstance(item.shape[0], str)


def rows(feeds: Feeds, inputs: Sequence[Input]) -> Iterator[Feeds]:
    """Each sample of a batch alone, as a batch of one; inputs without a batch axis stay."""
    names = [item.name for item in inputs if batched(item)]
    for index in range(min(len(feeds[name]) for name in names)):
        yield {
            name: array[index : index + 1] if name in names else array
            for name, array in feeds.items()
        }
