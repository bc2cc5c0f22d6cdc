"""An .npz archive of named arrays, as numpy.savez writes it: weights without their network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from converter.errors import UserError
from converter.sources import state_dict
from converter.sources.loaded import Loaded, LoadOptions


def load(path: Path, options: LoadOptions) -> Loaded:
    """Raises UserError when the file is damaged; otherwise as `state_dict.load`."""
    return state_dict.load(path, tensors_of(path), options, "an .npz archive")


def tensors_of(path: Path) -> dict[str, Tensor]:
    """The archive's arrays of numbers. Raises UserError when it is damaged."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except Exception as error:  # a hostile archive may raise anything
        raise UserError(
            f"{path} cannot be read as arrays of numbers: {error}",
            "save it with numpy.savez(path, **{name: tensor.numpy() for ...})",
        ) from error
    return {
        name: torch.from_numpy(array.astype(array.dtype.newbyteorder("=")))
        for name, array in arrays.items()
        if array.dtype.kind in "biufc" and array.dtype.itemsize <= 8
    }
