"""What a node of the graph says of an input that passed every check: whose mistake it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from repository import graph, publish, value

from service.device import Choice
from service.errors import InferenceFailed, InputRefused
from service.models import runtime
from service.models.runtime import Runtime

FLOAT, INT = TensorProto.FLOAT, TensorProto.INT64
CPU = Choice("cpu", [("CPUExecutionProvider", {})])


def binary(op: str, dtype: int, *shapes: list[str], **attributes: Any) -> onnx.ModelProto:
    first, second, out = shapes
    return graph(
        [helper.make_node(op, ["a", "b"], ["y"], **attributes)],
        [value("a", dtype, first), value("b", dtype, second)],
        [value("y", dtype, out)],
    )


def reshape() -> onnx.ModelProto:
    return graph(
        [helper.make_node("Reshape", ["a", "shape"], ["y"])],
        [value("a", FLOAT, ["n", "p"])],
        [value("y", FLOAT, ["m", 4])],
        {"shape": np.array([-1, 4])},
    )


def pool() -> onnx.ModelProto:
    return graph(
        [helper.make_node("MaxPool", ["a"], ["y"], kernel_shape=[5, 5])],
        [value("a", FLOAT, ["n", 1, "h", "w"])],
        [value("y", FLOAT, ["n", 1, "p", "q"])],
    )


def zeros(*shape: int) -> np.ndarray:
    return np.zeros(shape, np.float32)


@pytest.mark.parametrize(
    ("node", "model", "inputs"),
    [
        ("MatMul", binary("MatMul", FLOAT, ["n", "p"], ["q", "m"], ["n", "m"]),
         {"a": zeros(2, 3), "b": zeros(4, 5)}),
        ("Add", binary("Add", FLOAT, ["n", "p"], ["n", "q"], ["n", "r"]),
         {"a": zeros(2, 3), "b": zeros(2, 4)}),
        ("Concat", binary("Concat", FLOAT, ["n", "p"], ["m", "q"], ["k", "r"], axis=0),
         {"a": zeros(2, 3), "b": zeros(2, 4)}),
        ("Div", binary("Div", INT, ["n"], ["n"], ["n"]),
         {"a": np.array([1, 2]), "b": np.array([1, 0])}),
        ("Reshape", reshape(), {"a": zeros(1, 3)}),
        ("MaxPool", pool(), {"a": zeros(1, 1, 2, 2)}),
    ],
    ids=lambda given: given if isinstance(given, str) else "",
)  # fmt: skip
def test_what_a_node_cannot_take_is_refused(
    tmp_path: Path, node: str, model: onnx.ModelProto, inputs: dict[str, np.ndarray]
):
    served = Runtime(publish(tmp_path, "m", model) / "model.onnx", CPU, 1)
    with pytest.raises(InputRefused, match=f"its {node} node refused the input"):
        served.run(inputs)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Failed to allocate memory for requested buffer of size 9", InferenceFailed),
        ("std::bad_alloc", InferenceFailed),
        ("CUDNN_STATUS_EXECUTION_FAILED ; GPU=0", runtime.ort_errors.Fail),
        ("CUBLAS failure 13", runtime.ort_errors.Fail),
        ("CUDA failure 700: an illegal memory access was encountered", runtime.ort_errors.Fail),
    ],
)
def test_what_the_server_or_its_device_cannot_do_is_no_refusal(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str, expected: type[Exception]
):
    served = Runtime(publish(tmp_path, "m", pool()) / "model.onnx", CPU, 1)

    def run(_inputs):
        raise runtime.ort_errors.Fail(
            "[ONNXRuntimeError] : 1 : FAIL : Non-zero status code returned while running Conv "
            f"node. Name:'' Status Message: {text}"
        )

    monkeypatch.setattr(served, "_call", run)
    with pytest.raises(expected) as found:
        served.run({})
    assert not isinstance(found.value, InputRefused)
