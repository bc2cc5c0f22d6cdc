"""OpenVINO as a plug-in of onnxruntime: the package onnxruntime-ep-openvino.

    register_execution_provider_library(name, path)    once in a process
    get_ep_devices()                                   then lists its devices, the CPU among them
    SessionOptions.add_provider_for_devices([device], options)

The options are strings; `load_config` holds OpenVINO's own properties, as JSON by device.
"""

from __future__ import annotations

import json
import threading
from functools import cache
from importlib.util import find_spec
from typing import Any

import onnxruntime as ort

from service.device import Choice, DeviceUnavailable, Plugin

PROVIDER = "OpenVINOExecutionProvider"
PACKAGE = "onnxruntime-ep-openvino"
_MODULE = "onnxruntime_ep_openvino"
_LIBRARY = "foldserve-openvino"
_one_at_a_time = threading.Lock()


def obstacle() -> str:
    """Why it cannot be used here; "" if it can, as far as that is known without loading it."""
    if find_spec(_MODULE) is None:
        return "not installed (pip install 'foldserve[openvino]')"
    if not hasattr(ort, "register_execution_provider_library"):
        return f"onnxruntime {ort.__version__} takes no plug-ins, 1.23 does"
    return ""


def choice(hint: str, threads: int) -> Choice:
    """What a session is made with.

    Args:
        hint: OpenVINO's INFERENCE_PRECISION_HINT: f32, bf16 or f16.
        threads: of a run.

    Raises:
        DeviceUnavailable: the plug-in does not load, or has no CPU device.
    """
    config = {"CPU": {"INFERENCE_PRECISION_HINT": hint, "INFERENCE_NUM_THREADS": str(threads)}}
    return Choice(
        "cpu", [(PROVIDER, {})], plugin=Plugin(_cpu(), {"load_config": json.dumps(config)})
    )


def _cpu() -> Any:
    with _one_at_a_time:
        return _registered()


@cache
def _registered() -> Any:
    """The plug-in's device for the CPU."""
    import onnxruntime_ep_openvino as package

    try:
        ort.register_execution_provider_library(_LIBRARY, package.get_library_path())
    except Exception as error:  # noqa: BLE001  onnxruntime's errors have no common base
        raise DeviceUnavailable(f"the plug-in {PACKAGE} does not load ({error})") from None
    for device in ort.get_ep_devices():
        if device.ep_name == PROVIDER and device.ep_metadata.get("ov_device") == "CPU":
            return device
    raise DeviceUnavailable(f"the plug-in {PACKAGE} finds no CPU that it can use")
