"""Networks for tests: real ones of timm and torchvision, with batch-norms as training leaves them.

torchvision's compiled operators are not in every installation, and no network of its classification
zoo needs them; `declare_torchvision_operators` lets it be imported without. Tests only.
"""

from __future__ import annotations

import contextlib
import warnings
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_libraries: list[Any] = []  # a library's operators vanish with it


def declare_torchvision_operators() -> None:
    """Declare the operators that `import torchvision` looks for, once, if they are not there."""
    if _libraries or hasattr(torch.ops.torchvision, "nms"):
        return
    library = torch.library.Library("torchvision", "DEF")
    _libraries.append(library)
    for schema in _SCHEMAS:
        with contextlib.suppress(RuntimeError):
            library.define(schema)


def torchvision_model(name: str, **arguments: Any) -> nn.Module:
    """A network of torchvision with random weights, seeded, in eval mode."""
    declare_torchvision_operators()
    import torchvision

    torch.manual_seed(0)
    return torchvision.models.get_model(name, weights=None, **arguments).eval()


def timm_model(name: str, **arguments: Any) -> nn.Module:
    """A network of timm with random weights, seeded, in eval mode."""
    declare_torchvision_operators()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import timm

        torch.manual_seed(0)
        return timm.create_model(name, pretrained=False, **arguments).eval()


def randomize_batchnorms(module: nn.Module, seed: int = 0) -> nn.Module:
    """Give every batch-norm statistics of a trained one, and scales of both signs. In place.

    running_mean ~ N(0, 0.5), running_var ~ U(0.3, 2), weight ~ +-U(0.3, 1.5), bias ~ N(0, 0.5).
    A fresh one (mean 0, variance 1, weight 1, bias 0) is nearly the identity, and would hide
    almost every mistake.
    """
    generator = torch.Generator().manual_seed(seed)

    def normal(like: torch.Tensor) -> torch.Tensor:
        return torch.randn(like.shape, generator=generator) * 0.5

    def uniform(like: torch.Tensor, low: float, high: float) -> torch.Tensor:
        return torch.rand(like.shape, generator=generator) * (high - low) + low

    with torch.no_grad():
        for norm in module.modules():
            if not isinstance(norm, _NormBase):
                continue
            if norm.running_mean is not None and norm.running_var is not None:
                norm.running_mean.copy_(normal(norm.running_mean))
                norm.running_var.copy_(uniform(norm.running_var, 0.3, 2.0))
            if norm.num_batches_tracked is not None:
                norm.num_batches_tracked.fill_(1)
            if norm.affine:
                sign = torch.where(uniform(norm.weight, 0, 1) < 0.5, -1.0, 1.0)
                norm.weight.copy_(uniform(norm.weight, 0.3, 1.5) * sign)
                norm.bias.copy_(normal(norm.bias))
    return module
