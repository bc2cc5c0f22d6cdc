"""Which shape a model's input may have: the first layer tells the channels, trials tell the rest.

A 3x3 convolution with 3 input channels takes (3, H, W); H and W are found by running the model on
candidates, the usual sizes first, until one fits. What was assumed is always reported to the user.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from torch import nn

Sizes = tuple[int, ...]


@dataclass(frozen=True)
class FirstLayer:
    """The layer that the input probably meets first.

    Attributes:
        what: its name in messages, "Conv2d(3, ...)".
        shapes: shapes of one sample that it accepts, the likeliest first.
        dtype: "" for the model's own floating type, "int64" for indices.
    """

    what: str
    shapes: tuple[Sizes, ...]
    dtype: str = ""


_SQUARES = (224, 32, 64, 28, 96, 128, 256, 299, 384, 512, 160, 192, 240, 288, 320, 448)
_LENGTHS = (128, 64, 256, 512, 1024, 32, 16, 4000, 16000)
_VIDEOS = ((16, 112, 112), (8, 32, 32), (16, 64, 64), (16, 16, 16), (32, 224, 224), (8, 8, 8))


def spatial_shapes(channels: int, axes: int) -> tuple[Sizes, ...]:
    """Shapes of one sample with these channels and one, two or three spatial axes."""
    if axes == 1:
        return tuple((channels, length) for length in _LENGTHS)
    if axes == 2:
        # One channel mostly means MNIST and similar data sets.
        first = (28, *_SQUARES) if channels == 1 else _SQUARES
        return tuple((channels, side, side) for side in dict.fromkeys(first))
    return tuple((channels, *sizes) for sizes in _VIDEOS)


def _convolution(layer: Any, axes: int) -> FirstLayer:
    return FirstLayer(
        f"{type(layer).__name__}({layer.in_channels}, ...)",
        spatial_shapes(layer.in_channels, axes),
    )


def _linear(features: int, name: str = "Linear") -> FirstLayer:
    """A flat vector, or a sequence of them."""
    return FirstLayer(f"{name}({features}, ...)", ((features,), (16, features)))


def _embedding(rows: int) -> FirstLayer:
    return FirstLayer(f"Embedding({rows}, ...)", ((16,), (128,), (1,), ()), "int64")


def _batch_norm(layer: Any, axes: int) -> FirstLayer:
    shapes = spatial_shapes(layer.num_features, axes)
    flat = ((layer.num_features,),) if axes == 1 else ()
    return FirstLayer(f"{type(layer).__name__}({layer.num_features})", flat + shapes)


# The first layer is the first module, in the order of registration, that has a row here.
LAYERS: tuple[tuple[type[nn.Module] | tuple[type[nn.Module], ...], Callable[..., FirstLayer]], ...]
LAYERS = (
    ((nn.Conv1d, nn.ConvTranspose1d), lambda m: _convolution(m, 1)),
    ((nn.Conv2d, nn.ConvTranspose2d), lambda m: _convolution(m, 2)),
    ((nn.Conv3d, nn.ConvTranspose3d), lambda m: _convolution(m, 3)),
    (nn.Linear, lambda m: _linear(m.in_features)),
    (nn.Embedding, lambda m: _embedding(m.num_embeddings)),
    (nn.RNNBase, lambda m: _recurrent(m.input_size)),
    (nn.BatchNorm1d, lambda m: _batch_norm(m, 1)),
    (nn.BatchNorm2d, lambda m: _batch_norm(m, 2)),
    (nn.BatchNorm3d, lambda m: _batch_norm(m, 3)),
)


def _recurrent(features: int) -> FirstLayer:
    return FirstLayer(f"a recurrent layer of {features} features", ((16, features),))


def first_layer(module: nn.Module) -> FirstLayer | None:
    """The first layer of the module whose kind tells something about the input."""
    for layer in module.modules():
        for kinds, describe in LAYERS:
            if isinstance(layer, kinds):
                return describe(layer)
    return None


# TorchScript has no layer types: a kind of layer, and what the shape of its weight tells.
# The weight of a ConvTranspose is (in, out/groups, k...), of a Conv (out, in/groups, k...).
SCRIPT_LAYERS: dict[str, Callable[[Sizes], FirstLayer]] = {
    "conv": lambda w: FirstLayer(
        f"a convolution of {w[1]} channels", spatial_shapes(w[1], len(w) - 2)
    ),
    "transposed": lambda w: FirstLayer(
        f"a transposed convolution of {w[0]} channels", spatial_shapes(w[0], len(w) - 2)
    ),
    "linear": lambda w: _linear(w[1]),
    "embedding": lambda w: _embedding(w[0]),
}


def from_weights(weights: Iterator[tuple[str, Sizes]]) -> FirstLayer | None:
    """The same from (kind of `SCRIPT_LAYERS`, shape of the weight), the first layer first."""
    for kind, shape in weights:
        describe = SCRIPT_LAYERS.get(kind)
        if describe and len(shape) >= 2:
            return describe(shape)
    return None
