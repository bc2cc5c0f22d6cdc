"""A .safetensors file: named tensors, with bounds that the safetensors library checks."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file

from converter.errors import UserError
from converter.sources import state_dict
from converter.sources.loaded import Loaded, LoadOptions


def load(path: Path, options: LoadOptions) -> Loaded:
    """Raises UserError when the file is damaged; otherwise as `state_dict.load`."""
    try:
        tensors = load_file(path, device="cpu")
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(
            f"{path} is a damaged safetensors file: {error}", "copy or download it again"
        ) from error
    return state_dict.load(path, tensors, options, "a safetensors file")
