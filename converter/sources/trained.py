"""Load a file as a torch module, to change its weights and to write the file again.

`load` turns files into graphs; this stops before that, for work on the module itself.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor, nn

from converter.architectures.modules import weights_of
from converter.errors import UserError
from converter.sources import (
    checkpoint,
    numpy_,
    pretrained,
    safetensors_,
    state_dict,
    torch_,
    torch_save,
)
from converter.sources.arch import importable_here
from converter.sources.detect import format_of
from converter.sources.loaded import Known, LoadOptions

# Keys of our own checkpoints that may be changed: what they say about the weights.
Changes = Mapping[str, Any]


@dataclass(frozen=True)
class Trained:
    """A network, and how to write it as a file of the kind that it came from.

    Attributes:
        module: with its weights, as the file has them: in training mode or not.
        kind: what the file turned out to be, in words.
        to_bytes: the content of such a file with the module's current weights. A checkpoint of
            ours stores the given keys; other kinds have no place for them.
        known: the input's shape without the batch axis, where the file or library states it.
        content: the dictionary of a checkpoint of ours; empty for other kinds.
        notes: what was assumed, one sentence each.
    """

    module: nn.Module
    kind: str
    to_bytes: Callable[[Changes], bytes]
    known: Known | None = None
    content: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


# Formats without a module, and what to do instead.
_NO_MODULE = {
    "exported": "its batch-norms are operators of a fixed graph. Give the weights that it was "
    "exported from, and export it again afterwards",
    "torchscript": "its layers are compiled and cannot be watched. Give the weights that it was "
    "made from, and trace or script it again afterwards",
    "keras_": "it is not a torch module; train a Keras model further in Keras",
    "onnx_": "a graph has no modules. Give the weights that it was exported from",
}


def load_module(path: Path, options: LoadOptions) -> Trained:
    """Read a checkpoint of ours, a state_dict or .safetensors of `--arch`, or a trusted pickle.

    Raises:
        UserError: the file is of another kind, damaged, or not readable with these options.
    """
    kind = format_of(path)
    if kind.loader in _NO_MODULE:
        raise UserError(
            f"{path} is {kind.what}: {_NO_MODULE[kind.loader]}",
            "readable here: checkpoints of `train`, a state_dict or .safetensors with --arch, "
            "and whole modules with --trust-pickle",
        )
    if kind.loader == "safetensors_":
        tensors = safetensors_.tensors_of(path)
        return _with_arch(path, tensors, options, "a safetensors file", _safetensors)
    if kind.loader == "pretrained":
        content, options, notes = pretrained.read(path, options)
        trained = _with_arch(path, content, options, "a folder of Hugging Face's", _safetensors)
        return replace(trained, notes=(*notes, *trained.notes))
    if kind.loader == "numpy_":
        tensors = numpy_.tensors_of(path)
        return _with_arch(path, tensors, options, "an .npz archive", _torch)
    with _imports(options):
        content = torch_save.content_of(path, trusted=options.trust_pickle)
        if checkpoint.is_ours(content):
            torch_.require_no_choice(path, options)
            return _checkpoint(path, content)
        found = None if options.arch else torch_.module_in(content, path, options.weights)
        if found is not None:
            module = found.module
            return Trained(
                module,
                f"a pickled {type(module).__name__}",
                lambda _: _torch(module),
                notes=tuple(found.notes),
            )
    return _with_arch(path, content, options, "a torch.save file", _torch)


def _checkpoint(path: Path, content: dict[str, Any]) -> Trained:
    found = checkpoint.parse(content, path)
    module, _ = found.rebuild(str(path))

    def to_bytes(changes: Changes) -> bytes:
        return _torch({**content, "state_dict": weights_of(module), **changes})

    return Trained(
        module,
        f"a checkpoint of {found.architecture}",
        to_bytes,
        Known(tuple(found.input_shape), "the checkpoint"),
        content,
    )


def _with_arch(
    path: Path,
    content: Any,
    options: LoadOptions,
    kind: str,
    write: Callable[[dict[str, Tensor]], bytes],
) -> Trained:
    with importable_here():
        rebuilt = state_dict.rebuild(path, content, options)
    return Trained(
        rebuilt.module,
        f"{kind} with weights of {options.arch}",
        lambda _: write(weights_of(rebuilt.module)),
        rebuilt.known,
        notes=tuple(rebuilt.notes),
    )


def _torch(content: Any) -> bytes:
    buffer = io.BytesIO()  # given a path instead, torch writes that path's stem into the archive
    torch.save(content, buffer)
    return buffer.getvalue()


def _safetensors(tensors: dict[str, Tensor]) -> bytes:
    return save(tensors, metadata={"format": "pt"})


def _imports(options: LoadOptions) -> AbstractContextManager[None]:
    return importable_here() if options.trust_pickle else nullcontext()
