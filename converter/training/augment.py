"""Images that are turned, zoomed and shifted a little, each by its own random amounts."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

SHIFT = 2.0  # pixels, up to, in each direction
TURN = 10.0  # degrees, up to, to either side
ZOOM = 0.1  # up to this much larger or smaller


def can_move(images: Tensor) -> bool:
    """Whether (N, C, H, W) are pictures: in one row or column the numbers are features, which
    would be shifted out of it."""
    return min(images.shape[2:]) > 1


def augment(x: Tensor, generator: torch.Generator) -> Tensor:
    """Turn, zoom and shift each image by its own random amounts, bilinearly, zeros outside.

    Args:
        x: float32 (B, C, H, W).
        generator: on the CPU, whatever the device of `x`, so that all devices see the same.
    """
    B, C, H, W = x.shape
    u = torch.rand(B, 4, generator=generator) * 2 - 1  # (B, 4) in [-1, 1)
    angle = u[:, 0] * math.radians(TURN)
    zoom = 1 + u[:, 1] * ZOOM
    cos, sin = zoom * torch.cos(angle), zoom * torch.sin(angle)
    dx, dy = u[:, 2] * (2 * SHIFT / W), u[:, 3] * (2 * SHIFT / H)  # the grid spans [-1, 1]
    theta = torch.stack([cos, -sin, dx, sin, cos, dy], dim=1).view(B, 2, 3)
    grid = functional.affine_grid(theta.to(x.device), [B, C, H, W], align_corners=False)
    return functional.grid_sample(x, grid, align_corners=False)  # (B, C, H, W)
