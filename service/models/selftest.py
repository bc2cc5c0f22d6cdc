"""selftest.npz: inputs, and the outputs that the float64 oracle gave for them.

A version is served only if this machine, this provider and this onnxruntime reproduce them:
max |output - expected| <= atol for a float output, wherever a finite number is expected;
equality for every other dtype.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from service.errors import ServiceError
from service.manifest import Manifest
from service.models.bundle import Rejected, own_file
from service.models.held import Held
from service.signature import Signature, Tensors

_LARGEST_UNPACKED_BYTES = 2 * 1024**3
# What zipfile and numpy raise for archives that are damaged, or that claim more than there is.
_UNREADABLE = (
    OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error, MemoryError, RuntimeError,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class SelfTestData:
    """Arrays of selftest.npz by name of input and output."""

    inputs: Tensors
    outputs: Tensors
    atol: dict[str, float]


def load(source: Path | Held, manifest: Manifest, signature: Signature) -> SelfTestData | None:
    """The self-test of a version, checked against its signature; None when it has none.

    Args:
        source: the version's folder, or its files as they are held in memory.

    Raises:
        Rejected: unreadable, incomplete, or made for another signature.
    """
    if manifest.self_test is None:
        return None
    name = manifest.self_test.file
    where = io.BytesIO(source.files[name]) if isinstance(source, Held) else own_file(source, name)
    arrays = _read(where, name)
    inputs = {key.removeprefix("input:"): a for key, a in arrays.items() if key[:6] == "input:"}
    outputs = {key.removeprefix("output:"): a for key, a in arrays.items() if key[:7] == "output:"}
    if len(inputs) + len(outputs) != len(arrays):
        raise Rejected(f"{name} has arrays that are neither 'input:<name>' nor 'output:<name>'")
    try:
        signature.check(inputs)
    except ServiceError as error:
        raise Rejected(f"{name} does not suit the model: {error.message}") from None
    atol = manifest.self_test.atol
    expected = set(signature.outputs)
    if not outputs or not expected.issuperset(outputs) or not set(outputs).issuperset(atol):
        raise Rejected(f"{name} and self_test.atol do not name the model's outputs alike")
    for key, array in outputs.items():
        if array.dtype.kind == "f" and key not in atol:
            raise Rejected(f"self_test.atol has no tolerance for the float output {key!r}")
        if array.dtype.kind == "f" and array.size and not np.isfinite(array).any():
            raise Rejected(f"{name} expects NaN or infinity from output {key!r}: it proves nothing")
    return SelfTestData(inputs, outputs, dict(atol))


def compare(data: SelfTestData, got: Tensors) -> dict[str, float]:
    """The largest absolute difference for each expected output (0.0 where equality is asked).

    Raises:
        Rejected: an output differs by more than its tolerance, or in shape.
    """
    errors = {}
    for name, expected in data.outputs.items():
        actual = got[name]
        if actual.shape != expected.shape:
            raise Rejected(
                f"self-test failed: output {name!r} has shape {actual.shape}, "
                f"expected {expected.shape}"
            )
        if expected.dtype.kind != "f" and actual.dtype.kind != "f":
            if not np.array_equal(actual, expected):
                raise Rejected(f"self-test failed: output {name!r} differs")
            errors[name] = 0.0
            continue
        finite = np.isfinite(expected)
        difference = np.abs(actual[finite].astype(np.float64) - expected[finite].astype(np.float64))
        worst = float(difference.max(initial=0.0))
        # Written so that NaN, which is not greater than anything, fails too.
        if not worst <= data.atol.get(name, 0.0):
            raise Rejected(
                f"self-test failed: output {name!r} is off by {worst:.3g}, "
                f"allowed {data.atol.get(name, 0.0):.3g}"
            )
        errors[name] = worst
    return errors


def _read(where: Path | io.BytesIO, name: str) -> Tensors:
    try:
        with zipfile.ZipFile(where) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
        if unpacked > _LARGEST_UNPACKED_BYTES:
            raise Rejected(f"{name} unpacks to {unpacked} bytes, more than is sensible")
        if isinstance(where, io.BytesIO):
            where.seek(0)
        with np.load(where, allow_pickle=False) as archive:
            return {key: _strings_as_objects(archive[key]) for key in archive.files}
    except _UNREADABLE as error:
        raise Rejected(f"{name} cannot be read: {type(error).__name__}") from None


def _strings_as_objects(array: np.ndarray) -> np.ndarray:
    """The file holds strings in numpy's own form, which needs no pickle; sessions take objects."""
    return array.astype(object) if array.dtype.kind == "U" else array
