"""What a model takes and gives, and the check that every request passes before the queue.

Whatever the wire format, a codec turns bytes into {name: array}; `Signature.check` then
proves that these arrays suit the model, so that one wrong shape never reaches a batch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from service.axes import is_symbol
from service.errors import (
    BatchMismatch,
    EmptyBatch,
    MissingInput,
    TensorTooLarge,
    UnknownInput,
    UnknownOutput,
    WrongRank,
    WrongShape,
    WrongType,
)
from service.manifest import Dim, Manifest, TensorSpec

Tensors = dict[str, np.ndarray]

# The element types that numpy has and the protocols can carry; bfloat16 is not among them. An
# array of strings holds str objects, as onnxruntime takes and gives them.
STRING = "string"
NUMPY_DTYPES: dict[str, np.dtype] = {
    **{
        name: np.dtype(name)
        for name in (
            "float16", "float32", "float64", "int8", "int16", "int32", "int64",
            "uint8", "uint16", "uint32", "uint64", "bool",
        )
    },
    STRING: np.dtype(object),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Signature:
    """Inputs and outputs by name, in the graph's order.

    `batched`: axis 0 of every tensor counts independent rows, as many as the request likes.
    """

    inputs: dict[str, TensorSpec]
    outputs: dict[str, TensorSpec]
    batched: bool
    # The graph's other outputs, and why they are not served.
    left_out: dict[str, str] = field(default_factory=dict)
    # (name, dtype, sizes of a row) of each input, if only the number of rows is open: what a
    # request is compared with first.
    rows: tuple[tuple[str, np.dtype, tuple[int, ...]], ...] = ()
    # Whether an input holds strings, which are decoded one by one.
    texts: bool = False
    # What a codec has worked out for this signature and may need again; it bounds the number.
    kept: dict[Any, Any] = field(default_factory=dict, compare=False, repr=False)

    @classmethod
    def of(
        cls,
        manifest: Manifest,
        max_tensor_bytes: int | None = None,
        left_out: Mapping[str, str] | None = None,
    ) -> Signature:
        """The signature of a model.

        Args:
            max_tensor_bytes: what one input may take at most.
            left_out: outputs that are not served, and why; None for what the manifest says.
        """
        if max_tensor_bytes is not None:
            for spec in manifest.inputs:
                spec.limit(max_tensor_bytes)
        rows = [_row(spec) for spec in manifest.inputs]
        plain = [row for row in rows if row is not None]
        return cls(
            inputs={spec.name: spec for spec in manifest.inputs},
            outputs={spec.name: spec for spec in manifest.outputs},
            batched=manifest.dynamic_batch,
            left_out=dict(manifest.left_out if left_out is None else left_out),
            rows=tuple(plain) if manifest.dynamic_batch and len(plain) == len(rows) else (),
            texts=any(spec.dtype == STRING for spec in manifest.inputs),
        )

    def check_names(self, given: Mapping[str, object]) -> None:
        """Raises UnknownInput or MissingInput unless `given` has exactly the input names."""
        for name in given:
            if name not in self.inputs:
                raise UnknownInput(f"The model has no input {name!r}; it has {self.names()}.")
        for name in self.inputs:
            if name not in given:
                raise MissingInput(f"The input {name!r} is missing; the model has {self.names()}.")

    def check(self, tensors: Tensors) -> int:
        """Check names, dtypes and shapes; the number of rows (at least 1) is returned.

        Raises:
            MissingInput, UnknownInput, WrongType, WrongRank, WrongShape, EmptyBatch,
            BatchMismatch: with the expected and the received shape.
        """
        if self.rows and len(tensors) == len(self.rows) and (count := self._count(tensors)):
            return count
        self.check_names(tensors)
        # Symbol -> its size and the input that set it; "" is the number of rows, which is one for
        # the whole request, whatever each input calls it.
        sizes: dict[str, tuple[int, str]] = {}
        rows = 1
        for position, (name, spec) in enumerate(self.inputs.items()):
            array = tensors[name]
            if array.dtype != NUMPY_DTYPES[spec.dtype]:
                raise WrongType(f"Input {name!r} is {dtype_name(array)}, expected {spec.dtype}.")
            check_shape(spec, array.shape)
            for axis, (dim, size) in enumerate(zip(spec.shape, array.shape, strict=True)):
                symbols = [""] if self.batched and axis == 0 else []
                if isinstance(dim, str) and is_symbol(dim):
                    symbols.append(dim)
                for symbol in symbols:
                    known, owner = sizes.setdefault(symbol, (size, name))
                    if known != size:
                        raise BatchMismatch(
                            f"Input {name!r} has size {size} on axis {axis} "
                            f"({symbol or 'batch'}), but input {owner!r} has {known}."
                        )
            if position == 0 and array.ndim:
                rows = array.shape[0]
        return rows

    def _count(self, tensors: Tensors) -> int:
        """The number of rows if everything is as it should be, else 0."""
        count = -1
        for name, dtype, row_shape in self.rows:
            array = tensors.get(name)
            if array is None or array.dtype != dtype:
                return 0
            shape = array.shape
            if not shape or shape[1:] != row_shape or count not in (-1, shape[0]):
                return 0
            count = shape[0]
        return count

    def answer_row_bytes(self) -> int:
        """What the outputs take for each row at least: open sizes and strings are not known."""
        if not self.batched:
            return 0
        rows = [row for row in map(_row, self.outputs.values()) if row is not None]
        return sum(d.itemsize * math.prod(sizes) for _, d, sizes in rows if d.kind != "O")

    def unknown_output(self, name: str) -> UnknownOutput:
        """The error for an output that is asked for by name, and is not among `outputs`."""
        shown, others = repr(name[:128]), listing(self.outputs)
        if name in self.left_out:
            return UnknownOutput(
                f"The model's output {shown} is not served: {self.left_out[name]}.",
                hint=f"Ask for {others}.",
            )
        return UnknownOutput(f"The model has no output {shown}; it has {others}.")

    def names(self) -> str:
        return listing(self.inputs)


def _row(spec: TensorSpec) -> tuple[str, np.dtype, tuple[int, ...]] | None:
    """Name, dtype and sizes of a row, if they are all fixed and there is something in it."""
    sizes = tuple(dim for dim in spec.shape[1:] if isinstance(dim, int) and dim > 0)
    if not spec.shape or len(sizes) + 1 < len(spec.shape) or spec.dtype not in NUMPY_DTYPES:
        return None
    return spec.name, NUMPY_DTYPES[spec.dtype], sizes


def size_of(tensors: Tensors) -> int:
    """What they take in memory, in bytes; of strings about as much, as most are short."""
    text_bytes = 64
    return sum(
        [a.nbytes + (text_bytes * a.size if a.dtype.kind == "O" else 0) for a in tensors.values()]
    )


def dtype_name(array: np.ndarray) -> str:
    """The element type of an array as a manifest names it."""
    return STRING if array.dtype.kind == "O" else array.dtype.name


def check_size(spec: TensorSpec, shape: Sequence[int]) -> None:
    """Raises TensorTooLarge for more bytes than the server takes; ask before allocating them."""
    size = math.prod(shape) * NUMPY_DTYPES[spec.dtype].itemsize
    if size > spec.max_bytes:
        raise TensorTooLarge(
            f"Input {spec.name!r} of shape {show(shape)} takes {size} bytes, "
            f"{spec.max_bytes} are the most."
        )


def check_shape(spec: TensorSpec, received: Sequence[int]) -> None:
    """Raises WrongRank, EmptyBatch or WrongShape unless `received` is an instance of the spec."""

    def what() -> str:
        expected, got = show(spec.shape), show(received)
        return f"Input {spec.name!r}: expected shape {expected}, received {got}"

    if len(received) != len(spec.shape):
        raise WrongRank(f"{what()}.")
    for axis, (dim, size) in enumerate(zip(spec.shape, received, strict=True)):
        if isinstance(dim, str):
            if size == 0:
                hint = None if axis == 0 else "Send at least one element on every axis."
                raise EmptyBatch(f"{what()}: axis {axis} ({dim}) is empty.", hint=hint)
        elif dim != size:
            raise WrongShape(f"{what()}: axis {axis} must be {dim}.")


def show(shape: Sequence[Dim]) -> str:
    """`(batch, 3, 224, 224)`; a one-axis shape keeps its comma."""
    inside = ", ".join(map(str, shape))
    return f"({inside},)" if len(shape) == 1 else f"({inside})"


def listing(names: Mapping[str, object] | Sequence[str]) -> str:
    """`'x', 'mask'` for a message."""
    return ", ".join(repr(name) for name in names) or "none"
