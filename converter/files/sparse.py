"""Sparse weights become dense: every rule, and every other tool, sees one kind of constant.

GraphProto.sparse_initializer: values (NNZ,), and indices (NNZ,) into the flat tensor or
(NNZ, rank), in ascending order; the rest is zero (onnx/docs/IR.md, SparseTensorProto)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from math import prod
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from converter.errors import UserError

# A file of a few bytes may state any size.
MOST_BYTES = 2**29


def make_dense(proto: onnx.ModelProto, path: Path) -> int:
    """Replace sparse initializers, also those of bodies, and Constants of sparse values, in place.

    Returns:
        How many there were.

    Raises:
        UserError: one is not a sparse tensor, or all of them together exceed `MOST_BYTES`.
    """
    left, count = MOST_BYTES, 0
    for graph in _graphs(proto):
        for sparse in graph.sparse_initializer:
            left = _take(sparse, left, path)
            graph.initializer.append(_dense(sparse, path))
            count += 1
        graph.ClearField("sparse_initializer")
    for node in _nodes(proto):
        for attribute in node.attribute:
            if node.op_type == "Constant" and attribute.name == "sparse_value":
                left = _take(attribute.sparse_tensor, left, path)
                value = _dense(attribute.sparse_tensor, path)
                attribute.CopyFrom(onnx.helper.make_attribute("value", value))
                count += 1
    return count


def _take(sparse: onnx.SparseTensorProto, left: int, path: Path) -> int:
    size = prod(int(dim) for dim in sparse.dims) * 8
    if not 0 <= size <= left:
        raise UserError(
            f"{path}: the sparse weight {sparse.values.name!r} of shape {tuple(sparse.dims)} is "
            f"too large to be made dense (all sparse weights together: {MOST_BYTES // 2**20} MiB)",
            "export the model with dense weights, which may lie in a file beside it",
        )
    return left - size


def _dense(sparse: onnx.SparseTensorProto, path: Path) -> onnx.TensorProto:
    name, shape = sparse.values.name, tuple(int(dim) for dim in sparse.dims)
    damaged = UserError(
        f"{path} is a damaged ONNX model: {name!r} is not a sparse weight of shape {shape}",
        "export the model again",
    )
    parts = (sparse.values, sparse.indices)
    if any(part.data_location == onnx.TensorProto.EXTERNAL for part in parts):
        raise UserError(
            f"{path} keeps the sparse weight {name!r} in another file",
            "export the model with its sparse weights inside",
        )
    try:
        values, indices = (numpy_helper.to_array(part) for part in parts)
    except Exception as error:  # numpy and onnx each raise their own
        raise damaged from error
    if (
        values.ndim != 1
        or values.dtype == object
        or indices.dtype != np.int64
        or indices.ndim not in {1, 2}
    ):
        raise damaged
    if indices.ndim == 2:
        limits = np.array(shape, np.int64)
        if indices.shape[1] != len(shape) or ((indices < 0) | (indices >= limits)).any():
            raise damaged
        indices = np.ravel_multi_index(tuple(indices.T), shape) if len(indices) else indices[:, 0]
    if len(indices) != len(values) or ((indices < 0) | (indices >= prod(shape))).any():
        raise damaged
    if len(np.unique(indices)) != len(indices):
        raise damaged
    dense = np.zeros(prod(shape), values.dtype)
    dense[indices] = values
    return numpy_helper.from_array(dense.reshape(shape), name)


def _graphs(proto: onnx.ModelProto) -> Iterator[onnx.GraphProto]:
    yield proto.graph
    for node in _nodes(proto):
        for attribute in node.attribute:
            yield from _bodies(attribute)


def _nodes(proto: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    yield from _inside(proto.graph.node)
    for function in proto.functions:
        yield from _inside(function.node)


def _inside(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    for node in nodes:
        yield node
        for attribute in node.attribute:
            for body in _bodies(attribute):
                yield from _inside(body.node)


def _bodies(attribute: onnx.AttributeProto) -> Iterator[onnx.GraphProto]:
    yield from attribute.graphs
    if attribute.HasField("g"):
        yield attribute.g
