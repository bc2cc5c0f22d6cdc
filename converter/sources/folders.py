"""Which files make a folder a Hugging Face model; only their names are looked at."""

from __future__ import annotations

from pathlib import Path

INDEX = ".index.json"
LARGEST_JSON = 1 << 26
# The names that transformers, timm, diffusers and open_clip write, the preferred first.
WEIGHTS = tuple(
    stem + ending
    for stem in ("model", "pytorch_model", "diffusion_pytorch_model", "open_clip_model",
                 "open_clip_pytorch_model")
    for ending in (".safetensors", ".safetensors.index.json", ".bin", ".bin.index.json")
)  # fmt: skip


def is_pretrained(folder: Path) -> bool:
    """Whether the folder has weights under one of these names, and a config.json."""
    return (folder / "config.json").is_file() and any((folder / n).is_file() for n in WEIGHTS)
