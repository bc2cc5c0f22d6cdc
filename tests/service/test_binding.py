"""Runs by way of a binding: the calls that onnxruntime gets, and the same answers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from onnx import TensorProto
from repository import elementwise, linear, pair, publish, reference

from service.device import CUDA, Choice
from service.errors import InferenceFailed, InputRefused
from service.models import runtime
from service.models.binding import BoundRun
from service.models.runtime import Runtime

X = np.linspace(-1, 1, 8, dtype=np.float32).reshape(2, 4)


class Value:
    """An OrtValue that knows where it was put."""

    def __init__(self, array: np.ndarray, device: str, device_id: int) -> None:
        self.array, self.place = array, (device, device_id)

    def numpy(self) -> np.ndarray:
        return self.array


class Binding:
    def __init__(self) -> None:
        self.inputs: dict[str, Value] = {}
        self.outputs: dict[str, str] = {}

    def bind_ortvalue_input(self, name: str, value: Value) -> None:
        self.inputs[name] = value

    def bind_output(self, name: str, device: str) -> None:
        self.outputs[name] = device

    def get_outputs(self) -> list[Value]:
        total = sum(value.array for value in self.inputs.values())
        return [Value(total * (i + 1), "cpu", 0) for i in range(len(self.outputs))]


class Session:
    """A session on a GPU, as far as a binding asks it."""

    def __init__(self) -> None:
        self.ran: list[Binding] = []

    def io_binding(self) -> Binding:
        return Binding()

    def run_with_iobinding(self, binding: Binding) -> None:
        self.ran.append(binding)


@pytest.fixture
def fake_values(monkeypatch: pytest.MonkeyPatch) -> None:
    class OrtValue:
        ortvalue_from_numpy = staticmethod(Value)

    monkeypatch.setattr(ort, "OrtValue", OrtValue)


def test_inputs_go_to_the_device_and_outputs_to_the_host(fake_values: None):
    session = Session()
    run = BoundRun(session, ["y", "z"], device_id=1)
    y, z = run({"a": X, "b": X.T.copy().T})
    np.testing.assert_array_equal(y, 2 * X)
    np.testing.assert_array_equal(z, 4 * X)
    (binding,) = session.ran
    assert [value.place for value in binding.inputs.values()] == [("cuda", 1)] * 2
    assert all(value.array.flags.c_contiguous for value in binding.inputs.values())
    assert binding.outputs == {"y": "cpu", "z": "cpu"}


def test_each_run_has_a_binding_of_its_own(fake_values: None):
    session = Session()
    run = BoundRun(session, ["y"])
    run({"a": X})
    run({"a": X})
    first, second = session.ran
    assert first is not second


@pytest.mark.parametrize(
    ("element", "dtype"),
    [
        (TensorProto.FLOAT, "float32"), (TensorProto.DOUBLE, "float64"),
        (TensorProto.FLOAT16, "float16"), (TensorProto.INT64, "int64"),
    ],
)  # fmt: skip
def test_onnxruntime_says_the_same_by_either_way(tmp_path: Path, element: int, dtype: str):
    folder = publish(tmp_path, "m", elementwise("Neg", element))
    session = ort.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    inputs = {session.get_inputs()[0].name: np.arange(6, dtype=dtype).reshape(3, 2)}
    (plain,) = session.run(None, inputs)
    (bound,) = BoundRun(session, [session.get_outputs()[0].name], "cpu")(inputs)
    np.testing.assert_array_equal(bound, plain)
    assert bound.dtype == plain.dtype == dtype


def test_a_session_on_cuda_is_bound(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """With a session that says it is on CUDA, and values that are put on the host."""

    class Pretended(ort.InferenceSession):
        def get_providers(self):
            return [CUDA]

    asked = []

    class ThroughTheHost(BoundRun):
        def __init__(self, session, outputs, device="cuda", device_id=0):
            asked.append((device, device_id))
            super().__init__(session, outputs, "cpu", 0)

    monkeypatch.setattr(ort, "InferenceSession", Pretended)
    monkeypatch.setattr(runtime, "BoundRun", ThroughTheHost)
    folder = publish(tmp_path, "m", linear())
    choice = Choice("cuda", [("CPUExecutionProvider", {"device_id": "3"})])
    served = Runtime(folder / "model.onnx", choice, 1)
    assert asked == [("cuda", 3)]
    np.testing.assert_allclose(
        served.run({"x": X})["scores"], reference(linear(), {"x": X})["scores"], rtol=1e-5
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("BFCArena::AllocateRawInternal Available memory of 5 is smaller than requested bytes of 9",
         InferenceFailed),
        ("Failed to allocate memory for requested buffer of size 9", InferenceFailed),
        ("CUDNN_STATUS_ALLOC_FAILED ; GPU=0", InferenceFailed),
        ("something else", runtime.ort_errors.RuntimeException),
    ],
)  # fmt: skip
def test_a_device_without_memory_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str, expected: type[Exception]
):
    folder = publish(tmp_path, "m", pair())
    served = Runtime(folder / "model.onnx", Choice("cpu", [("CPUExecutionProvider", {})]), 1)

    def run(_inputs):
        raise runtime.ort_errors.RuntimeException(text)

    monkeypatch.setattr(served, "_call", run)
    with pytest.raises(expected) as found:
        served.run({})
    if expected is InferenceFailed:
        assert "fewer rows" in found.value.hint
    assert not isinstance(found.value, InputRefused)
