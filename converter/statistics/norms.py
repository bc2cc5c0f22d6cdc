"""The norms of a network that keep statistics, and those that only look like it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.instancenorm import _InstanceNorm

from converter.statistics.moments import InstanceMoments, Moments

# How many axes a batch has; these norms also take a single sample without the batch axis.
_BATCHED = {nn.InstanceNorm1d: 3, nn.InstanceNorm2d: 4, nn.InstanceNorm3d: 5}


@dataclass(frozen=True)
class Norms:
    """What `find` found.

    Attributes:
        tracked: name -> batch-norms and instance norms with running statistics, of torch's
            classes or classes made from them (SyncBatchNorm, Batch Renormalization, timm's).
        untracked: names of norms with `track_running_stats=False`.
        frozen: names of other modules that hold running statistics (FrozenBatchNorm).
    """

    tracked: Mapping[str, _NormBase]
    untracked: tuple[str, ...]
    frozen: tuple[str, ...]


def find(module: nn.Module) -> Norms:
    """Look through a network, in the order of registration; a module that is shared counts once.

    An instance norm without running statistics is normal, and is not listed.
    """
    tracked: dict[str, _NormBase] = {}
    untracked, frozen = [], []
    for name, norm in module.named_modules():
        if isinstance(norm, _NormBase):
            if norm.running_mean is not None:
                tracked[name] = norm
            elif not isinstance(norm, _InstanceNorm):
                untracked.append(name)
        elif isinstance(getattr(norm, "running_mean", None), Tensor) and isinstance(
            getattr(norm, "running_var", None), Tensor
        ):
            frozen.append(name)
    return Norms(tracked, tuple(untracked), tuple(frozen))


def moments_of(norm: nn.Module) -> Callable[[Tensor], Moments]:
    """The function that computes the moments that this norm tracks from its input."""
    if not isinstance(norm, _InstanceNorm):
        return Moments.of
    axes = next((n for kind, n in _BATCHED.items() if isinstance(norm, kind)), 0)
    return lambda x: InstanceMoments.of(x.unsqueeze(0) if x.ndim < axes else x)


def stored(norm: _NormBase) -> tuple[Tensor, Tensor]:
    """A copy of the running mean and variance, float64 (C,), on the CPU."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    mean, variance = norm.running_mean.detach(), norm.running_var.detach()
    return mean.cpu().double().clone(), variance.cpu().double().clone()


@torch.no_grad()
def store(norm: _NormBase, mean: Tensor, variance: Tensor) -> None:
    """Put a mean and a variance, (C,) each, into the norm, rounded to its type."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    norm.running_mean.copy_(mean)
    norm.running_var.copy_(variance)


def batches_seen(norm: _NormBase) -> int | None:
    """`num_batches_tracked`, None where a norm has none."""
    counter = norm.num_batches_tracked
    return None if counter is None else int(counter)


def never_updated(norm: _NormBase) -> bool:
    """Whether its statistics are still the initial ones: mean 0, variance 1."""
    mean, variance = stored(norm)
    return not batches_seen(norm) and not mean.any() and bool((variance == 1).all())
