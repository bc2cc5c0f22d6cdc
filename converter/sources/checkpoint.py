"""Our own checkpoint, which says how to build the network and how to feed it.

The architecture's name is looked up in a closed table: a data file never imports code.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from torch import Tensor, nn

from converter.errors import UserError
from converter.sources import state_dict
from converter.sources.examples import Known
from converter.sources.loaded import Loaded, LoadOptions
from converter.sources.module import from_module
from service.manifest import Classification, Preprocessing

FAMILY = "foldserve.checkpoint/"
FORMAT = FAMILY + "1"

# Key -> the type that it must have.
REQUIRED = {"architecture": str, "arguments": dict, "state_dict": dict, "input_shape": list}


def load(path: Path, content: dict[str, Any], options: LoadOptions) -> Loaded:
    """Build the network that the checkpoint names, and fill it.

    Raises:
        UserError: see `rebuild`; and when what it tells about itself is no such thing.
    """
    module, uncounted = rebuild(path, content)
    try:
        told = _told(content)
    except (ValidationError, AttributeError, TypeError, ValueError) as error:
        raise UserError(f"{path}: the checkpoint describes itself wrongly: {error}") from error
    loaded = from_module(
        module,
        path=path,
        kind=f"a checkpoint of {content['architecture']}",
        options=options,
        known=Known(tuple(content["input_shape"]), "the checkpoint"),
        uncounted=uncounted,
    )
    outputs = loaded.model.graph.outputs
    if told["classification"] and len(outputs) == 1:
        name = str(outputs[0].name)
        told["classification"] = told["classification"].model_copy(update={"output": name})
    return replace(loaded, **told)


def rebuild(path: Path, content: dict[str, Any]) -> tuple[nn.Module, frozenset[str]]:
    """The network with its weights, and the batch-norms whose file counts no batches.

    Raises:
        UserError: when the version is another, a key is missing or of another type, or the
            weights do not fit the architecture.
    """
    if content["format"] != FORMAT:
        raise UserError(
            f"{path} has the format {content['format']!r}; this version reads {FORMAT!r}",
            "convert it with the version that wrote it",
        )
    for key, kind in REQUIRED.items():
        if not isinstance(content.get(key), kind):
            raise UserError(f"{path}: the checkpoint's {key!r} is missing or no {kind.__name__}")
    tensors = content["state_dict"]
    if not all(isinstance(k, str) and isinstance(v, Tensor) for k, v in tensors.items()):
        raise UserError(f"{path}: the checkpoint's 'state_dict' holds more than named tensors")
    sizes = content["input_shape"]
    if not sizes or not all(isinstance(size, int) and size > 0 for size in sizes):
        raise UserError(f"{path}: the checkpoint's input_shape {sizes!r} is no shape")
    # Imported here: the training package is of no use to the other sources.
    from converter.training import networks

    heads = content.get("heads", [])
    if not isinstance(heads, list):
        raise UserError(f"{path}: the checkpoint's 'heads' is no list")
    module = networks.build(content["architecture"], content["arguments"], heads)
    return module, state_dict.fill(module, tensors, str(path), content["architecture"])


def _told(content: dict[str, Any]) -> dict[str, Any]:
    """What the trainer knows for the manifest, by the fields of `Loaded`.

    The network gives logits, so that a softmax makes probabilities of them.
    """
    labels, preprocessing = content.get("labels"), content.get("preprocessing")
    return {
        "classification": Classification(output="output", labels=list(labels)) if labels else None,
        "preprocessing": Preprocessing.model_validate(preprocessing) if preprocessing else None,
        "metrics": {str(k): float(v) for k, v in (content.get("metrics") or {}).items()},
        "description": str(content.get("description") or ""),
    }
