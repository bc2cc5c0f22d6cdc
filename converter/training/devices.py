"""Where to train."""

from __future__ import annotations

import torch

from converter.errors import UserError


def pick_device(name: str) -> torch.device:
    """The device of this name; "auto" is CUDA where torch finds one. Raises UserError."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UserError(f"unknown device {name!r}", "give auto, cpu, cuda or cuda:N") from error
    if device.type not in {"cpu", "cuda"}:
        raise UserError(f"cannot train on {name!r}", "give auto, cpu, cuda or cuda:N")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UserError(
            "torch finds no CUDA device",
            f"torch {torch.__version__} was built "
            + (f"for CUDA {torch.version.cuda}" if torch.version.cuda else "without CUDA"),
        )
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UserError(f"there is no {name}, torch finds {torch.cuda.device_count()}")
    return device
