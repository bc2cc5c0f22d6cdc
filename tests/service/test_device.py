"""The device: strict, or loud."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

import onnxruntime as ort
import pytest
from repository import linear, publish
from test_process import command, sentence

from service import device
from service.device import CPU, CUDA, Choice, DeviceUnavailable, choose
from service.models import runtime

needs_cpu_wheel = pytest.mark.skipif(
    CUDA in ort.get_available_providers(), reason="this onnxruntime has CUDA"
)


def test_cpu_is_the_cpu_alone():
    assert choose("cpu") == Choice("cpu", [(CPU, {})])


@needs_cpu_wheel
def test_cuda_without_cuda_refuses_to_start(tmp_path: Path):
    publish(tmp_path, "m", linear())
    result = command("--device", "cuda", "--models", str(tmp_path), "--port", "0")
    sentence(result, 1, "--device cuda: the installed onnxruntime wheel has no CUDA", "pip install")


@needs_cpu_wheel
def test_auto_falls_back_aloud(start, tmp_path: Path):
    publish(tmp_path, "m", linear())
    served = start(tmp_path, "--device", "auto")
    with served.client() as client:
        assert client.get("/models/m").json()["provider"] == CPU
        assert client.get("/health/ready").json()["models"][0]["provider"] == CPU
    assert "NOTICE   --device auto falls back to the CPU: the installed" in served.out
    assert served.stop() == 0


@pytest.fixture
def gpu_wheel(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(ort, "get_available_providers", lambda: [CUDA, CPU])


class Driver:
    """libcuda as far as it is asked."""

    def __init__(self, status: int = 0, count: int = 1) -> None:
        self._status, self._count = status, count

    def cuInit(self, _: int) -> int:  # noqa: N802
        return self._status

    def cuDeviceGetCount(self, pointer) -> int:  # noqa: N802
        pointer._obj.value = self._count
        return 0


def test_no_driver(gpu_wheel, monkeypatch: pytest.MonkeyPatch):
    def missing(name: str):
        raise OSError(name)

    monkeypatch.setattr(device.ctypes, "CDLL", missing)
    with pytest.raises(DeviceUnavailable, match=r"no NVIDIA driver .* --gpus all"):
        choose("cuda")
    assert "no NVIDIA driver" in choose("auto").notice


@pytest.mark.parametrize("driver", [Driver(status=100), Driver(count=0)])
def test_no_gpu(gpu_wheel, monkeypatch: pytest.MonkeyPatch, driver: Driver):
    monkeypatch.setattr(device.ctypes, "CDLL", lambda _: driver)
    with pytest.raises(DeviceUnavailable, match="no usable GPU"):
        choose("cuda")


def test_a_missing_library_is_named(gpu_wheel, monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.setattr(device.ctypes, "CDLL", lambda _: Driver())
    monkeypatch.setattr(ort, "preload_dlls", lambda: print("Failed to load libcudnn.so.9: no"))  # noqa: T201
    with pytest.raises(DeviceUnavailable, match=r"libcudnn\.so\.9"):
        choose("cuda")
    assert capsys.readouterr().out == ""


def test_cuda_comes_first_and_never_measures_each_shape(gpu_wheel, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(device.ctypes, "CDLL", lambda _: Driver())
    monkeypatch.setattr(ort, "preload_dlls", lambda: None)
    for asked in ("cuda", "auto"):
        choice = choose(asked)
        assert [name for name, _ in choice.providers] == [CUDA, CPU]
        assert choice.providers[0][1]["cudnn_conv_algo_search"] == "HEURISTIC"
        assert choice.notice == ""


def test_which_gpu_and_how_much_of_its_memory(gpu_wheel, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(device.ctypes, "CDLL", lambda _: Driver(count=2))
    monkeypatch.setattr(ort, "preload_dlls", lambda: None)
    options = choose("cuda").providers[0][1]
    assert options["device_id"] == "0"
    assert "gpu_mem_limit" not in options
    options = choose("cuda", device_id=1, memory_limit_bytes=10**9).providers[0][1]
    assert options["device_id"] == "1"
    assert options["gpu_mem_limit"] == "1000000000"
    with pytest.raises(DeviceUnavailable, match="2 is not among the 2 visible GPUs"):
        choose("cuda", device_id=2)
    assert "not among" in choose("auto", device_id=2).notice


def test_two_wheels_are_told_apart(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(ort, "get_available_providers", lambda: [CPU])
    monkeypatch.setattr(metadata, "distribution", lambda name: name)
    with pytest.raises(DeviceUnavailable, match="both onnxruntime and onnxruntime-gpu"):
        choose("cuda")


def test_a_session_that_fell_back_in_silence_is_refused(tmp_path: Path):
    """onnxruntime drops a provider that does not start: the one in use is compared with it."""
    folder = publish(tmp_path, "m", linear())
    with pytest.raises(DeviceUnavailable, match="fell back to the CPU"):
        runtime.Runtime(folder / "model.onnx", Choice("cuda", [(CPU, {})]), threads=1)
    assert runtime.Runtime(folder / "model.onnx", Choice("auto", [(CPU, {})]), 1).provider == CPU


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('path: "/tmp/x/w.bin" missing', 'path: "w.bin" missing'),
        ("from /srv/models/m/1/model.onnx failed:bad", "from model.onnx failed:bad"),
        ("C:\\models\\m.onnx is bad", "m.onnx is bad"),
        ("./rel/ative/file and a/b", "file and b"),
        ("nothing here", "nothing here"),
        ("first line\nsecond /a/b", "first line"),
        ("", "ValueError"),
    ],
)  # fmt: skip
def test_paths_are_cut_from_messages(text: str, expected: str):
    assert runtime.without_paths(ValueError(text)) == expected
