"""What enters each layer while a network learns, and what its gradient is.

Batch normalization was introduced against *internal covariate shift*: the inputs of a layer
change their distribution as the layers before it learn (S. Ioffe, C. Szegedy, "Batch
Normalization", 2015, section 2 and figure 1). It is measured here on one batch that stays the
same. With mu_c(t) and sigma_c(t) the mean and the standard deviation of channel c of a layer's
input after t steps, over samples and positions,

    drift(t) = sqrt( mean_c (mu_c(t) - mu_c(s))^2 / mean_c (sigma_c(t)^2 + sigma_c(s)^2) * 2 )

where s is the snapshot before: how many typical standard deviations the means have moved.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.dropout import _DropoutNd

from experiments.records import Snapshot


@dataclass(frozen=True)
class Distribution:
    """Of what enters a layer: float64 (C,) each."""

    mean: Tensor
    variance: Tensor


class Watcher:
    """Takes snapshots of the layers with weights, convolutions and linear ones.

    Args:
        module: the network; its parameters, buffers, gradients and mode are left as they are.
        x, y: the batch, as the network takes it: float32 (N, ...), and int64 (N,).
    """

    def __init__(self, module: nn.Module, x: Tensor, y: Tensor) -> None:
        self.module, self.x, self.y = module, x, y
        self.layers: dict[str, nn.Module] = {
            name: layer
            for name, layer in module.named_modules()
            if isinstance(layer, _ConvNd | nn.Linear)
        }
        self.snapshots: dict[str, list[Snapshot]] = {name: [] for name in self.layers}
        self.before: dict[str, Distribution] = {}

    def look(self, step: int) -> None:
        """Run the batch, in training mode but without dropout, and add a snapshot a layer.

        A batch-norm then normalises by this batch, as it does in a step.
        """
        entered: dict[str, Tensor] = {}
        with ExitStack() as stack:
            stack.enter_context(_as_in_a_step(self.module))
            for name, layer in self.layers.items():
                stack.enter_context(_keeping_input(layer, name, entered))
            loss = functional.cross_entropy(self.module(self.x), self.y)
            weights = [self.layers[name].weight for name in entered]
            found = torch.autograd.grad(loss, weights, allow_unused=True)  # type: ignore[arg-type]
        gradients = {
            name: 0.0 if gradient is None else float(gradient.double().norm())
            for name, gradient in zip(entered, found, strict=True)
        }
        for name, value in entered.items():
            now = distribution(value, channels_last=isinstance(self.layers[name], nn.Linear))
            then = self.before.get(name)
            self.before[name] = now
            mean = float(now.mean.mean())
            # Law of total variance: within the channels, and between them.
            variance = float(now.variance.mean() + now.mean.var(unbiased=False))
            self.snapshots[name].append(
                Snapshot(
                    step=step,
                    mean=mean,
                    std=variance**0.5,
                    drift=drift(then, now) if then else 0.0,
                    gradient=gradients[name],
                )
            )


def distribution(x: Tensor, *, channels_last: bool) -> Distribution:
    """Mean and biased variance a channel of (N, C, ...), or of (N, ..., C)."""
    channels = x.ndim - 1 if channels_last else 1
    others = [axis for axis in range(x.ndim) if axis != channels]
    variance, mean = torch.var_mean(x, others, correction=0)
    return Distribution(mean.double(), variance.double())


def drift(before: Distribution, now: Distribution) -> float:
    """See the top of this file; 0 where nothing moves, even if nothing varies either."""
    moved = float((now.mean - before.mean).square().mean())
    spread = float((now.variance + before.variance).mean()) / 2
    return (moved / spread) ** 0.5 if moved and spread else 0.0


@contextmanager
def _as_in_a_step(module: nn.Module) -> Iterator[None]:
    """Training mode without dropout; modes and buffers are put back afterwards."""
    modes = {part: part.training for part in module.modules()}
    buffers = {buffer: buffer.clone() for buffer in module.buffers()}
    module.train()
    for part in module.modules():
        if isinstance(part, _DropoutNd):
            part.eval()
        if isinstance(part, _BatchNorm) and not modes[part]:
            part.eval()  # frozen, and stays so
    try:
        yield
    finally:
        for part, mode in modes.items():
            part.training = mode
        with torch.no_grad():
            for buffer, value in buffers.items():
                buffer.copy_(value)


@contextmanager
def _keeping_input(layer: nn.Module, name: str, entered: dict[str, Tensor]) -> Iterator[None]:
    """Put the layer's input under `name`, the first one if it is called several times."""

    def keep(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        entered.setdefault(name, inputs[0].detach())

    handle = layer.register_forward_pre_hook(keep)
    try:
        yield
    finally:
        handle.remove()
