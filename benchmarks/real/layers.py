"""Layers of Keras files that are in no version of Keras, written anew; for `--custom-objects`.

They are named as the files name them.
"""

from __future__ import annotations

from typing import Any

import keras


@keras.saving.register_keras_serializable()
class ConvDNA(keras.layers.Conv1D):  # type: ignore[misc]
    """mmsplice's: a convolution over one-hot bases; `seq_length` only says how long they are."""

    def __init__(self, *args: Any, seq_length: int | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.seq_length = seq_length


@keras.saving.register_keras_serializable()
class GlobalAveragePooling1D_Mask0(keras.layers.Layer):  # type: ignore[misc]  # noqa: N801
    """mmsplice's: the mean over the positions where the sequence itself is not padding.

    Of [(N, L, C), the one-hot sequence (N, L, 4)]; a position of the padding is all zeros.
    """

    def __init__(self, data_format: str = "channels_last", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.data_format = data_format

    def call(self, inputs: Any) -> Any:
        values, sequence = inputs
        there = keras.ops.max(sequence, axis=2, keepdims=True)
        count = keras.ops.maximum(keras.ops.sum(there, axis=1), keras.config.epsilon())
        return keras.ops.sum(values * there, axis=1) / count

    def compute_output_shape(self, shapes: Any) -> Any:
        return (shapes[0][0], shapes[0][2])
