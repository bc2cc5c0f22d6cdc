"""A network for `--arch tests.converter.statistics.nets:small`."""

from __future__ import annotations

import torch
from torch import nn

from patterns.networks import randomize_batchnorms


def small() -> nn.Module:
    torch.manual_seed(0)
    return randomize_batchnorms(
        nn.Sequential(
            nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3)
        )
    )
