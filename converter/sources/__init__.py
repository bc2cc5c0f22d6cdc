"""Every kind of model file, read into one thing: an un-folded ONNX graph with its weights."""

from __future__ import annotations

import importlib
from pathlib import Path

from converter.errors import UserError
from converter.sources.arguments import parse_arch_arg, parse_input_shape, parse_input_value
from converter.sources.detect import format_of
from converter.sources.loaded import Input, InputShape, Loaded, LoadOptions, Reference

__all__ = [
    "Input",
    "InputShape",
    "LoadOptions",
    "Loaded",
    "Reference",
    "load",
    "parse_arch_arg",
    "parse_input_shape",
    "parse_input_value",
]

# The loaders of files that may hold several sets of weights.
SETS = ("torch_", "safetensors_", "numpy_", "pretrained")


def load(path: str | Path, options: LoadOptions = LoadOptions()) -> Loaded:
    """Read a model file of any kind; nothing is folded yet.

    Raises:
        UserError: when the file is not a model, needs something that `options` does not say,
            or cannot be turned into an ONNX graph.
    """
    path = Path(path)
    kind = format_of(path)
    if options.weights is not None and kind.loader not in SETS:
        raise UserError(
            f"--weights {options.weights}: {path} is {kind.what}, which holds one set of weights",
            "leave it out",
        )
    try:
        # Imported now: an .onnx file must not cost the seconds that torch takes to start.
        loader = importlib.import_module(f"converter.sources.{kind.loader}")
    except ModuleNotFoundError as error:
        raise UserError(
            f"{path} is {kind.what}, and reading it needs the package {error.name!r}",
            'pip install "foldserve[converter]"',
        ) from error
    loaded = loader.load(path, options)
    assert isinstance(loaded, Loaded)
    return loaded
