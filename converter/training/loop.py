"""The training loop, read top to bottom.

AdamW on the cross-entropy, a learning rate that rises for a fifth of the steps and then falls
along a cosine to zero, and images that are shifted, turned and scaled a little. The weights of
the last step are the result: the test set is measured after every epoch and decides nothing.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from converter.errors import UserError
from converter.training.evaluate import loss_and_accuracy
from converter.training.mnist import Dataset, pixels
from converter.training.progress import Progress

WARM_UP = 0.2  # of all steps
WEIGHT_DECAY = 0.01
SHIFT = 2.0  # pixels, up to, in each direction
TURN = 10.0  # degrees, up to, to either side
ZOOM = 0.1  # up to this much larger or smaller


@dataclass(frozen=True)
class Epoch:
    """What one pass over the training set gave; losses are mean cross-entropies in nats.

    Attributes:
        number: 1 for the first.
        train_loss: mean over the epoch's batches, augmented images, while the weights moved.
        test_loss, test_accuracy: after the epoch, in evaluation mode.
        seconds: of the pass and its evaluation together.
    """

    number: int
    train_loss: float
    test_loss: float
    test_accuracy: float
    seconds: float


def learning_rate(step: int, steps: int, peak: float) -> float:
    """Linear from 0 to `peak`, then half a cosine back to 0; taken at the middle of the step."""
    t = (step + 0.5) / steps
    if t < WARM_UP:
        return peak * t / WARM_UP
    return peak * 0.5 * (1 + math.cos(math.pi * (t - WARM_UP) / (1 - WARM_UP)))


def augment(x: Tensor, generator: torch.Generator) -> Tensor:
    """Turn, zoom and shift each image by its own random amounts, bilinearly, zeros outside.

    Args:
        x: float32 (B, 1, H, W).
        generator: on the CPU, whatever the device of `x`, so that all devices see the same.
    """
    B, _, H, W = x.shape
    u = torch.rand(B, 4, generator=generator) * 2 - 1  # (B, 4) in [-1, 1)
    angle = u[:, 0] * math.radians(TURN)
    zoom = 1 + u[:, 1] * ZOOM
    cos, sin = zoom * torch.cos(angle), zoom * torch.sin(angle)
    dx, dy = u[:, 2] * (2 * SHIFT / W), u[:, 3] * (2 * SHIFT / H)  # the grid spans [-1, 1]
    theta = torch.stack([cos, -sin, dx, sin, cos, dy], dim=1).view(B, 2, 3)
    grid = functional.affine_grid(theta.to(x.device), [B, 1, H, W], align_corners=False)
    return functional.grid_sample(x, grid, align_corners=False)  # (B, 1, H, W)


def fit(
    module: nn.Module,
    data: Dataset,
    *,
    epochs: int,
    batch_size: int,
    lr: float,
    seed: int,
    device: torch.device,
    progress: Progress,
) -> list[Epoch]:
    """Train `module` in place, on `device`, and return a line for every epoch.

    The last, incomplete batch of an epoch is left out, so that every batch weighs the same in
    the running statistics of the batch-norms.

    Raises:
        UserError: when the training set is smaller than a batch, or the loss is not finite.
    """
    batches = len(data.train) // batch_size
    if not batches:
        raise UserError(
            f"{len(data.train)} training images do not fill a batch of {batch_size}",
            "give a smaller --batch-size",
        )
    steps = epochs * batches
    # The generator is on the CPU on every device, and apart from the one of the initial weights.
    generator = torch.Generator().manual_seed(seed)
    images, labels = data.train.images.to(device), data.train.labels.to(device)
    module.to(device).train()
    optimizer = torch.optim.AdamW(module.parameters(), lr=lr, weight_decay=WEIGHT_DECAY)

    history: list[Epoch] = []
    progress.start(epochs=epochs, batches=batches)
    for number in range(1, epochs + 1):
        started, total = time.perf_counter(), 0.0
        order = torch.randperm(len(labels), generator=generator)  # (N,)
        for batch in range(batches):
            step = (number - 1) * batches + batch
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(step, steps, lr)

            chosen = order[batch * batch_size : (batch + 1) * batch_size].to(device)  # (B,)
            x = augment(pixels(images[chosen]), generator)  # (B, 1, 28, 28)
            loss = functional.cross_entropy(module(x), labels[chosen])  # logits (B, 10)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()

            value = loss.item()
            if not math.isfinite(value):
                raise UserError(
                    f"the training loss became {value} in epoch {number}, batch {batch + 1}",
                    f"give a smaller --lr than {lr:g}; nothing was written",
                )
            total += value
            progress.batch(number, batch + 1, value)

        test_loss, test_accuracy = loss_and_accuracy(module, data.test.images, data.test.labels)
        seconds = time.perf_counter() - started
        history.append(Epoch(number, total / batches, test_loss, test_accuracy, seconds))
        progress.epoch(history[-1])
    return history
