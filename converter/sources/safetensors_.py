"""A .safetensors file: named tensors, with bounds that the safetensors library checks."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from converter.errors import UserError
from converter.sources import state_dict
from converter.sources.loaded import Loaded, LoadOptions


def load(path: Path, options: LoadOptions) -> Loaded:
    """Raises UserError when the file is damaged; otherwise as `state_dict.load`."""
    return state_dict.load(path, tensors_of(path), options, "a safetensors file")


def tensors_of(path: Path) -> dict[str, Tensor]:
    """The file's tensors, on the CPU. Raises UserError when it is damaged."""
    try:
        return load_file(path, device="cpu")
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(
            f"{path} is a damaged safetensors file: {error}", "copy or download it again"
        ) from error
