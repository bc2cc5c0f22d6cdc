"""On a real GPU: the same answers as the CPU, the options that were asked for, strict errors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from onnx import TensorProto
from repository import elementwise, linear, pair, publish, reference
from test_process import command, sentence

from service import device
from service.device import CUDA, DeviceUnavailable
from service.models import model
from service.models.runtime import Runtime


def _obstacle() -> str:
    try:
        device.choose("cuda")
    except DeviceUnavailable as error:
        return str(error)
    return ""


WHY_NOT = _obstacle()
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(bool(WHY_NOT), reason=f"no GPU to run on: {WHY_NOT}"),
]
X = np.linspace(-1, 1, 8, dtype=np.float32).reshape(2, 4)


@pytest.mark.parametrize("make", [linear, pair])
def test_the_answers_are_those_of_the_cpu(tmp_path: Path, make):
    folder = publish(tmp_path, "m", make())
    served = Runtime(folder / "model.onnx", device.choose("cuda"), 1)
    assert served.provider == CUDA
    inputs = {spec.name: X[:, : spec.shape[1]] for spec in served.inputs}  # type: ignore[misc]
    expected = reference(make(), inputs)
    for name, array in served.run(inputs).items():
        np.testing.assert_allclose(array, expected[name], rtol=1e-4, atol=1e-5)


def test_other_dtypes(tmp_path: Path):
    folder = publish(tmp_path, "m", elementwise("Neg", TensorProto.FLOAT16))
    served = Runtime(folder / "model.onnx", device.choose("cuda"), 1)
    (spec,) = served.inputs
    x = np.arange(4, dtype=np.float16)[None]
    np.testing.assert_array_equal(served.run({spec.name: x})[served.outputs[0].name], -x)


def test_the_options_are_in_force(tmp_path: Path):
    folder = publish(tmp_path, "m", linear())
    choice = device.choose("cuda", memory_limit_bytes=2**28)
    session = ort.InferenceSession(folder / "model.onnx", providers=choice.providers)
    options = session.get_provider_options()[CUDA]
    assert options["cudnn_conv_algo_search"] == "HEURISTIC"
    assert options["gpu_mem_limit"] == str(2**28)
    assert options["use_tf32"] == "0"


def test_a_gpu_that_is_not_there(tmp_path: Path):
    publish(tmp_path, "m", linear())
    result = command(
        "--device", "cuda", "--cuda-device-id", "200", "--models", str(tmp_path), "--port", "0"
    )
    sentence(result, 1, "--cuda-device-id 200 is not among", "Fix")


def test_a_model_is_served(tmp_path: Path):
    folder = publish(tmp_path, "m", linear(), test={"x": X}, batch_invariant=True)
    served = model.load(folder, "m", 1, device.choose("cuda"), 2, 64)
    try:
        assert served.provider == CUDA
        assert served.batcher.inline_rows == 0
    finally:
        assert served.batcher.close(60)
