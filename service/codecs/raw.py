"""Raw bytes to tensors and back: little-endian, C order, nothing else.

Strings have no fixed size: each stands behind its length (see `strings`).

No copy is made: the array looks into the body. It is copied only if the tensor starts at an
address that does not suit its dtype, as it may behind a JSON header.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence

import numpy as np

from service.codecs import strings
from service.errors import InvalidBody, OutOfRange, WrongShape, WrongType
from service.manifest import TensorSpec
from service.signature import NUMPY_DTYPES, STRING, check_size, show

_LITTLE_ENDIAN = {
    name: dtype if sys.byteorder == "little" else dtype.newbyteorder("<")
    for name, dtype in NUMPY_DTYPES.items()
}


def array(
    body: bytes | memoryview,
    spec: TensorSpec,
    shape: Sequence[int],
    offset: int = 0,
    size: int | None = None,
) -> np.ndarray:
    """The tensor of that shape in `size` bytes of `body` from `offset` on.

    Args:
        body: stays alive as long as the array.
        spec: of the input; its dtype is read, its shape is not.
        shape: sizes of all axes, each at least 0.
        offset, size: in bytes; the whole body by default.

    Raises:
        WrongShape: the bytes are too many or too few for the shape.
        OutOfRange: a bool is neither 0 nor 1.
        TensorTooLarge: more than --max-tensor-bytes.
        InvalidUtf8: a string is not UTF-8.
    """
    size = len(body) - offset if size is None else size
    if spec.dtype == STRING:
        return strings.of_binary(memoryview(body)[offset : offset + size], spec, shape)
    dtype = _LITTLE_ENDIAN[spec.dtype]
    count = math.prod(shape)
    if count * dtype.itemsize != size:
        raise WrongShape(
            f"Input {spec.name!r} has {size} bytes; {spec.dtype} of shape {show(shape)} "
            f"takes {count * dtype.itemsize}."
        )
    check_size(spec, shape)
    flat = np.frombuffer(body, dtype, count, offset) if count else np.empty(0, dtype)
    if dtype.kind == "b" and count and flat.view(np.uint8).max() > 1:
        raise OutOfRange(f"Input {spec.name!r} has bytes other than 0 and 1 for bool.")
    if not flat.flags.aligned or not dtype.isnative:
        flat = flat.astype(NUMPY_DTYPES[spec.dtype])
    return reshaped(flat, spec, shape)


def reshaped(flat: np.ndarray, spec: TensorSpec, shape: Sequence[int]) -> np.ndarray:
    """The elements in that shape, without a copy; raises WrongShape if numpy has no such one."""
    try:
        return flat.reshape(shape)
    except (ValueError, OverflowError):  # (0, 2**62): no elements, and yet too many
        raise WrongShape(f"Input {spec.name!r} cannot have the shape {show(shape)}.") from None


def deduce_shape(spec: TensorSpec, size: int) -> list[int]:
    """The shape that `size` bytes have when at most one axis of the input is open.

    Raises:
        InvalidBody: more than one axis is open, or the elements are strings.
        WrongShape: the bytes are no whole number of elements of that axis.
    """
    if spec.dtype == STRING:
        raise InvalidBody(
            f"The size of the body does not tell how many strings it holds for {spec.name!r}.",
            hint="Send their shape in a header, for example X-Shape: 1,3.",
        )
    open_axes = [axis for axis, dim in enumerate(spec.shape) if isinstance(dim, str)]
    if len(open_axes) > 1:
        raise InvalidBody(
            f"The size of the body alone does not tell the shape of {spec.name!r}, "
            f"{show(spec.shape)}.",
            hint="Send the shape in a header, for example X-Shape: 1,3,224,224.",
        )
    shape = [dim if isinstance(dim, int) else 1 for dim in spec.shape]
    step = math.prod(shape) * NUMPY_DTYPES[spec.dtype].itemsize
    if step and open_axes:
        shape[open_axes[0]], rest = divmod(size, step)
        if rest:
            raise WrongShape(
                f"Input {spec.name!r} of shape {show(spec.shape)} takes a multiple of {step} "
                f"bytes, received {size}."
            )
    return shape


def only_input(inputs: dict[str, TensorSpec], what: str) -> TensorSpec:
    """The one input of the model; raises WrongType when it has several."""
    if len(inputs) > 1:
        raise WrongType(
            f"The model has {len(inputs)} inputs, but {what} carries one tensor.",
            hint="Send JSON, or binary tensors of the Open Inference Protocol, each with its name.",
        )
    return next(iter(inputs.values()))


def bytes_of(tensor: np.ndarray) -> bytes:
    """The elements, little-endian and in C order; strings each behind its length."""
    if tensor.dtype.kind == "O":
        return strings.binary(tensor)
    if sys.byteorder == "little" and tensor.dtype.isnative:
        return tensor.tobytes()
    return tensor.astype(tensor.dtype.newbyteorder("<"), copy=False).tobytes()
