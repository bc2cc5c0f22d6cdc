"""Measure on inputs, against float64, whether two ONNX files compute the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from converter.certificate import Certified, NotCertified
from converter.commands.options.verify import Verify
from converter.errors import UserError
from converter.evaluation.normalize import normalize
from converter.proof import Proof, data_shapes, load_data, verify
from converter.sources import Loaded, LoadOptions, load, parse_input_shape, parse_input_value


def loaded(asked: Verify) -> tuple[Loaded, Loaded]:
    """Both files.

    Raises:
        UserError: one of them, or an option, is at fault.
    """
    options = LoadOptions(
        input_shapes=tuple(parse_input_shape(text) for text in asked.sizes.input_shape),
        input_values=dict(parse_input_value(text) for text in asked.sizes.input_value),
        data_shapes=data_shapes(asked.proving.data) if asked.proving.data else {},
    )
    return _onnx(asked.original, options), _onnx(asked.candidate, options)


def measured(
    asked: Verify,
    original: Loaded,
    candidate: Loaded,
    certificate: Certified | NotCertified | None,
    progress: Callable[[str], None],
) -> Proof:
    """
    Raises:
        UserError: the user's data do not fit.
    """
    return verify(
        original.model,
        normalize(original.model),
        candidate.model,
        original.inputs,
        dynamic_batch=original.dynamic_batch and candidate.dynamic_batch,
        data=load_data(asked.proving.data, original.inputs) if asked.proving.data else None,
        certificate=certificate,
        seed=asked.proving.seed,
        progress=progress,
    )


def _onnx(path: Path, options: LoadOptions) -> Loaded:
    found = load(path, options)
    if "ONNX" not in found.kind:
        raise UserError(
            f"{path} is {found.kind}; verify compares two ONNX files.",
            "`fold` proves its own result for other formats.",
        )
    return found
