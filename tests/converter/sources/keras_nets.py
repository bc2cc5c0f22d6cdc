"""The nets of Keras' tutorials and some that are hard to export, with statistics as if trained."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from typing import Any

import numpy as np

os.environ.setdefault("KERAS_HOME", tempfile.mkdtemp(prefix="keras-home-"))  # it writes a file
os.environ["KERAS_BACKEND"] = "torch"

import keras
from keras import layers as L


def train(model: Any, *, mixed: bool = False) -> Any:
    """Give biases values and batch-norms statistics; `mixed`: with some gammas below zero."""
    random = np.random.default_rng(3)
    waiting, seen = [model], set()
    while waiting:
        layer = waiting.pop()
        waiting += [part for part in getattr(layer, "_layers", ()) if hasattr(part, "call")]
        bias = getattr(layer, "bias", None)
        if isinstance(bias, keras.Variable):  # else zeros, which are dropped
            bias.assign(random.normal(0, 0.1, bias.shape))
        if not isinstance(layer, L.BatchNormalization) or id(layer) in seen:
            continue
        seen.add(id(layer))
        channels = layer.moving_mean.shape[0]
        layer.moving_mean.assign(random.normal(0, 0.3, channels))
        layer.moving_variance.assign(random.uniform(0.5, 1.5, channels))
        if layer.scale:
            signs = np.where(np.arange(channels) % 3 == 1, -1.0, 1.0) if mixed else 1.0
            layer.gamma.assign(random.uniform(0.5, 1.5, channels) * signs)
        if layer.center:
            layer.beta.assign(random.normal(0, 0.3, channels))
    return model


def stack(shape: tuple[int | None, ...], *layers: Any) -> Any:
    return keras.Sequential([keras.Input(shape), *layers])


def dense() -> Any:
    return stack(
        (20,),
        L.Dense(12, activation="relu"),
        L.BatchNormalization(name="norm"),
        L.Dropout(0.5),
        L.Dense(3, activation="softmax"),
    )


def mlp() -> Any:
    """784-256-128-10 with the batch-norm before the activation, narrower."""
    layers: list[Any] = []
    for units in (24, 12):
        layers += [L.Dense(units, use_bias=False), L.BatchNormalization(), L.Activation("relu")]
    return stack((28,), *layers, L.Dropout(0.2), L.Dense(10))


def cnn() -> Any:
    """The convnet of the tutorials: the batch-norm behind the activation, unpadded."""
    return stack(
        (14, 14, 1),
        L.Conv2D(6, 3, activation="relu"),
        L.BatchNormalization(),
        L.MaxPooling2D(),
        L.Conv2D(8, 3, activation="relu"),
        L.BatchNormalization(),
        L.MaxPooling2D(),
        L.Flatten(),
        L.Dense(4, activation="softmax"),
    )


def padded() -> Any:
    return stack(
        (12, 12, 2),
        L.Conv2D(4, 3, padding="same", activation="relu"),
        L.BatchNormalization(name="before_padding"),
        L.MaxPooling2D(),
        L.Conv2D(5, 3, padding="same", activation="relu"),
        L.BatchNormalization(),
        L.Flatten(),
        L.Dense(3),
    )


def residual() -> Any:
    image = keras.Input((12, 12, 3), name="image")
    x = L.ReLU()(L.BatchNormalization()(L.Conv2D(6, 3, padding="same", use_bias=False)(image)))
    for width, stride in ((6, 1), (8, 2)):
        y = L.Conv2D(width, 3, strides=stride, padding="same", use_bias=False)(x)
        y = L.ReLU()(L.BatchNormalization()(y))
        y = L.BatchNormalization(scale=False)(L.Conv2D(width, 3, padding="same")(y))
        if stride == 2:
            x = L.BatchNormalization(center=False)(L.Conv2D(width, 1, strides=2)(x))
        x = L.ReLU()(L.Add(name="add" if stride == 1 else "forward")([x, y]))
    return keras.Model(image, L.Dense(3, name="type")(L.GlobalAveragePooling2D()(x)))


def mobile() -> Any:
    """Depthwise and separable convolutions, with padding that is not the same at both ends."""
    image = keras.Input((13, 12, 3))
    x = L.ReLU(6.0)(L.BatchNormalization()(L.Conv2D(4, 3, strides=2, padding="same")(image)))
    x = L.DepthwiseConv2D(3, strides=2, padding="same", use_bias=False)(x)
    x = L.ReLU(6.0)(L.BatchNormalization()(x))
    x = L.ReLU(6.0)(L.BatchNormalization()(L.SeparableConv2D(6, 2)(x)))
    x = L.PReLU(shared_axes=[1, 2])(L.ZeroPadding2D(1)(x))
    return keras.Model(image, L.Dense(3)(L.GlobalAveragePooling2D()(x)))


def lines() -> Any:
    return stack(
        (24, 3),
        L.Conv1D(4, 5),
        L.BatchNormalization(),
        L.LeakyReLU(),
        L.AveragePooling1D(2),
        L.DepthwiseConv1D(3),
        L.BatchNormalization(),
        L.UpSampling1D(2),
        L.SeparableConv1D(5, 3),
        L.BatchNormalization(),
        L.Conv1DTranspose(4, 3, strides=2),
        L.BatchNormalization(),
        L.GlobalAveragePooling1D(),
        L.Dense(3),
    )


def volume() -> Any:
    return stack(
        (6, 8, 8, 2),
        L.Conv3D(4, 3, use_bias=False),
        L.BatchNormalization(),
        L.ReLU(),
        L.MaxPooling3D(),
        L.Conv3DTranspose(3, 2, strides=2),
        L.BatchNormalization(),
        L.GlobalMaxPooling3D(),
        L.Dense(3),
    )


def nested() -> Any:
    """Models in models; a block, and a batch-norm with its convolution, called twice."""
    block = keras.Sequential(
        [
            keras.Input((8, 8, 4)),
            keras.Sequential([L.Conv2D(4, 1), L.BatchNormalization(name="norm")], name="deep"),
            L.ReLU(),
        ],
        name="block",
    )
    conv, norm = L.Conv2D(4, 1, name="shared"), L.BatchNormalization(name="shared_norm")
    image = keras.Input((8, 8, 3))
    x = block(block(L.Conv2D(4, 3, padding="same")(image)))
    x = norm(conv(L.ReLU()(norm(conv(x)))))
    return keras.Model(image, L.Dense(3)(L.Flatten()(x)))


def steps() -> Any:
    frame = keras.Sequential(
        [keras.Input((6, 6, 2)), L.Conv2D(3, 3), L.BatchNormalization(), L.Flatten()]
    )
    return stack(
        (5, 6, 6, 2),
        L.TimeDistributed(frame),
        L.TimeDistributed(L.BatchNormalization()),
        L.LSTM(7, return_sequences=True),
        L.BatchNormalization(),
        L.Bidirectional(L.GRU(4)),
        L.BatchNormalization(),
        L.Dense(3),
    )


def words() -> Any:
    return stack(
        (12,),
        L.Embedding(30, 6),
        L.BatchNormalization(),
        L.Conv1D(5, 3, activation="relu"),
        L.BatchNormalization(),
        L.GlobalAveragePooling1D(),
        L.Dense(2),
    )


def axes() -> Any:
    """Axis 1 of channels-first data; scaling at the start."""
    return stack(
        (8, 9, 3),
        L.Rescaling(1 / 127.5, offset=-1),
        L.Conv2D(4, 3),
        L.Permute((3, 1, 2)),
        L.BatchNormalization(axis=1),
        L.Flatten(),
        L.Dense(3),
    )


def several() -> Any:
    left, right = keras.Input((6,), name="left"), keras.Input((4,), name="right")
    joined = L.Concatenate()([L.BatchNormalization()(L.Dense(5)(left)), L.Dense(3)(right)])
    x = L.BatchNormalization()(joined)
    return keras.Model(
        {"left": left, "right": right}, [L.Dense(2, name="kind")(x), L.Dense(1, name="size")(x)]
    )


def excited() -> Any:
    """Squeeze and excite: channels are weighted by what the channels say."""
    image = keras.Input((8, 8, 3))
    x = L.Activation("silu")(L.BatchNormalization()(L.Conv2D(6, 3, padding="same")(image)))
    gate = L.Reshape((1, 1, 6))(L.Dense(6, activation="sigmoid")(L.GlobalAveragePooling2D()(x)))
    x = L.BatchNormalization()(L.Conv2D(4, 1, use_bias=False)(L.Multiply()([x, gate])))
    up = L.UpSampling2D(2, interpolation="bilinear")(L.MaxPooling2D()(x))
    return keras.Model(image, L.Conv2D(1, 1, activation="sigmoid")(L.Concatenate()([x, up])))


# Net -> its batch-norms in the graph, and how many of them at least fold with positive gammas.
NETS: dict[str, tuple[Callable[[], Any], int, int]] = {
    "dense": (dense, 1, 1),
    "mlp": (mlp, 2, 2),
    "cnn": (cnn, 2, 2),
    "padded": (padded, 2, 1),
    "residual": (residual, 6, 6),
    "mobile": (mobile, 3, 3),
    "lines": (lines, 4, 4),
    "volume": (volume, 2, 2),
    "nested": (nested, 4, 4),
    "steps": (steps, 4, 3),
    "words": (words, 2, 2),
    "axes": (axes, 1, 1),
    "several": (several, 2, 2),
    "excited": (excited, 2, 2),
}
