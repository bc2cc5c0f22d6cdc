"""Weights that stay in a file until their numbers are needed.

Each access reads the numbers again and keeps nothing, so that a model of many gigabytes only takes
the memory of the tensor in use. Files are read, not mapped into memory: if a mapped file is
truncated, the process is killed (SIGBUS); a failed read is an error that can be reported.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import weakref
from collections.abc import Callable, Iterator
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from converter.errors import UserError

# Smaller tensors are held in memory: reading them again and again costs more than they do.
LARGE = 1 << 16
# With at least this many bytes of weights, folded ones are kept in a file, not in memory beside a
# runtime that holds them too: there, saving memory is worth the time to write them once more.
SPOOLED = 1 << 28

# Stores new weights; called with (numbers, name).
Store = Callable[[npt.NDArray[Any], str | None], ir.TensorProtocol]


def store_for(size: int) -> Store:
    """The store for the folded weights of a model whose weights have `size` bytes."""
    return Spool().store if size >= SPOOLED else in_memory


def in_memory(values: npt.NDArray[Any], name: str | None) -> ir.TensorProtocol:
    """The usual `Store`."""
    return ir.tensor(values, name=name)


class OpenFile:
    """A file that stays open as long as a tensor in it is used, and must not change in that time.

    If another file takes its name, that does not matter: this one stays readable.

    Raises:
        OSError: it cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor = self._open(path)
        weakref.finalize(self, os.close, self._descriptor)
        self._state = self._stat()

    def _open(self, path: Path) -> int:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)

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


class Spool(OpenFile):
    """A temporary file for new tensors: it has no name, and disappears with them.

    Raises:
        UserError: it cannot be created.
    """

    def __init__(self) -> None:
        self._end = 0
        with self._room():
            super().__init__(Path(tempfile.gettempdir()))

    def _open(self, path: Path) -> int:
        descriptor, name = tempfile.mkstemp(prefix="foldserve-", dir=path)
        Path(name).unlink()
        return descriptor

    def _stat(self) -> tuple[int, int]:
        return 0, 0  # it grows, but no other process can write to it

    def store(self, array: npt.NDArray[Any], name: str | None = None) -> ir.TensorProtocol:
        """A tensor of these numbers; if it is large, they are kept in the file.

        Raises:
            UserError: there is no space for them.
        """
        kind = ir.tensor(array, name=name)
        if array.nbytes < LARGE or not fits(kind.dtype):
            return kind
        content = np.ascontiguousarray(array).reshape(-1)
        if sys.byteorder == "big":
            content = content.byteswap()
        rest = content.view(np.uint8).data
        offset = self._end
        with self._room():
            while rest:
                count = os.pwrite(self._descriptor, rest, self._end)
                rest, self._end = rest[count:], self._end + count
        return tensor_in(self, offset, kind.dtype, ir.Shape(array.shape), name)

    @contextlib.contextmanager
    def _room(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise UserError(
                f"there is no room for the folded weights in {tempfile.gettempdir()}: "
                f"{error.strerror or error}.",
                "Set TMPDIR to a folder with room for the model.",
            ) from error


def fits(dtype: ir.DataType) -> bool:
    """Whether tensors of this type can stay in their file: their numbers take whole bytes."""
    return dtype not in {ir.DataType.STRING, ir.DataType.UNDEFINED} and dtype.bitwidth >= 8


class TensorInFile(ir.LazyTensor):
    """A tensor whose numbers lie in `file` from `offset` on, in ONNX's order (little-endian)."""

    def __init__(
        self, file: OpenFile, offset: int, dtype: ir.DataType, shape: ir.Shape, name: str | None
    ) -> None:
        super().__init__(self._whole, dtype, shape, name=name)
        self._file, self._offset = file, offset
        self._kind = np.dtype(dtype.numpy())
        self._sizes = tuple(int(size) for size in shape.numpy())

    def part(self, begin: int, end: int) -> npt.NDArray[Any]:
        """What lies from `begin` to `end` along the first axis; no more than that is read.

        Raises:
            UserError: the file has changed since it was opened, or cannot be read.
        """
        row = self._kind.itemsize * prod(self._sizes[1:])
        return self._read(self._offset + begin * row, (end - begin, *self._sizes[1:]))

    def _whole(self) -> ir.TensorProtocol:
        array = self._read(self._offset, self._sizes)
        return ir.Tensor(array, dtype=self.dtype, shape=self.shape, name=self.name)

    def _read(self, offset: int, sizes: tuple[int, ...]) -> npt.NDArray[Any]:
        content = self._file.read(offset, self._kind.itemsize * prod(sizes))
        array: npt.NDArray[Any] = content.view(self._kind)
        if sys.byteorder == "big":
            array = array.byteswap()
        return array.reshape(sizes)


def tensor_in(
    file: OpenFile, offset: int, dtype: ir.DataType, shape: ir.Shape, name: str | None
) -> TensorInFile:
    """The tensor whose numbers lie in `file` from `offset` on."""
    return TensorInFile(file, offset, dtype, shape, name)
