"""Names for what `forward` returned: "output", "output_0", ... or the keys of its dict."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping
from typing import Any

import torch


def leaves(value: Any, prefix: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    """Every tensor in what `forward` returned, with a name, in the order of torch's pytrees.

    {"logits": t, "features": (t, t)} gives logits, features_0, features_1. A lone tensor gives
    "output", a plain tuple output_0, output_1.
    """
    if isinstance(value, torch.Tensor):
        yield prefix or "output", value
        return
    for key, child in _children(value):
        name = key if not prefix else f"{prefix}_{key}"
        yield from leaves(child, f"output_{name}" if name.isdigit() else name)


def _children(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        yield from ((re.sub(r"[^\w.-]", "_", str(key)), child) for key, child in value.items())
    elif dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            yield field.name, getattr(value, field.name)
    elif isinstance(value, tuple) and hasattr(value, "_fields"):
        yield from zip(value._fields, value, strict=True)
    elif isinstance(value, list | tuple):
        yield from ((str(index), child) for index, child in enumerate(value))
