"""Small ONNX models and the version folders that hold them, for the tests of the service."""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from service.models.model import ServedModel
from service.signature import Tensors

Shape = Sequence[int | str]
DTYPES = {
    TensorProto.FLOAT: "float32",
    TensorProto.DOUBLE: "float64",
    TensorProto.FLOAT16: "float16",
    TensorProto.BFLOAT16: "bfloat16",
    TensorProto.INT64: "int64",
    TensorProto.INT8: "int8",
    TensorProto.UINT8: "uint8",
    TensorProto.BOOL: "bool",
    TensorProto.STRING: "string",
}


def value(name: str, dtype: int, shape: Shape) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, dtype, list(shape))


def graph(
    nodes: list[onnx.NodeProto],
    inputs: list[onnx.ValueInfoProto],
    outputs: list[onnx.ValueInfoProto],
    constants: dict[str, np.ndarray] | None = None,
) -> onnx.ModelProto:
    weights = [numpy_helper.from_array(a, n) for n, a in (constants or {}).items()]
    model = helper.make_model(
        helper.make_graph(nodes, "g", inputs, outputs, weights),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=9,
    )
    onnx.checker.check_model(model)
    return model


def linear(features: int = 4, classes: int = 3, seed: int = 0, batch: int | str = "batch"):
    """scores = x @ W + b, x of shape (batch, features)."""
    random = np.random.default_rng(seed)
    return graph(
        [helper.make_node("Gemm", ["x", "W", "b"], ["scores"])],
        [value("x", TensorProto.FLOAT, [batch, features])],
        [value("scores", TensorProto.FLOAT, [batch, classes])],
        {
            "W": random.standard_normal((features, classes)).astype(np.float32),
            "b": random.standard_normal(classes).astype(np.float32),
        },
    )


def elementwise(op: str, dtype: int, shape: Shape = ("batch", 2), output: int | None = None):
    """y = op(x)."""
    return graph(
        [helper.make_node(op, ["x"], ["y"])],
        [value("x", dtype, shape)],
        [value("y", output or dtype, shape)],
    )


def pair():
    """y = a + b of shape (batch, 2), and whether each is positive: two inputs, two outputs."""
    return graph(
        [
            helper.make_node("Add", ["a", "b"], ["y"]),
            helper.make_node("Greater", ["y", "zero"], ["positive"]),
        ],
        [value("a", TensorProto.FLOAT, ["batch", 2]), value("b", TensorProto.FLOAT, ["batch", 2])],
        [
            value("y", TensorProto.FLOAT, ["batch", 2]),
            value("positive", TensorProto.BOOL, ["batch", 2]),
        ],
        {"zero": np.zeros((), np.float32)},
    )


def sums_of_text(width: int = 16):
    """Strings of whole numbers, (batch, width): their sums and differences, as strings again."""
    nodes = [
        helper.make_node("Cast", ["INPUT0"], ["a"], to=TensorProto.INT32),
        helper.make_node("Cast", ["INPUT1"], ["b"], to=TensorProto.INT32),
        helper.make_node("Add", ["a", "b"], ["sum"]),
        helper.make_node("Sub", ["a", "b"], ["difference"]),
        helper.make_node("Cast", ["sum"], ["OUTPUT0"], to=TensorProto.STRING),
        helper.make_node("Cast", ["difference"], ["OUTPUT1"], to=TensorProto.STRING),
    ]
    tensor = [value(n, TensorProto.STRING, ["batch", width]) for n in ("INPUT0", "INPUT1")]
    made = [value(n, TensorProto.STRING, ["batch", width]) for n in ("OUTPUT0", "OUTPUT1")]
    return graph(nodes, tensor, made)


def embedding():
    """Rows of a table of 5: an index out of range is the graph's own refusal."""
    return graph(
        [helper.make_node("Gather", ["table", "index"], ["row"])],
        [value("index", TensorProto.INT64, ["batch"])],
        [value("row", TensorProto.FLOAT, ["batch", 2])],
        {"table": np.arange(10, dtype=np.float32).reshape(5, 2)},
    )


def slow(iterations: int, size: int = 128):
    """y = x, after `iterations` matrix products of size x size in a Loop."""
    body = helper.make_graph(
        [
            helper.make_node("MatMul", ["m_in", "I"], ["m_out"]),
            helper.make_node("Identity", ["go_in"], ["go_out"]),
        ],
        "body",
        [
            value("i", TensorProto.INT64, []),
            value("go_in", TensorProto.BOOL, []),
            value("m_in", TensorProto.FLOAT, [size, size]),
        ],
        [value("go_out", TensorProto.BOOL, []), value("m_out", TensorProto.FLOAT, [size, size])],
    )
    return graph(
        [
            helper.make_node("ReduceMax", ["x", "all"], ["top"], keepdims=0),
            helper.make_node("Mul", ["I", "top"], ["start"]),
            helper.make_node("Loop", ["n", "", "start"], ["end"], body=body),
            helper.make_node("ReduceMax", ["end", "both"], ["back"], keepdims=0),
            helper.make_node("Sub", ["back", "top"], ["zero"]),
            helper.make_node("Add", ["x", "zero"], ["y"]),
        ],
        [value("x", TensorProto.FLOAT, ["batch", 1])],
        [value("y", TensorProto.FLOAT, ["batch", 1])],
        {
            "I": np.eye(size, dtype=np.float32),
            "n": np.array(iterations, np.int64),
            "all": np.array([0, 1], np.int64),
            "both": np.array([0, 1], np.int64),
        },
    )


def as_long_as_asked():
    """y = x of shape (batch, 1), after max(x) turns of a Loop: as long as the request asks for."""
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go_in"], ["go_out"]),
            helper.make_node("Identity", ["v_in"], ["v_out"]),
        ],
        "body",
        [
            value("i", TensorProto.INT64, []),
            value("go_in", TensorProto.BOOL, []),
            value("v_in", TensorProto.FLOAT, ["batch", 1]),
        ],
        [value("go_out", TensorProto.BOOL, []), value("v_out", TensorProto.FLOAT, ["batch", 1])],
    )
    return graph(
        [
            helper.make_node("ReduceMax", ["x"], ["top"], keepdims=0),
            helper.make_node("Cast", ["top"], ["n"], to=TensorProto.INT64),
            helper.make_node("Loop", ["n", "", "x"], ["y"], body=body),
        ],
        [value("x", TensorProto.FLOAT, ["batch", 1])],
        [value("y", TensorProto.FLOAT, ["batch", 1])],
    )


def answer(served: ServedModel, inputs: Tensors) -> Tensors:
    """What a model answers to one request, in an event loop of its own."""
    rows = served.signature.check(inputs)
    return asyncio.run(served.batcher.submit(inputs, rows, time.monotonic() + 60))


async def asked_row_by_row(client: Any, given: Callable[[str, np.ndarray], Any], x: np.ndarray):
    """Ask a client of NVIDIA's for each row of `x` at the same time; its scores are linear()'s.

    Args:
        client: an asyncio client, of HTTP or of gRPC.
        given: makes an input of that client.
        x: of shape (rows, 4).
    """
    assert await client.is_server_ready()
    rows = [x[i : i + 1] for i in range(len(x))]
    results = await asyncio.gather(*(client.infer("animals", [given("x", row)]) for row in rows))
    scores = reference(linear(), {"x": x})["scores"]
    for expected, result in zip(scores, results, strict=True):
        got = result.as_numpy("scores")[0]
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


class Reference:
    """onnxruntime itself, on one thread and without a server."""

    def __init__(self, model: onnx.ModelProto) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = ort.InferenceSession(model.SerializeToString(), options)

    def __call__(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        names = [output.name for output in self._session.get_outputs()]
        return dict(zip(names, self._session.run(names, inputs), strict=True))


def reference(model: onnx.ModelProto, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return Reference(model)(inputs)


def specs(values: Any) -> list[dict[str, Any]]:
    return [
        {
            "name": v.name,
            "dtype": DTYPES[v.type.tensor_type.elem_type],
            "shape": [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim],
        }
        for v in values
        if v.type.HasField("tensor_type")
    ]


def seal(folder: Path, **changes: Any) -> Path:
    """Write model.json with the true sizes and hashes of what lies in the folder."""
    model = onnx.load(folder / "model.onnx", load_external_data=False)
    files = {
        path.name: {
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            "bytes": path.stat().st_size,
        }
        for path in sorted(folder.iterdir())
        if path.name != "model.json"
    }
    manifest = {
        "name": folder.parent.name,
        "version": int(folder.name),
        "files": files,
        "inputs": specs(model.graph.input),
        "outputs": specs(model.graph.output),
        "dynamic_batch": all(
            s["shape"] and isinstance(s["shape"][0], str)
            for s in specs([*model.graph.input, *model.graph.output])
        ),
        **changes,
    }
    (folder / "model.json").write_text(json.dumps(manifest))
    return folder


def publish(
    root: Path,
    name: str,
    model: onnx.ModelProto,
    version: int = 1,
    *,
    test: dict[str, np.ndarray] | None = None,
    off_by: float = 0.0,
    atol: float = 1e-5,
    **changes: Any,
) -> Path:
    """A sealed version folder; with `test` inputs also a self-test, wrong by `off_by`."""
    folder = bare(root, name, model, version)
    if test is not None:
        outputs = reference(model, test)
        floats = [key for key, array in outputs.items() if array.dtype.kind == "f"]
        for key in floats:
            outputs[key] = outputs[key].astype(np.float64) + off_by
        arrays = {
            **{f"input:{k}": a for k, a in test.items()},
            **{f"output:{k}": a for k, a in outputs.items()},
        }
        # Strings in numpy's own form: objects would need pickle.
        arrays = {k: a.astype(str) if a.dtype.kind == "O" else a for k, a in arrays.items()}
        np.savez(folder / "selftest.npz", **arrays)
        changes = {"self_test": {"atol": dict.fromkeys(floats, atol)}, **changes}
    return seal(folder, **changes)


def bare(root: Path, name: str, model: onnx.ModelProto, version: int = 1) -> Path:
    """A version folder with model.onnx alone."""
    folder = root / name / str(version)
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    return folder
