"""Which onnxruntime provider serves, and, in plain words, why CUDA cannot.

Without CUDA in the wheel, a driver or cuDNN, onnxruntime itself falls back to the CPU with no more
than a log line, and runs fifty times slower. So `cuda` is strict here, `auto` reports what it
chose, and the provider in use is read back from the session.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
from dataclasses import dataclass
from importlib import metadata
from typing import Any, Literal

import onnxruntime as ort

CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"

Device = Literal["cpu", "cuda", "auto"]

# EXHAUSTIVE, the default, measures every convolution algorithm anew for every input shape: a
# new shape took 634 ms against 1.9 ms at the same steady speed. TF32 rounds float32
# convolutions and matrix products to 10 bits, which no self-test tolerance allows for.
_CUDA_OPTIONS = {"cudnn_conv_algo_search": "HEURISTIC", "use_tf32": "0"}


class DeviceUnavailable(Exception):
    """--device cuda was asked for and cannot be had; the text says why and what to do."""


@dataclass(frozen=True, slots=True)
class Plugin:
    """A provider that is no part of onnxruntime's wheel: its device (OrtEpDevice) and options."""

    device: Any
    options: dict[str, str]


@dataclass(frozen=True, slots=True)
class Choice:
    """The providers to ask for, in order, and a notice when `auto` had to settle for less.

    `plugin`: where the first of them is one; what it does not take, onnxruntime's own CPU provider
    does.
    """

    device: Device
    providers: list[tuple[str, dict[str, Any]]]
    notice: str = ""
    plugin: Plugin | None = None

    @property
    def device_id(self) -> int:
        """Which GPU, where there is one."""
        return int(self.providers[0][1].get("device_id", 0))

    def confirm(self, used: str) -> None:
        """Compare the provider that a session really uses with the one that was asked for.

        Raises:
            DeviceUnavailable: CUDA was required and the session runs on something else.
        """
        if self.device == "cuda" and used != CUDA:
            raise DeviceUnavailable(
                "--device cuda: onnxruntime could not start CUDA and fell back to the CPU. "
                "Its message above names the library: usually cuDNN 9 or the CUDA runtime is "
                "missing or of another major version. Fix: pip install "
                '"onnxruntime-gpu[cuda,cudnn]".'
            )


def choose(device: Device, *, device_id: int = 0, memory_limit_bytes: int | None = None) -> Choice:
    """The providers for a device.

    Args:
        device: cpu, cuda or auto.
        device_id: which GPU, counted as CUDA counts those that are visible.
        memory_limit_bytes: of a session's arena on the GPU, None for all there is.

    Raises:
        DeviceUnavailable: `cuda` on a machine or with a wheel that has none.
    """
    cpu: tuple[str, dict[str, Any]] = (CPU, {})
    if device == "cpu":
        return Choice(device, [cpu])
    obstacle = _why_no_cuda(device_id)
    if not obstacle:
        options = {**_CUDA_OPTIONS, "device_id": str(device_id)}
        if memory_limit_bytes is not None:
            options["gpu_mem_limit"] = str(memory_limit_bytes)
            # Otherwise the arena doubles, and is refused the second half of what it asks for.
            options["arena_extend_strategy"] = "kSameAsRequested"
        return Choice(device, [(CUDA, options), cpu])
    if device == "cuda":
        raise DeviceUnavailable(f"--device cuda: {obstacle}")
    return Choice(device, [cpu], f"--device auto falls back to the CPU: {obstacle}")


def _why_no_cuda(device_id: int) -> str:
    """An empty string when CUDA can be expected to work."""
    if CUDA not in ort.get_available_providers():
        both = {"onnxruntime", "onnxruntime-gpu"} <= _installed()
        cause = (
            "both onnxruntime and onnxruntime-gpu are installed, and the one without CUDA won"
            if both
            else "the installed onnxruntime wheel has no CUDA"
        )
        return (
            f"{cause}. Fix: pip uninstall -y onnxruntime onnxruntime-gpu && "
            'pip install "onnxruntime-gpu[cuda,cudnn]".'
        )
    obstacle = _why_no_driver(device_id)
    if obstacle:
        return obstacle
    # Loads the CUDA and cuDNN wheels that lie beside onnxruntime; complains by printing.
    complaints = io.StringIO()
    with contextlib.redirect_stdout(complaints):
        getattr(ort, "preload_dlls", lambda: None)()
    lines = [line for line in complaints.getvalue().splitlines() if "Failed to load" in line]
    if lines:
        return (
            f"a CUDA library is missing ({lines[0].strip()}). "
            'Fix: pip install "onnxruntime-gpu[cuda,cudnn]".'
        )
    return ""


def _why_no_driver(device_id: int) -> str:
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return (
            "no NVIDIA driver is visible (libcuda.so.1). Fix: install the driver, or give the "
            "container the GPU (docker run --gpus all)."
        )
    count = ctypes.c_int(0)
    status = driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count))
    if status or count.value == 0:
        return (
            f"the NVIDIA driver reports no usable GPU (status {status}). Fix: check nvidia-smi "
            "and CUDA_VISIBLE_DEVICES."
        )
    if device_id >= count.value:
        return (
            f"--cuda-device-id {device_id} is not among the {count.value} visible GPUs, which "
            "count from 0. Fix: choose a smaller one, or check CUDA_VISIBLE_DEVICES."
        )
    return ""


def _installed() -> set[str]:
    wanted = {"onnxruntime", "onnxruntime-gpu"}
    found = set()
    for name in wanted:
        with contextlib.suppress(metadata.PackageNotFoundError):
            metadata.distribution(name)
            found.add(name)
    return found
