"""An .npz archive of named arrays, as numpy.savez writes it: weights without their network."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from converter.files import arrays
from converter.sources import state_dict
from converter.sources.loaded import Loaded, LoadOptions


def load(path: Path, options: LoadOptions) -> Loaded:
    """Raises UserError when the file is damaged; otherwise as `state_dict.load`."""
    return state_dict.load(path, tensors_of(path), options, "an .npz archive")


def tensors_of(path: Path) -> dict[str, Tensor]:
    """The archive's arrays of numbers. Raises UserError when it is damaged."""
    hint = "save it with numpy.savez(path, **{name: tensor.numpy() for ...})"
    return {
        name: torch.from_numpy(array.astype(array.dtype.newbyteorder("=")))
        for name, array in arrays.load(path, hint).items()
        if array.dtype.kind in "biufc" and array.dtype.itemsize <= 8
    }
