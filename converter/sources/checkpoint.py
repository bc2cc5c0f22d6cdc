"""Our own checkpoint, which says how to build the network and how to feed it.

A plain dictionary of tensors, strings, numbers, lists and dictionaries, so that
`torch.load(path, weights_only=True)` reads it and no code from the file runs. It holds no time,
no path and no host name: the same weights give the same bytes. The architecture's name is looked
up in a closed table: a data file never imports code.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, get_origin, get_type_hints

import torch
from pydantic import ValidationError
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from converter.architectures import described
from converter.errors import UserError
from converter.sources import state_dict, torch_save
from converter.sources.loaded import Known, Loaded, LoadOptions
from converter.sources.module import from_module
from service.manifest import Classification, Preprocessing

FAMILY = "foldserve.checkpoint/"
FORMAT = FAMILY + "1"
REQUIRED = ("architecture", "arguments", "state_dict", "input_shape")
# Keys that are left out of the file when they are empty.
OPTIONAL = frozenset({"training", "heads"})
_GIVE = "give a checkpoint that `train` or `finetune` wrote"


@dataclass(frozen=True)
class Checkpoint:
    """The keys of the file, except `format`. The first four say what the network is.

    Attributes:
        architecture, arguments: what `described.build` takes.
        state_dict: float32 tensors on the CPU, and int64 counters of the batch-norms.
        input_shape: sizes of one sample, without the batch axis.
        labels: the name of each class, in the order of the logits.
        preprocessing: the fields of `service.manifest.Preprocessing`.
        metrics: `test_accuracy` in [0, 1], `test_loss` and `train_loss` in nats.
        description: one sentence for people.
        seed, epochs, batch_size, lr, threads: what the training was asked for.
        statistics: how the batch-norms' running statistics came about, see `statistics_of`.
        torch: the version of torch that trained it.
        dataset, attribution: what it was trained on, and whom to credit.
        training: the other training options; missing in the file when there were none.
        heads: what replaced its last layer, see `described.Head`; missing when nothing did.
    """

    architecture: str
    arguments: dict[str, int]
    state_dict: dict[str, Tensor]
    input_shape: list[int]
    labels: list[str] = field(default_factory=list)
    preprocessing: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    description: str = ""
    seed: int = 0
    epochs: int = 0
    batch_size: int = 0
    lr: float = 0.0
    threads: int = 0
    statistics: dict[str, Any] = field(default_factory=dict)
    torch: str = ""
    dataset: str = ""
    attribution: str = ""
    training: dict[str, Any] = field(default_factory=dict)
    heads: list[dict[str, Any]] = field(default_factory=list)

    def rebuild(self, where: str = "the checkpoint") -> tuple[nn.Module, frozenset[str]]:
        """The network with its weights, and the batch-norms without a batch counter in the file.

        Args:
            where: the file, for messages.

        Raises:
            UserError: the architecture is unknown, takes no such arguments, or the weights do
                not fit it.
        """
        module = described.build(self.architecture, self.arguments, self.heads)
        return module, state_dict.fill(module, self.state_dict, where, self.architecture)

    def module(self) -> nn.Module:
        """The network with its weights, in evaluation mode, on the CPU. Raises UserError."""
        return self.rebuild()[0].eval()


def is_ours(content: Any) -> bool:
    """Whether the content of a torch.save file says that it is our checkpoint, of any version."""
    return isinstance(content, dict) and str(content.get("format")).startswith(FAMILY)


def read(path: Path) -> Checkpoint:
    """Read the file; no code in it is run. Raises UserError, see `parse`."""
    try:
        content = torch_save.content_of(path)
    except UserError as error:  # its hint is about files of other programs
        raise UserError(error.message, _GIVE) from error
    return parse(content, path)


def parse(content: Any, path: Path) -> Checkpoint:
    """The checkpoint that a file held.

    Raises:
        UserError: it is not a checkpoint of ours, or of another version; a key has the wrong
            type; or a key that says what the network is is missing.
    """
    if not is_ours(content):
        raise UserError(f"{path} is not a checkpoint of format {FORMAT!r}", _GIVE)
    if content["format"] != FORMAT:
        raise UserError(
            f"{path} has the format {content['format']!r}; this version reads {FORMAT!r}",
            "convert it with the version that wrote it",
        )
    values = {}
    for key, hint in get_type_hints(Checkpoint).items():
        kind, value = get_origin(hint) or hint, content.get(key)
        if value is None and key not in REQUIRED:
            continue
        if type(value) is int and kind is float:
            value = float(value)
        if type(value) is not kind and not (kind is dict and isinstance(value, dict)):
            found = type(value).__name__ if key in content else "missing"
            raise UserError(f"{key!r} of {path} is {found}, not {kind.__name__}")
        values[key] = value
    for name, tensor in values["state_dict"].items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            raise UserError(f"{name!r} in the state_dict of {path} is not a tensor with a name")
    sizes = values["input_shape"]
    if not sizes or not all(isinstance(size, int) and size > 0 for size in sizes):
        raise UserError(f"{path}: the checkpoint's input_shape {sizes!r} is not a shape")
    return Checkpoint(**values)


def load(path: Path, content: Any, options: LoadOptions) -> Loaded:
    """Build the network that the checkpoint names, and fill it.

    Raises:
        UserError: see `parse` and `rebuild`; and when its facts for the manifest are invalid.
    """
    found = parse(content, path)
    module, uncounted = found.rebuild(str(path))
    try:
        told = _told(found)
    except (ValidationError, AttributeError, TypeError, ValueError) as error:
        raise UserError(f"{path}: the checkpoint describes itself wrongly: {error}") from error
    loaded = from_module(
        module,
        path=path,
        kind=f"a checkpoint of {found.architecture}",
        options=options,
        known=Known(tuple(found.input_shape), "the checkpoint"),
        uncounted=uncounted,
    )
    outputs = loaded.model.graph.outputs
    if told["classification"] and len(outputs) == 1:
        name = str(outputs[0].name)
        told["classification"] = told["classification"].model_copy(update={"output": name})
    return replace(loaded, **told)


def _told(found: Checkpoint) -> dict[str, Any]:
    """What the checkpoint says for the manifest, by the fields of `Loaded`.

    The network's output is logits, so a softmax turns it into probabilities.
    """
    labels, preprocessing = found.labels, found.preprocessing
    return {
        "classification": Classification(output="output", labels=list(labels)) if labels else None,
        "preprocessing": Preprocessing.model_validate(preprocessing) if preprocessing else None,
        "metrics": {str(k): float(v) for k, v in found.metrics.items()},
        "description": found.description,
    }


def statistics_of(module: nn.Module) -> dict[str, Any]:
    """How the running statistics of the module's batch-norms were estimated.

    Returns:
        `kind`, `momentum` (the weight of the newest batch) and `batches` (how many were seen);
        only `kind` for a network without batch-norms.
    """
    norms = [norm for norm in module.modules() if isinstance(norm, _BatchNorm)]
    if not norms:
        return {"kind": "none"}
    return {
        "kind": "exponential moving average",
        "momentum": norms[0].momentum,
        "batches": max(int(norm.num_batches_tracked or 0) for norm in norms),
    }


def to_bytes(checkpoint: Checkpoint) -> bytes:
    """The file's content. Equal checkpoints give equal bytes."""
    buffer = io.BytesIO()  # given a path instead, torch writes that path's stem into the archive
    content = {
        key: value for key, value in vars(checkpoint).items() if value or key not in OPTIONAL
    }
    torch.save({"format": FORMAT, **content}, buffer)
    return buffer.getvalue()
