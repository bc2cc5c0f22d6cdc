"""How tensors are written into requests, and read from answers.

A number in JSON has the fewest digits that give the same float32 again, up to nine: 12 bytes with
its comma, where Python's `json.dumps(x.tolist())` writes the digits of a float64, 21 bytes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from benchmarks.serving.peer import Model, Request

JSON = {"Content-Type": "application/json"}
OCTETS = {"Content-Type": "application/octet-stream"}
_LENGTH = "Inference-Header-Content-Length"


def text(tensor: np.ndarray) -> str:
    """Nested lists in JSON."""
    if tensor.ndim == 0:
        return str(tensor)  # numpy writes the shortest digits of its dtype
    return "[" + ", ".join(map(text, tensor)) + "]"


def inputs(path: str, key: str = "inputs", *, flat: bool = False, alone: bool = False) -> Any:
    """{"inputs": [[...]]}; `flat` without the inner lists, `alone` without the batch axis."""

    def ask(_: Model, tensor: np.ndarray) -> Request:
        shown = tensor.reshape(-1) if flat else tensor[0] if alone else tensor
        return Request(path, JSON, f'{{"{key}": {text(shown)}}}'.encode())

    return ask


def raw(path: str, headers: Mapping[str, str] | None = None) -> Any:
    """The bytes of the tensor and nothing else."""

    def ask(_: Model, tensor: np.ndarray) -> Request:
        return Request(path, {**OCTETS, **(headers or {})}, tensor.tobytes())

    return ask


def v2_json(model: Model, tensor: np.ndarray) -> Request:
    """The Open Inference Protocol, the data flat."""
    shape = json.dumps(list(tensor.shape))
    body = (
        f'{{"inputs": [{{"name": "{model.input}", "shape": {shape}, "datatype": "FP32", '
        f'"data": {text(tensor.reshape(-1))}}}]}}'
    )
    return Request(f"/v2/models/{model.name}/infer", JSON, body.encode())


def v2_binary(model: Model, tensor: np.ndarray) -> Request:
    """The Open Inference Protocol with binary tensors both ways."""
    data = tensor.tobytes()
    document = {
        "inputs": [
            {
                "name": model.input,
                "shape": list(tensor.shape),
                "datatype": "FP32",
                "parameters": {"binary_data_size": len(data)},
            }
        ],
        "outputs": [{"name": model.output, "parameters": {"binary_data": True}}],
    }
    head = json.dumps(document).encode()
    headers = {**OCTETS, _LENGTH: str(len(head))}
    return Request(f"/v2/models/{model.name}/infer", headers, head + data)


def key(*path: str | int) -> Any:
    """The tensor in an answer of JSON, by the keys that lead to it."""

    def read(_: Model, __: Mapping[str, str], body: bytes) -> np.ndarray:
        found = json.loads(body)
        for step in path:
            found = found[step]
        return np.asarray(found, np.float32)

    return read


def by_output(*path: str) -> Any:
    """As `key`, the last step being the name of the model's output."""

    def read(model: Model, headers: Mapping[str, str], body: bytes) -> np.ndarray:
        found: np.ndarray = key(*path, model.output)(model, headers, body)
        return found

    return read


def floats(_: Model, __: Mapping[str, str], body: bytes) -> np.ndarray:
    """Raw bytes."""
    return np.frombuffer(body, np.float32)


def v2_answer(_: Model, headers: Mapping[str, str], body: bytes) -> np.ndarray:
    """The Open Inference Protocol, binary or not."""
    length = headers.get(_LENGTH.lower())
    document = json.loads(body if length is None else body[: int(length)])
    (entry,) = document["outputs"]
    if length is None or "data" in entry:
        return np.asarray(entry["data"], np.float32)
    if entry["parameters"]["binary_data_size"] != len(body) - int(length):
        raise ValueError("the binary tensor is not as long as it says")
    return np.frombuffer(body, np.float32, offset=int(length))
