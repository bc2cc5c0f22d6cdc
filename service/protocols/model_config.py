"""GET /v2/models/{m}/config: how a version is served, in the words of Triton's model configuration.

    max_batch_size     rows of one request at most, if axis 0 of every tensor counts rows; else 0
    dims               without that axis; -1 for an open size
    dynamic_batching   there if requests are joined: up to preferred_batch_size rows run together
    instance_group     as many runs at a time as `count`
    format             of pictures, if model.json has a `preprocessing`
    response_cache     there if answers are kept (--response-cache-bytes)

Source: Triton, extension_model_configuration.md and model_config.proto; its JSON has the names of
the fields as they are.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from service.context import Context
from service.device import CUDA
from service.manifest import MODEL_FILE, TensorSpec
from service.models import policy
from service.signature import STRING

PLATFORM = "onnxruntime_onnx"
_TYPES = {"float16": "FP16", "float32": "FP32", "float64": "FP64", STRING: "STRING"}
_MOST = 2**31 - 1  # of an int32, which these are over gRPC
_LAYOUTS = {"CHW": "FORMAT_NCHW", "HWC": "FORMAT_NHWC"}


def config(context: Context, name: str | None, version: str | None = None) -> dict[str, Any]:
    """The configuration of a version that is served; plain JSON types.

    Args:
        context: of the server, whose settings count where the model's own manifest says nothing.
        name, version: as for `Registry.find`, which may raise.
    """
    model, settings = context.registry.find(name, version), context.settings
    batched, batcher, limits = model.signature.batched, model.batcher, model.running.limits
    picture = model.manifest.preprocessing
    layout = _LAYOUTS[picture.layout] if picture else "FORMAT_NONE"
    described: dict[str, Any] = {
        "name": model.name,
        "platform": PLATFORM,
        "backend": "onnxruntime",
        "version_policy": _policy(model.manifest.serving.version_policy or settings.version_policy),
        "max_batch_size": min(batcher.capacity_samples, _MOST) if batched else 0,
        "input": [
            {**each, "format": layout}
            for each in _tensors(model.signature.inputs.values(), batched)
        ],
        "output": _tensors(model.signature.outputs.values(), batched),
        "instance_group": [
            {
                "name": model.name,
                "kind": "KIND_GPU" if model.provider == CUDA else "KIND_CPU",
                "count": limits.runners,
            }
        ],
        "default_model_filename": MODEL_FILE,
    }
    if batcher.max_batch_rows > 1:
        described["dynamic_batching"] = {
            "preferred_batch_size": [min(batcher.max_batch_rows, _MOST)],
            "max_queue_delay_microseconds": round(limits.max_wait_s * 1e6),
        }
    if settings.response_cache_bytes and model.repeatable:
        described["response_cache"] = {"enable": True}
    return described


def _tensors(specs: Iterable[TensorSpec], batched: bool) -> list[dict[str, Any]]:
    return [
        {
            "name": spec.name,
            "data_type": f"TYPE_{_TYPES.get(spec.dtype, spec.dtype.upper())}",
            "dims": [size if isinstance(size, int) else -1 for size in spec.shape[batched:]],
        }
        for spec in specs
    ]


def _policy(text: str) -> dict[str, Any]:
    chosen = policy.parse(text)
    if chosen.only is not None:
        return {"specific": {"versions": [each for each in sorted(chosen.only) if each < 2**63]}}
    return {"all": {}} if chosen.wanted is None else {"latest": {"num_versions": chosen.wanted}}
