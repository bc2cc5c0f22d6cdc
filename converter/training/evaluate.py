"""What a trained network answers, and how often it is right. Always in evaluation mode."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from converter.architectures.modules import evaluating
from converter.training.data import pixels

BATCH = 1000


def logits(module: nn.Module, images: Tensor, batch: int = BATCH) -> Tensor:
    """The outputs of `module`, computed `batch` images at a time on the module's device.

    Args:
        images: (N, C, H, W), see `data.Split`.

    Returns:
        float32 (N, classes), on the CPU.
    """
    device = next(module.parameters()).device
    with evaluating(module):
        pieces = [module(pixels(piece.to(device))).cpu() for piece in torch.split(images, batch)]
    return torch.cat(pieces)


def predictions(module: nn.Module, images: Tensor, batch: int = BATCH) -> Tensor:
    """The class with the largest logit, the first of equals: int64 (N,). See `logits`."""
    return logits(module, images, batch).argmax(dim=1)


def accuracy(module: nn.Module, images: Tensor, labels: Tensor, batch: int = BATCH) -> float:
    """The share of `images` (N, C, H, W) whose class is that of `labels`, int64 (N,)."""
    return float((predictions(module, images, batch) == labels).double().mean())


def loss_and_accuracy(
    module: nn.Module, images: Tensor, labels: Tensor, batch: int = BATCH
) -> tuple[float, float]:
    """Mean cross-entropy in nats and accuracy in [0, 1], from one pass over `images`."""
    outputs = logits(module, images, batch)
    loss = functional.cross_entropy(outputs.double(), labels)
    return float(loss), float((outputs.argmax(dim=1) == labels).double().mean())
