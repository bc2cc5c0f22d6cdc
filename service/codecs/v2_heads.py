"""Heads that come again: a client that sends binary tensors sends the same JSON each time.

The JSON before the binary data tells names, shapes and sizes, not values. Once it has been read
and found in order, the same bytes mean the same for the same model, so the next request needs
one look-up, and its answer, if the outputs have the same shapes, the same JSON as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from service.codecs import raw
from service.codecs.wish import Wish
from service.manifest import TensorSpec
from service.signature import NUMPY_DTYPES, Signature, Tensors

_MOST_HEADS = 64
_MOST_ANSWERS = 16
_LONGEST_BYTES = 4096


class Wanted(NamedTuple):
    """An output that the request asks for; `classes` above 0 asks for the best ones instead."""

    name: str
    binary: bool
    classes: int = 0


class Answer(NamedTuple):
    """The JSON of an answer, and the headers that tell its length."""

    text: bytes
    headers: tuple[tuple[bytes, bytes], ...]


class Head:
    """What a head says. Never changed, but for the answers that are kept.

    Args:
        inputs: in the order of their bytes, each with its shape; all of them binary.
        size: of the whole body.
        offset: of the binary data.
        outputs: as asked for, empty for all.
        binary: whether all of them are to be binary.
        plain: whether the answer is binary tensors alone.
        wish: of the request for itself.
    """

    def __init__(
        self,
        inputs: Sequence[tuple[TensorSpec, tuple[int, ...], int]],
        size: int,
        offset: int,
        outputs: list[Wanted],
        binary: bool,
        plain: bool,
        wish: Wish,
    ) -> None:
        self.outputs = outputs
        self.wish = wish
        self.binary = binary
        # How the answers are written; set by who writes them.
        self.how: Any = None
        self.size = size
        # Name, dtype, shape and place of each; a dtype of None is not read as it lies.
        self._inputs: list[tuple[TensorSpec, np.dtype | None, tuple[int, ...], int, int]] = []
        for spec, shape, nbytes in inputs:
            dtype = NUMPY_DTYPES[spec.dtype]
            if dtype.kind == "b" or not dtype.isnative:  # not every byte is a bool
                self._inputs.append((spec, None, shape, offset, nbytes))
            else:  # the sizes were found in order with the head
                self._inputs.append((spec, dtype, shape, offset, nbytes))
            offset += nbytes
        self._plain = plain
        self._names = [wanted.name for wanted in outputs]
        self._answers: dict[tuple[tuple[int, ...], ...], Answer] = {}

    def tensors(self, body: bytes | memoryview) -> Tensors:
        """The inputs in a body of `size` bytes that begins with this head."""
        tensors: Tensors = {}
        for spec, dtype, shape, offset, size in self._inputs:
            if dtype is None:
                tensors[spec.name] = raw.array(body, spec, shape, offset, size)
                continue
            # Where it begins may not suit the dtype: it is copied before it is run, in any case.
            tensors[spec.name] = np.ndarray(shape, dtype, body, offset)
        return tensors

    def answer(self, outputs: Tensors) -> tuple[bytes, Answer] | None:
        """The whole answer and what is known of it, if such shapes were answered before."""
        shapes, parts = [], [b""]
        for name in self._names or outputs:
            array = outputs[name]
            shapes.append(array.shape)
            parts.append(raw.bytes_of(array))
        answer = self._answers.get(tuple(shapes))
        if answer is None:
            return None
        parts[0] = answer.text
        return b"".join(parts), answer

    def keep_answer(self, outputs: Tensors, text: bytes) -> None:
        """Remember the JSON for outputs of these shapes; of strings these do not tell the bytes."""
        arrays = [outputs[name] for name in self._names or outputs]
        strings = any(array.dtype.kind == "O" for array in arrays)
        if self._plain and not strings and len(self._answers) < _MOST_ANSWERS:
            length = str(len(text)).encode()
            made = Answer(text, ((b"inference-header-content-length", length),))
            self._answers[tuple([array.shape for array in arrays])] = made


def known(text: bytes, size: int, signature: Signature) -> Head | None:
    """What `keep` kept for this head, if the body has the size that it says."""
    head = signature.kept.get(text)
    return head if isinstance(head, Head) and head.size == size else None


def keep(
    text: bytes,
    tensors: Tensors,
    outputs: list[Wanted],
    binary: bool,
    wish: Wish,
    signature: Signature,
) -> Head | None:
    """Remember a head.

    Args:
        tensors: what it and its binary data were read as, in the order of their bytes.
    """
    # Of strings the sizes do not tell the bytes.
    if len(text) > _LONGEST_BYTES or not tensors or signature.texts:
        return None
    inputs = [(signature.inputs[name], a.shape, a.nbytes) for name, a in tensors.items()]
    plain = all(w.binary and not w.classes for w in outputs) if outputs else binary
    size = len(text) + sum(nbytes for _, _, nbytes in inputs)
    head = Head(inputs, size, len(text), outputs, binary, plain, wish)
    if len(signature.kept) >= _MOST_HEADS:
        signature.kept.clear()
    signature.kept[text] = head
    return head
