"""Load the model that a command names, as its options say: shared by several subcommands."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from converter.commands.options.shared import Reading
from converter.proof import data_shapes
from converter.sources import (
    Loaded,
    LoadOptions,
    load,
    parse_arch_arg,
    parse_input_shape,
    parse_input_value,
)


def load_from(file: Path, reading: Reading, *, data: Path | None = None) -> Loaded:
    """Load `file`; the user's own inputs, if there are any, say sizes that it leaves open.

    Raises:
        UserError: the file or an option is at fault.
    """
    options = options_of(reading)
    if data:
        options = replace(options, data_shapes=data_shapes(data))
    loaded = load(file, options)
    if reading.arch and reading.arch not in loaded.kind:
        note = f"--arch {reading.arch} is not used: the file itself says what network it holds"
        return replace(loaded, notes=[*loaded.notes, note])
    return loaded


def options_of(reading: Reading) -> LoadOptions:
    """What the options say about the file. Raises UserError for one that cannot be read."""
    return LoadOptions(
        arch=reading.arch,
        arch_args=dict(parse_arch_arg(text) for text in reading.arch_arg),
        input_shapes=tuple(parse_input_shape(text) for text in reading.input_shape),
        input_values=dict(parse_input_value(text) for text in reading.input_value),
        trust_pickle=reading.trust_pickle,
        custom_objects=reading.custom_objects,
        weights=reading.weights,
    )
