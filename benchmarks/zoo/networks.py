"""A network of the zoo with random weights that computes something worth comparing.

A fresh network hides mistakes: its batch-norms are nearly identities, its layer scales are
1e-6, and with statistics drawn at random its activations explode or die out within a few
layers. Here the parameters that libraries initialise to one constant are random, scales have
both signs, and the statistics are those of random inputs, moved by random amounts.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from converter.sources import InputShape
from converter.sources.arch import build
from patterns.networks import declare_torchvision_operators, randomize_batchnorms

SIZES = (64, 96, 128, 160, 192, 224, 256)
CLIPS = ((8, 64, 64), (16, 112, 112), (16, 224, 224))  # frames, height, width
SEED = 0


@dataclass(frozen=True)
class Network:
    """A network in eval mode, and inputs that it accepts, without the batch axis."""

    module: nn.Module
    shapes: tuple[InputShape, ...]
    settled: bool


def network(name: str, sizes: tuple[int, ...] | None = None) -> Network:
    """Build `timm:NAME` or `torchvision:NAME` at the smallest input that it runs on.

    `sizes` has the sides of the images to try instead, in order.

    Raises:
        Exception: what the library raises when it does not build, or runs on no size.
    """
    declare_torchvision_operators()
    problem: Exception | None = None
    for shapes, arguments in _candidates(name, sizes or SIZES):
        try:
            torch.manual_seed(SEED)
            module = build(name, arguments).module.eval().requires_grad_(False)
            randomize(module)
            with torch.no_grad():
                module(*_examples(shapes, 2))
        except Exception as error:  # noqa: BLE001  the libraries' code
            problem = problem or error
            continue
        return Network(module, shapes, settle(module, shapes))
    assert problem is not None
    raise problem


def _candidates(
    name: str, sides: tuple[int, ...]
) -> Iterator[tuple[tuple[InputShape, ...], dict[str, int]]]:
    """Input shapes and constructor arguments to try, the cheapest first."""
    library, _, model = name.partition(":")
    if library == "torchvision":
        from torchvision import models

        where = models.get_model_builder(model).__module__
        if ".video" in where:
            yield from (((InputShape((3, *clip)),), {}) for clip in CLIPS)
        elif ".optical_flow" in where:
            pair = tuple(InputShape((3, 128, 128), f"image{i}") for i in (1, 2))
            yield pair, {}
        else:
            yield from (((InputShape((3, side, side)),), {}) for side in sides)
        return
    import timm

    config = timm.get_pretrained_cfg(model)
    size = tuple(config.input_size) if config is not None else (3, 224, 224)
    fixed = bool(config is not None and config.fixed_input_size)
    channels = size[0]
    for side in sides:
        if side < size[-1]:
            # Networks whose weights depend on the size must be told; others do not take it.
            yield (InputShape((channels, side, side)),), {"img_size": side} if fixed else {}
    yield (InputShape(size),), {}


def _examples(shapes: tuple[InputShape, ...], batch: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(SEED)
    return [torch.randn((batch, *shape.sizes), generator=generator) for shape in shapes]


def randomize(module: nn.Module) -> None:
    """Batch-norms as training leaves them; parameters that are all one number become random.

    Zeros become N(0, 0.1), other constants +-U(0.3, 1): biases, layer scales, gates, slopes.
    """
    randomize_batchnorms(module, SEED)
    generator = torch.Generator().manual_seed(SEED)
    own = {id(p) for m in module.modules() if isinstance(m, _BatchNorm) for p in m.parameters()}
    with torch.no_grad():
        for parameter in module.parameters():
            if id(parameter) in own or not parameter.is_floating_point() or not parameter.numel():
                continue
            first = parameter.flatten()[0].item()
            if not bool((parameter == first).all()):
                continue
            if first == 0.0:
                parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
            else:
                size = 0.3 + 0.7 * torch.rand(parameter.shape, generator=generator)
                sign = 1.0 - 2.0 * torch.randint(0, 2, parameter.shape, generator=generator)
                parameter.copy_(size * sign)


def settle(module: nn.Module, shapes: tuple[InputShape, ...]) -> bool:
    """`settle_on` random inputs of these shapes."""
    return settle_on(module, _examples(shapes, _batch(shapes)))


def settle_on(module: nn.Module, examples: list[torch.Tensor]) -> bool:
    """Give each batch-norm the statistics of what reaches it, moved at random. In place.

    Done during one run, from the input to the output, so that what a batch-norm sees is what
    the perturbed ones before it let through:

        mean = mean(x) + 0.3*N(0, 1)*std(x),  var = var(x)*U(0.5, 2)

    var(x) is half the channel's own and half the layer's average, and at least 1% of the squared
    mean: a few random inputs differ little after a pooling, and in the directions that they do
    not show, others would be amplified from layer to layer, by thousands in the end. Returns
    whether every batch-norm was reached; one that was not keeps its random statistics.
    """
    generator = torch.Generator().manual_seed(SEED)
    reached: set[nn.Module] = set()

    def measure(norm: Any, inputs: tuple[torch.Tensor, ...]) -> None:
        x = inputs[0].detach()
        if norm in reached or not _finite(x):
            return
        axes = [axis for axis in range(x.ndim) if axis != 1]
        mean, var = x.mean(axes), x.var(axes, correction=0)
        var = 0.5 * (var + var.mean())
        var = torch.maximum(var, 0.01 * mean.square()).clamp(min=1e-6)
        noise = torch.randn(mean.shape, generator=generator)
        norm.running_mean.copy_(mean + 0.3 * noise * var.sqrt())
        norm.running_var.copy_(var * (0.5 + 1.5 * torch.rand(var.shape, generator=generator)))
        reached.add(norm)

    norms = [m for m in module.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    hooks = [norm.register_forward_pre_hook(measure) for norm in norms]
    with torch.no_grad():
        module(*examples)
    for hook in hooks:
        hook.remove()
    return len(reached) == len(norms)


def _batch(shapes: tuple[InputShape, ...]) -> int:
    """As many samples as make 24 images of 96 x 96, from 4 to 48."""
    return max(4, min(48, 24 * 3 * 96 * 96 // math.prod(shapes[0].sizes)))


def _finite(tensor: torch.Tensor) -> bool:
    return bool(torch.isfinite(tensor).all())
