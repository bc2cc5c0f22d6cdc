"""A folder as Hugging Face's libraries write it: weights, their index, and a config.json.

    config.json                          which network: transformers' "architectures", timm's
                                         "architecture"
    model.safetensors                    the weights, or
    model.safetensors.index.json         {"weight_map": {tensor: file}} of weights in several files
    pytorch_model.bin (.index.json)      the same by torch.save

Nothing is downloaded. The shards lie in the folder, or in the cache that it belongs to (`beside`).
Sources: huggingface_hub, "Serialization"; transformers, `save_pretrained`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from converter.errors import UserError
from converter.sources import beside, hub_config, safetensors_, state_dict, torch_save
from converter.sources.folders import INDEX, LARGEST_JSON, WEIGHTS
from converter.sources.loaded import Loaded, LoadOptions

Read = Callable[[Path], Any]


def load(path: Path, options: LoadOptions) -> Loaded:
    """Read the weights of a folder, or of an index, and build what config.json names.

    Raises:
        UserError: a file is missing or damaged; otherwise as `state_dict.load`.
    """
    content, options, notes = read(path, options)
    loaded = state_dict.load(path, content, options, "a folder of Hugging Face's")
    loaded.notes[:0] = notes
    return loaded


def read(path: Path, options: LoadOptions) -> tuple[Any, LoadOptions, list[str]]:
    """(the weights, the options with the architecture of config.json, what was assumed).

    Raises:
        UserError: see `load`.
    """
    file, others = (path, []) if path.is_file() else _weights_of(path)
    notes = [f"{file.name} was read; not used: {', '.join(others)}"] if others else []
    if not options.arch:
        arch, arguments = hub_config.architecture(file.parent)
        options = replace(options, arch=arch, arch_args={**arguments, **options.arch_args})
        notes.append(f"config.json says that the network is {arch}")
    if file.name.endswith(INDEX):
        return _shards(file, options), options, notes
    return _reader(file, options)(beside.find(file, file.name)), options, notes


def _weights_of(folder: Path) -> tuple[Path, list[str]]:
    """The file of weights that is preferred, and the names of the others."""
    names = [name for name in WEIGHTS if (folder / name).is_file()]
    return folder / names[0], names[1:]


def _reader(file: Path, options: LoadOptions) -> Read:
    if ".safetensors" in file.name:
        return safetensors_.tensors_of
    return lambda path: torch_save.content_of(path, trusted=options.trust_pickle)


def _shards(index: Path, options: LoadOptions) -> dict[str, Tensor]:
    """The tensors that the index names, each read from the file that the index gives for it."""
    names = _weight_map(index)
    read = _reader(index, options)
    found: dict[str, Tensor] = {}
    for shard in dict.fromkeys(names.values()):
        content = read(beside.find(index, shard))
        for name, there in names.items():
            if there != shard:
                continue
            tensor = content.get(name) if isinstance(content, dict) else None
            if not isinstance(tensor, Tensor):
                raise UserError(
                    f"{index} says that the tensor {name!r} is in {shard!r}, and it is not",
                    "download the folder again: its files are of different versions",
                )
            found[name] = tensor
    return found


def _weight_map(index: Path) -> dict[str, str]:
    content = hub_config.read_json(beside.find(index, index.name), LARGEST_JSON)
    names = content.get("weight_map")
    if (
        not isinstance(names, dict)
        or not names
        or not all(isinstance(k, str) and isinstance(v, str) for k, v in names.items())
    ):
        raise UserError(
            f"{index} is an index without its weight_map from tensors to files",
            "download the folder again",
        )
    return names
