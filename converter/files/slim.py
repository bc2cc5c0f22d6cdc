"""An .onnx file without its large weights: they stay in the file until they are needed.

A protobuf library would hold the whole message in memory, twice while it reads. Here the fields
are parsed one by one (https://protobuf.dev/programming-guides/encoding), and everything except the
`raw_data` of large initializers is passed to the library; for those, the offsets are kept.

    ModelProto.graph = 7    GraphProto.initializer = 5    TensorProto.name = 8, raw_data = 9
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import onnx
import onnx_ir as ir

from converter.errors import UserError
from converter.files import wire
from converter.files.on_disk import LARGE, OpenFile, fits, tensor_in
from converter.files.only_tensors import only_tensors
from converter.files.sparse import make_dense
from converter.files.wire import tag, varint

# The key under which a model that was read keeps the outputs that were left out, and why.
LEFT_OUT = "left_out"

_GRAPH, _INITIALIZER, _NAME, _RAW_DATA = 7, 5, 8, 9
_WIDTHS = {1: 8, 5: 4}  # wire types of numbers with a fixed width


@dataclass(frozen=True)
class _Field:
    """A field of a message: where its tag, its payload and the next field begin."""

    number: int
    wire_type: int
    start: int
    payload: int
    end: int


def read(path: Path) -> ir.Model:
    """The model in `path`; weights beside it are not looked for.

    Raises:
        UserError: the file is damaged, a tensor does not have as many numbers as its shape says, or
            an input is not a tensor.
    """
    file = OpenFile(path)
    with path.open("rb") as stream:
        content, places = _slim(stream, file.size)
    proto = onnx.ModelProto.FromString(content)
    del content
    make_dense(proto, path)
    names = Counter(tensor.name for tensor in proto.graph.initializer)
    if twice := [name for name, count in names.items() if count > 1]:
        raise UserError(
            f"{path} is a damaged ONNX model: two weights are named {twice[0]!r}",
            "export it again",
        )
    for tensor in proto.graph.initializer:
        _check_count(tensor, places.get(tensor.name, (0, None))[1], path)
    for nodes in (proto.graph.node, *(function.node for function in proto.functions)):
        for tensor in _inner_tensors(nodes):
            _check_count(tensor, None, path)
    left_out = only_tensors(proto, path)
    model = ir.serde.deserialize_model(proto)
    assert isinstance(model, ir.Model)
    model.meta[LEFT_OUT] = left_out
    for name, (offset, _) in places.items():
        value = model.graph.initializers[name]
        assert value.const_value is not None
        shape = ir.Shape(value.const_value.shape.numpy())
        value.const_value = tensor_in(file, offset, value.const_value.dtype, shape, name)
    return model


def _slim(stream: BinaryIO, size: int) -> tuple[bytes, dict[str, tuple[int, int]]]:
    """The message without large weights, and where those are: name -> (offset, length)."""
    fields = list(_fields(stream, 0, size))
    graphs = [field for field in fields if field.number == _GRAPH]
    # Protobuf would merge several graphs; no tool writes that.
    if [graph.wire_type for graph in graphs] != [wire.LENGTH]:
        return _bytes(stream, 0, size), {}
    parts = [_bytes(stream, 0, graphs[0].start)]
    graph, places = _slim_graph(stream, graphs[0])
    parts += [tag(_GRAPH), varint(len(graph)), graph]
    parts.append(_bytes(stream, graphs[0].end, size))
    return b"".join(parts), places


def _slim_graph(stream: BinaryIO, graph: _Field) -> tuple[bytes, dict[str, tuple[int, int]]]:
    parts: list[bytes] = []
    places: dict[str, tuple[int, int]] = {}
    kept = graph.payload  # everything before this offset has been copied
    for field in _fields(stream, graph.payload, graph.end):
        if field.number != _INITIALIZER or field.end - field.payload < LARGE:
            continue
        inner = list(_fields(stream, field.payload, field.end))
        raw = [f for f in inner if f.number == _RAW_DATA]
        names = [f for f in inner if f.number == _NAME]
        if len(raw) != 1 or len(names) != 1 or raw[0].end - raw[0].payload < LARGE:
            continue
        name = _bytes(stream, names[0].payload, names[0].end).decode()
        body = _bytes(stream, field.payload, raw[0].start) + _bytes(stream, raw[0].end, field.end)
        if name in places or not fits(ir.DataType(_data_type(body))):
            continue
        places[name] = raw[0].payload, raw[0].end - raw[0].payload
        parts.append(_bytes(stream, kept, field.start))
        parts += [tag(_INITIALIZER), varint(len(body)), body]
        kept = field.end
    parts.append(_bytes(stream, kept, graph.end))
    return b"".join(parts), places


def _data_type(body: bytes) -> int:
    return int(onnx.TensorProto.FromString(body).data_type)


def _fields(stream: BinaryIO, start: int, end: int) -> Iterator[_Field]:
    """The fields of the message from `start` to `end`.

    Raises:
        ValueError: it is not a message.
    """
    position = start
    while position < end:
        stream.seek(position)
        key = wire.read_varint(stream)
        value = wire.read_varint(stream) if key is not None and key & 7 in {0, 2} else 0
        if key is None or value is None:
            raise ValueError("it ends in the middle of a field")
        number, wire_type, payload = key >> 3, key & 7, stream.tell()
        if wire_type in _WIDTHS:
            following = payload + _WIDTHS[wire_type]
        elif wire_type in {wire.VARINT, wire.LENGTH}:
            following = payload + (value if wire_type == wire.LENGTH else 0)
        else:
            raise ValueError(f"it has a field of the unknown kind {wire_type}")
        if following > end:
            raise ValueError("it ends in the middle of a field")
        yield _Field(number, wire_type, position, payload, following)
        position = following


def _bytes(stream: BinaryIO, start: int, end: int) -> bytes:
    stream.seek(start)
    return stream.read(end - start)


def _inner_tensors(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.TensorProto]:
    """The tensors in attributes, and the weights of bodies."""
    for node in nodes:
        for attribute in node.attribute:
            yield from attribute.tensors
            if attribute.HasField("t"):
                yield attribute.t
            for body in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])):
                yield from body.initializer
                yield from _inner_tensors(body.node)


def _check_count(tensor: onnx.TensorProto, in_file: int | None, path: Path) -> None:
    """Check that there are as many numbers as the shape says, before anything is allocated."""
    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        return  # checked against the size of that file
    dtype = ir.DataType(tensor.data_type)
    count = int(np.prod([int(dim) for dim in tensor.dims], dtype=object))
    if dtype == ir.DataType.STRING:
        there, wanted = len(tensor.string_data), count
    elif in_file is not None or tensor.HasField("raw_data"):
        there = len(tensor.raw_data) if in_file is None else in_file
        wanted = -(-count * dtype.bitwidth // 8)
    else:
        there = max(
            len(values)
            for values in (
                tensor.float_data, tensor.int32_data, tensor.int64_data,
                tensor.double_data, tensor.uint64_data,
            )
        )  # fmt: skip
        pieces = 2 if dtype in {ir.DataType.COMPLEX64, ir.DataType.COMPLEX128} else 1
        wanted = count * pieces if dtype.bitwidth >= 8 else -(-count * dtype.bitwidth // 8)
    if min(tensor.dims, default=0) < 0 or there != wanted:
        raise UserError(
            f"{path} is a damaged ONNX model: the weight {tensor.name!r} of shape "
            f"{tuple(tensor.dims)} has {there} bytes or numbers, not {wanted}",
            "copy it again, or export it again",
        )
