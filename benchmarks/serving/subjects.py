"""The models that the strain runs serve, and requests for them.

    residual    the architecture of ResNet-18 with random weights: too long for the event loop
    digits      the CNN of models/mnist, which runs on the event loop
    table       rows of an embedding of 100: an index beyond it makes onnxruntime refuse the run

A version k of `digits` gives its outputs plus k (`shift`), so that an answer tells which version
it is of.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

ROOT = Path(__file__).parents[2]
TABLE_ROWS = 100
_OPSET = 18


class _Net:
    """Nodes and weights of a graph, in order."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self._random = np.random.default_rng(0)

    def op(self, kind: str, inputs: list[str], **attributes: Any) -> str:
        name = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], **attributes))
        return name

    def weight(self, *shape: int) -> str:
        fan_in = max(1, int(np.prod(shape[1:])))
        values = self._random.standard_normal(shape) * np.sqrt(2 / fan_in)
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(values.astype(np.float32), name))
        return name

    def conv(self, x: str, before: int, after: int, kernel: int, stride: int) -> str:
        weights = self.weight(after, before, kernel, kernel)
        return self.op("Conv", [x, weights], strides=[stride] * 2, pads=[kernel // 2] * 4)


def residual(size: int = 224, width: int = 64) -> onnx.ModelProto:
    """ResNet-18 as it is after folding: convolutions, sums and ReLUs; y is (batch, 1000).

    He et al., Deep Residual Learning for Image Recognition, table 1.
    """
    net = _Net()
    x = net.op("Relu", [net.conv("x", 3, width, 7, 2)])
    x = net.op("MaxPool", [x], kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
    channels = width
    for stage in range(4):
        for block in range(2):
            after, stride = width * 2**stage, 2 if stage and not block else 1
            y = net.op("Relu", [net.conv(x, channels, after, 3, stride)])
            y = net.conv(y, after, after, 3, 1)
            way = x if (channels, stride) == (after, 1) else net.conv(x, channels, after, 1, stride)
            x = net.op("Relu", [net.op("Add", [y, way])])
            channels = after
    x = net.op("Flatten", [net.op("GlobalAveragePool", [x])])
    net.nodes.append(helper.make_node("MatMul", [x, net.weight(channels, 1000)], ["y"]))
    return _model(net, [3, size, size], [1000])


def table() -> onnx.ModelProto:
    """y = rows of a table, x its indices."""
    values = np.arange(2 * TABLE_ROWS, dtype=np.float32).reshape(TABLE_ROWS, 2)
    graph = helper.make_graph(
        [helper.make_node("Gather", ["table", "x"], ["y"])],
        "table",
        [helper.make_tensor_value_info("x", TensorProto.INT64, ["batch"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 2])],
        [numpy_helper.from_array(values, "table")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=9)


def _model(net: _Net, given: list[int], made: list[int]) -> onnx.ModelProto:
    graph = helper.make_graph(
        net.nodes,
        "residual",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", *given])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", *made])],
        net.weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=9)


def publish(
    root: Path, name: str, model: onnx.ModelProto, version: int = 1, **manifest: Any
) -> Path:
    """A version folder, put in place by a rename so that a watching server never sees half."""
    content = model.SerializeToString()
    files = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    made = {
        "name": name,
        "version": version,
        "files": {"model.onnx": files},
        "inputs": [_spec(value) for value in model.graph.input],
        "outputs": [_spec(value) for value in model.graph.output],
        "batch_invariant": True,
        **manifest,
    }
    aside = root / f".{name}-{version}"
    aside.mkdir(parents=True)
    (aside / "model.onnx").write_bytes(content)
    (aside / "model.json").write_text(json.dumps(made), encoding="utf-8")
    target = root / name / str(version)
    target.parent.mkdir(exist_ok=True)
    aside.rename(target)
    return target


def _spec(value: onnx.ValueInfoProto) -> dict[str, Any]:
    kind = value.type.tensor_type
    dtype = {TensorProto.FLOAT: "float32", TensorProto.INT64: "int64"}[kind.elem_type]
    shape = [dim.dim_param or dim.dim_value for dim in kind.shape.dim]
    return {"name": value.name, "dtype": dtype, "shape": shape}


def digits(root: Path) -> Path:
    """The newest version of models/mnist, as version 1 of `digits`, with its self-test."""
    newest = max((ROOT / "models" / "mnist").glob("[0-9]*"), key=lambda path: int(path.name))
    target = root / "digits" / "1"
    shutil.copytree(newest, target)
    manifest = json.loads((newest / "model.json").read_text(encoding="utf-8"))
    text = json.dumps(manifest | {"name": "digits", "version": 1})
    (target / "model.json").write_text(text, encoding="utf-8")
    return target


def shifted(version: Path, by: int) -> onnx.ModelProto:
    """The model of a version folder, its output plus a whole number."""
    model = onnx.load(version / "model.onnx")
    (output,) = model.graph.output
    for node in model.graph.node:
        for position, name in enumerate(node.output):
            if name == output.name:
                node.output[position] = "unshifted"
    model.graph.initializer.append(numpy_helper.from_array(np.float32(by), "shift"))
    model.graph.node.append(helper.make_node("Add", ["unshifted", "shift"], [output.name]))
    return model


def request(path: str, body: bytes, **headers: str) -> bytes:
    """A whole HTTP request; header names with _ for -."""
    lines = [f"POST {path} HTTP/1.1", "Host: 127.0.0.1", f"Content-Length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


def raw_request(model: str, array: np.ndarray, **headers: str) -> bytes:
    """A tensor as little-endian bytes, answered in the same form."""
    return request(
        f"/models/{model}/predict", array.tobytes(), Content_Type="application/octet-stream",
        Accept="application/octet-stream", **headers,
    )  # fmt: skip


def written(folder: Path, name: str, content: bytes) -> str:
    """The path of a new file."""
    path = folder / name
    path.write_bytes(content)
    return str(path)
