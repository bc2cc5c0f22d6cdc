"""The arrays that a program gives to a model, as onnxruntime takes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from service.embedding.errors import InvalidInput
from service.manifest import TensorSpec
from service.signature import STRING


def plain(name: str, value: Any, inputs: Mapping[str, TensorSpec]) -> np.ndarray:
    """The array as onnxruntime takes it; anything that would have to be guessed is refused."""
    if type(value) is np.ndarray and value.dtype.isnative and value.dtype.kind not in "OU":
        return value
    if name not in inputs:
        return np.asarray(value)  # the check of the names refuses it
    expected = inputs[name].dtype
    if not isinstance(value, np.ndarray | np.generic) or isinstance(value, np.ma.MaskedArray):
        raise InvalidInput(
            f"Input {name!r} is a {type(value).__name__}, expected a numpy array of {expected}.",
            "wrong_type",
        )
    array = np.asarray(value)
    if array.dtype.kind == "U":
        return array.astype(object)
    if array.dtype.kind == "O":
        if expected != STRING:
            raise InvalidInput(
                f"Input {name!r} is an array of Python objects, expected {expected}.", "wrong_type"
            )
        _refuse_all_but_texts(name, array.ravel().tolist())
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def _refuse_all_but_texts(name: str, elements: Sequence[object]) -> None:
    """onnxruntime would write whatever it finds as a string, None as "None"."""
    for position, element in enumerate(elements):
        if not isinstance(element, str):
            raise InvalidInput(
                f"Input {name!r} holds a {type(element).__name__} at position {position}, "
                "expected str.",
                "wrong_type",
            )
