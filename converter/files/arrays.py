"""Arrays that numpy wrote, an .npz or an .npy, read as plain numbers within bounds.

Nothing is unpickled. A header can claim any size, so it is compared with what the file really
holds before anything is allocated.
"""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from converter.errors import UserError, first_line

Array = npt.NDArray[Any]

# What zipfile and numpy raise for files that are damaged, encrypted or do not hold arrays.
_UNREADABLE = (
    zipfile.BadZipFile, zipfile.LargeZipFile, zlib.error, EOFError, RuntimeError, ValueError,
)  # fmt: skip
_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


class Arrays(Mapping[str, Array]):
    """The arrays of an open file by name; each is read on access.

    Args:
        archive: of an .npz; None for an .npy, whose array has the name "".
        largest: how many bytes one array may have, None for no limit.
    """

    def __init__(
        self, path: Path, file: IO[bytes], archive: zipfile.ZipFile | None, largest: int | None
    ) -> None:
        self.path, self.file, self.archive, self.largest = path, file, archive, largest
        entries = archive.namelist() if archive else [".npy"]
        self.names = {n.removesuffix(".npy"): None for n in entries if n.endswith(".npy")}

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, name: str) -> Array:
        """Raises KeyError for an unknown name, UserError for an entry that is not an array."""
        if name not in self.names:
            raise KeyError(name)
        if self.archive is None:
            self.file.seek(0)
            return self._read(self.path.name, self.file, self.path.stat().st_size)
        entry = self.archive.getinfo(f"{name}.npy")
        with self.archive.open(entry) as file:
            return self._read(f"{name!r} of {self.path}", file, entry.file_size)

    def _read(self, what: str, file: IO[bytes], available: int) -> Array:
        try:
            version = np.lib.format.read_magic(file)
            if version not in _HEADERS:
                raise ValueError(f"version {version} of the format")
            shape, fortran, dtype = _HEADERS[version](file)
        except (ValueError, EOFError) as error:
            raise UserError(f"{what} is not an array: {first_line(error)}") from error
        size = math.prod(shape) * dtype.itemsize
        if dtype.hasobject:
            raise UserError(f"{what} holds Python objects, which are not read")
        if self.largest is not None and size > self.largest:
            raise UserError(f"{what} claims {size:,} bytes, {self.largest:,} are read")
        if size != available - file.tell():
            raise UserError(f"{what} is damaged: its size is not that of its shape")
        content = file.read(size)
        if len(content) != size:
            raise UserError(f"{what} is damaged: it ends early")
        flat = np.frombuffer(content, dtype) if size else np.empty(math.prod(shape), dtype)
        return flat.reshape(shape, order="F" if fortran else "C")


@contextmanager
def opened(path: Path, hint: str = "", largest: int | None = None) -> Iterator[Arrays]:
    """The arrays of a file while the block lasts.

    Args:
        hint: what the user should give instead, for the error.

    Raises:
        UserError: it cannot be read, or is neither .npz nor .npy; within the block also for an
            array that is damaged, holds Python objects or is larger than `largest` bytes.
    """
    try:
        with ExitStack() as stack:
            file = stack.enter_context(path.open("rb"))
            archive = None
            if zipfile.is_zipfile(file):
                archive = stack.enter_context(zipfile.ZipFile(file))
            elif not _is_npy(file):
                raise UserError(f"{path} cannot be read as arrays: it is no .npz and no .npy", hint)
            yield Arrays(path, file, archive, largest)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}", hint) from error
    except _UNREADABLE as error:
        raise UserError(f"{path} cannot be read as arrays: {first_line(error)}", hint) from error


def _is_npy(file: IO[bytes]) -> bool:
    file.seek(0)
    return file.read(len(np.lib.format.MAGIC_PREFIX)) == np.lib.format.MAGIC_PREFIX


def load(path: Path, hint: str = "") -> dict[str, Array]:
    """All arrays of a file, "" for that of an .npy. Raises UserError, see `opened`."""
    with opened(path, hint) as found:
        return dict(found)
