"""What is done with any torch module: evaluate it for a while, and copy its weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients until the block ends; each module's mode comes back."""
    modes = {part: part.training for part in module.modules()}
    module.eval()
    try:
        # Not inference_mode: what is computed here is stored in norms, and used by others later.
        with torch.no_grad():
            yield
    finally:
        for part, mode in modes.items():
            part.training = mode


def weights_of(module: nn.Module) -> dict[str, Tensor]:
    """A copy of the module's state on the CPU, contiguous, in the module's order."""
    return {
        name: tensor.detach().cpu().contiguous().clone()
        for name, tensor in module.state_dict().items()
        if isinstance(tensor, Tensor)
    }
