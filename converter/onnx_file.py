"""Write a model to disk: atomically, with bounded memory, the same bytes every time.

A protobuf library wants the whole message in memory twice. Here the message is laid out by
hand from the parts that the library serialises: everything but the weights, then each
weight as field 5 (`initializer`) of field 7 (`graph`), its numbers as field 9 (`raw_data`),
straight from the tensor (protobuf encoding: developers.google.com/protocol-buffers).
"""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir

from converter.atomic import aside, sync_directory
from converter.errors import UserError

# Protobuf messages end at 2 GiB; beyond this the weights go into a file beside the model.
LARGEST_MESSAGE = 2_000_000_000

_GRAPH, _INITIALIZER, _RAW_DATA = 7, 5, 9


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


def write_onnx(model: ir.Model, path: Path) -> list[Path]:
    """Write `model` to `path`, and its weights to `path`.data if they are too large for it.

    The files appear whole or not at all. Returns the files written.

    Raises:
        UserError: the place cannot be written to.
    """
    try:
        if weight_bytes(model) < LARGEST_MESSAGE:
            with aside(path) as temporary, temporary.open("wb") as file:
                for chunk in encode(model):
                    file.write(chunk)
                file.flush()
                os.fsync(file.fileno())
            return [path]
        return _write_external(model, path)
    except OSError as error:
        raise UserError(
            f"cannot write {path}: {error.strerror or error}.",
            "Choose another place with --output.",
        ) from error


def _write_external(model: ir.Model, path: Path) -> list[Path]:
    """The weights' file first: a model file never points to one that is not there.

    Both are written under their own names, which the model repeats, in a folder beside.
    """
    data = path.with_name(f"{path.name}.data")
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as name:
        folder = Path(name)
        ir.save(model, folder / path.name, external_data=data.name, size_threshold_bytes=1024)
        for file in (data, path):
            with (folder / file.name).open("rb") as written:
                os.fsync(written.fileno())
        for file in (data, path):
            (folder / file.name).replace(file)
    sync_directory(path.parent)
    return [path, data]


def encode(model: ir.Model) -> Iterator[bytes | memoryview]:
    """The bytes of a ModelProto, in pieces."""
    bare = model.clone()
    bare.graph.initializers.clear()
    proto = ir.to_proto(bare)
    graph = proto.graph.SerializeToString(deterministic=True)
    proto.ClearField("graph")
    yield proto.SerializeToString(deterministic=True)

    weights = []
    length = len(graph)
    for name, value in model.graph.initializers.items():
        if value.const_value is not None:
            head, size = _tensor_head(name, value.const_value)
            weights.append((head, size, value.const_value))
            length += len(head) + size
    yield _tag(_GRAPH) + _varint(length) + graph
    for head, size, tensor in weights:
        yield head
        if size:
            yield _raw(tensor)


def _tensor_head(name: str, tensor: ir.TensorProtocol) -> tuple[bytes, int]:
    """The bytes before a weight's numbers, and how many bytes of numbers follow them."""
    proto = onnx.TensorProto(
        name=name, data_type=int(tensor.dtype), dims=list(tensor.shape.numpy())
    )
    if tensor.dtype == ir.DataType.STRING or tensor.dtype.bitwidth < 8:
        whole = ir.serde.serialize_tensor(tensor)
        whole.name = name
        body = whole.SerializeToString(deterministic=True)
        return _tag(_INITIALIZER) + _varint(len(body)) + body, 0
    body = proto.SerializeToString(deterministic=True) + _tag(_RAW_DATA) + _varint(tensor.nbytes)
    return _tag(_INITIALIZER) + _varint(len(body) + tensor.nbytes) + body, tensor.nbytes


def _raw(tensor: ir.TensorProtocol) -> memoryview:
    """The numbers in little-endian order (onnx.proto, TensorProto.raw_data)."""
    array = np.ascontiguousarray(tensor.numpy())
    if array.dtype.byteorder == ">":
        array = array.astype(array.dtype.newbyteorder("<"))
    return array.reshape(-1).view(np.uint8).data


def _tag(field: int) -> bytes:
    return _varint(field << 3 | 2)  # wire type 2: length-delimited


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)
