"""Weights that stay in their file until somebody needs their numbers.

Each access reads the numbers again and keeps nothing, so that a model of many gigabytes costs the
memory of the tensor that is being looked at. Files are read, not mapped into memory: a mapped
file that somebody cuts off ends the process (SIGBUS), a read is an error that can be told.
"""

from __future__ import annotations

import os
import sys
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from converter.errors import UserError

# Smaller tensors are held in memory: reading them again and again costs more than they do.
LARGE = 1 << 16


class OpenFile:
    """A file that stays open while a tensor of it lives, and that must not change meanwhile.

    A file that is replaced by another one of its name is no matter: this one remains.

    Raises:
        OSError: it cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        weakref.finalize(self, os.close, self._descriptor)
        self._state = self._stat()

    @property
    def size(self) -> int:
        return self._state[0]

    def read(self, offset: int, length: int) -> npt.NDArray[np.uint8]:
        """`length` bytes from `offset` on.

        Raises:
            UserError: the file has changed since it was opened, or cannot be read.
        """
        content = np.empty(length, np.uint8)
        rest = content.data
        try:
            while rest:
                count = os.preadv(self._descriptor, [rest], offset)
                if not count:
                    break
                rest, offset = rest[count:], offset + count
            same = self._stat() == self._state
        except OSError as error:
            raise UserError(f"cannot read {self.path}: {error.strerror}.") from error
        if rest or not same:
            raise UserError(
                f"{self.path} was changed while it was being read.",
                "Start again with a file at rest.",
            )
        return content

    def _stat(self) -> tuple[int, int]:
        found = os.fstat(self._descriptor)
        return found.st_size, found.st_mtime_ns


def fits(dtype: ir.DataType) -> bool:
    """Whether tensors of this type can stay in their file: numbers of whole bytes."""
    return dtype not in {ir.DataType.STRING, ir.DataType.UNDEFINED} and dtype.bitwidth >= 8


def tensor_in(
    file: OpenFile, offset: int, dtype: ir.DataType, shape: ir.Shape, name: str | None
) -> ir.LazyTensor:
    """The tensor whose numbers lie in `file` from `offset` on, in ONNX's order (little-endian)."""
    kind = np.dtype(dtype.numpy())
    sizes = tuple(shape.numpy())
    length = kind.itemsize * int(np.prod(sizes, dtype=object))

    def read() -> ir.TensorProtocol:
        array: npt.NDArray[Any] = file.read(offset, length).view(kind)
        if sys.byteorder == "big":
            array = array.byteswap()
        return ir.Tensor(array.reshape(sizes), dtype=dtype, shape=shape, name=name)

    return ir.LazyTensor(read, dtype, shape, name=name)
