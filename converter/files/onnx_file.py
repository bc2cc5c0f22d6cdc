"""Write a model to disk: atomically, with bounded memory, the same bytes every time.

A protobuf library needs the whole message in memory twice. Here the message is put together from
parts that the library serialises: everything except the weights, then each
weight as field 5 (`initializer`) of field 7 (`graph`), its numbers as field 9 (`raw_data`),
straight from the tensor (protobuf encoding: developers.google.com/protocol-buffers).
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
import onnx
import onnx_ir as ir

from converter.errors import UserError
from converter.files import slim
from converter.files.atomic import aside, stale, sync_directory, umask
from converter.files.on_disk import fits
from converter.files.wire import tag, varint

# Protobuf messages are limited to 2 GiB; beyond this the weights go into a file beside the model.
LARGEST_MESSAGE = 2_000_000_000

_GRAPH, _INITIALIZER, _RAW_DATA = 7, 5, 9
# Weights below this many bytes stay in the model even when the others go into a file beside it.
_SMALLEST_BESIDE = 1024
# Each weight in the file beside the model is aligned to a page, so that it can be mapped.
_ALIGNMENT = 4096
# From this many bytes on, a temporary model has its weights in a file beside it.
MAPPED = 1 << 26
_DIGITS = 16  # of the content's SHA-256, in the name of the file of weights


def weight_bytes(model: ir.Model) -> int:
    """The size of all weights, in bytes."""
    return sum(
        value.const_value.nbytes
        for graph in (model.graph, *model.graph.subgraphs())
        for value in graph.initializers.values()
        if value.const_value is not None
    )


def parameter_count(model: ir.Model) -> int:
    """How many numbers the floating-point weights hold."""
    return sum(
        value.const_value.size
        for graph in (model.graph, *model.graph.subgraphs())
        for value in graph.initializers.values()
        if value.const_value is not None and value.const_value.dtype.is_floating_point()
    )


def encoded_size(model: ir.Model) -> int:
    """How many bytes `encode` returns; no weights are read."""
    bare, weights = _layout(model)
    length = sum(len(head) + size for head, size, _ in weights)
    return sum(len(part) for part in _before_weights(bare, length)) + length


def write_onnx(model: ir.Model, path: Path) -> list[Path]:
    """Write `model` to `path`; weights that are too large for it go into a file beside it.

    That file's name contains the hash of its content, so that neither file is ever without the
    other: an existing model keeps its weights until the new one replaces it by a rename. Returns
    the files written.

    Raises:
        UserError: the place cannot be written to.
    """
    try:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
        before = _data_of(path)
        files = [path]
        if weight_bytes(model) < LARGEST_MESSAGE:
            _write(path, encode(model))
        else:
            model, data, fresh = _write_data(model, path)
            files.append(data)
            try:
                _write(path, encode(model))
            except BaseException:
                if fresh:
                    data.unlink(missing_ok=True)
                raise
        _clean(path, before - set(files))
        return files
    except OSError as error:
        raise UserError(
            f"cannot write {path}: {error.strerror or error}.",
            "Choose another place with --output.",
        ) from error


def _write(path: Path, content: Iterable[bytes | memoryview]) -> None:
    with aside(path) as temporary, temporary.open("wb") as file:
        for chunk in content:
            file.write(chunk)
        file.flush()
        os.fsync(file.fileno())


def write_scratch(model: ir.Model, folder: Path) -> Path:
    """Write `model` into a temporary folder, to be read at once: neither synced nor hashed.

    Large weights always go into a file beside it, so that a runtime can map them instead of copying
    them while it reads the message. Returns the path of the model.

    Raises:
        OSError: there is no space.
    """
    path = folder / "model.onnx"
    if weight_bytes(model) >= MAPPED:
        data = folder / "weights"
        with data.open("wb") as file:
            places = _pour(model, file)
        model = _refer(model, places, data)
    with path.open("wb") as file:
        for chunk in encode(model):
            file.write(chunk)
    return path


def _write_data(model: ir.Model, path: Path) -> tuple[ir.Model, Path, bool]:
    """Write the weights beside `path`: (a model that refers to them, their file, is that new)."""
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            digest = hashlib.sha256()
            places = _pour(model, file, digest.update)
            file.flush()
            os.fsync(file.fileno())
        data = path.with_name(f"{path.name}.{digest.hexdigest()[:_DIGITS]}.data")
        fresh = not data.exists()
        temporary.chmod(0o666 & ~umask())
        temporary.replace(data)
    finally:
        temporary.unlink(missing_ok=True)
    sync_directory(path.parent)
    return _refer(model, places, data), data, fresh


def _pour(
    model: ir.Model,
    file: BinaryIO,
    also: Callable[[bytes | memoryview], None] = lambda _: None,
) -> dict[str, int]:
    """Write the large weights into one file, each tensor once; returns where each one begins."""
    places: dict[str, int] = {}
    written: dict[int, int] = {}
    for name, value in _values_beside(model):
        tensor = value.const_value
        assert tensor is not None
        if id(tensor) not in written:
            gap = bytes(-file.tell() % _ALIGNMENT)
            written[id(tensor)] = file.tell() + len(gap)
            for chunk in (gap, _raw(tensor)):
                file.write(chunk)
                also(chunk)
        places[name] = written[id(tensor)]
    return places


def _refer(model: ir.Model, places: dict[str, int], data: Path) -> ir.Model:
    """A copy of `model` whose large weights are in the file `data`."""
    model = model.clone()
    for name, value in _values_beside(model):
        tensor = value.const_value
        assert tensor is not None
        value.const_value = ir.ExternalTensor(
            data.name,
            places[name],
            tensor.nbytes,
            tensor.dtype,
            shape=ir.Shape(tensor.shape.numpy()),
            name=value.name or "",
            base_dir=data.parent,
        )
    return model


def _values_beside(model: ir.Model) -> Iterator[tuple[str, ir.Value]]:
    """The weights that go into the file beside the model, each with a name unique in the model."""
    for index, graph in enumerate((model.graph, *model.graph.subgraphs())):
        for name, value in graph.initializers.items():
            tensor = value.const_value
            if tensor is not None and tensor.nbytes >= _SMALLEST_BESIDE and fits(tensor.dtype):
                yield f"{index}:{name}", value


def _clean(path: Path, before: set[Path]) -> None:
    """Remove the weights of the model that was replaced, and files that a killed writer left."""
    ours = re.compile(rf"{re.escape(path.name)}\.[0-9a-f]{{{_DIGITS}}}\.data")
    gone = {file for file in before if ours.fullmatch(file.name)}
    if gone:  # unless a copy of that model reads them too
        gone -= {data for other in path.parent.glob("*.onnx") for data in _data_of(other)}
    parts = re.compile(rf"\.{re.escape(path.name)}\.[a-z0-9_]{{8}}\.part")
    for file in gone | stale(path.parent, parts):
        file.unlink(missing_ok=True)


def _data_of(path: Path) -> set[Path]:
    """The files beside the model `path` that hold its weights."""
    try:
        model = slim.read(path)
    except Exception:  # noqa: BLE001  it is not there, no model, or a damaged one
        return set()
    tensors = (value.const_value for value in model.graph.initializers.values())
    return {
        path.with_name(str(tensor.location))
        for tensor in tensors
        if isinstance(tensor, ir.ExternalTensor) and "/" not in str(tensor.location)
    }


def encode(model: ir.Model) -> Iterator[bytes | memoryview]:
    """The bytes of a ModelProto, in pieces."""
    bare, weights = _layout(model)
    yield from _before_weights(bare, sum(len(head) + size for head, size, _ in weights))
    for head, size, tensor in weights:
        yield head
        if size:
            yield _raw(tensor)


def _layout(
    model: ir.Model,
) -> tuple[onnx.ModelProto, list[tuple[bytes, int, ir.TensorProtocol]]]:
    """The message without weights; for each weight the bytes before its numbers, and their size."""
    bare = model.clone()
    bare.graph.initializers.clear()
    weights = [
        (*_tensor_head(name, value.const_value), value.const_value)
        for name, value in model.graph.initializers.items()
        if value.const_value is not None
    ]
    return ir.to_proto(bare), weights


def _before_weights(proto: onnx.ModelProto, length: int) -> Iterator[bytes]:
    graph = proto.graph.SerializeToString(deterministic=True)
    proto.ClearField("graph")
    yield proto.SerializeToString(deterministic=True)
    yield tag(_GRAPH) + varint(len(graph) + length) + graph


def _tensor_head(name: str, tensor: ir.TensorProtocol) -> tuple[bytes, int]:
    """The bytes before a weight's numbers, and how many bytes of numbers follow them."""
    proto = onnx.TensorProto(
        name=name, data_type=int(tensor.dtype), dims=list(tensor.shape.numpy())
    )
    if isinstance(tensor, ir.ExternalTensor) or not fits(tensor.dtype):
        whole = ir.serde.serialize_tensor(tensor)
        whole.name = name
        body = whole.SerializeToString(deterministic=True)
        return tag(_INITIALIZER) + varint(len(body)) + body, 0
    body = proto.SerializeToString(deterministic=True) + tag(_RAW_DATA) + varint(tensor.nbytes)
    return tag(_INITIALIZER) + varint(len(body) + tensor.nbytes) + body, tensor.nbytes


def _raw(tensor: ir.TensorProtocol) -> memoryview:
    """The numbers in little-endian order (onnx.proto, TensorProto.raw_data)."""
    array = np.ascontiguousarray(tensor.numpy())
    if array.dtype.byteorder == ">":
        array = array.astype(array.dtype.newbyteorder("<"))
    return array.reshape(-1).view(np.uint8).data
