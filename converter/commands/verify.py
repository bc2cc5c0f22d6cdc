"""`verify`: prove that two ONNX files compute the same."""

from __future__ import annotations

from pathlib import Path

from converter.commands import limits
from converter.commands.options.verify import Verify
from converter.commands.output import write_json
from converter.errors import UserError
from converter.evaluation.normalize import normalize
from converter.proof import data_shapes, load_data, verify
from converter.report.facts import EXIT_CODES, FORMAT, describe_proof
from converter.report.terminal import show_proof, terminal, working
from converter.sources import Loaded, LoadOptions, load, parse_input_shape, parse_input_value


def run(asked: Verify) -> int:
    """0: equal. 1: not equal. 3: it could not be measured whether they are.

    Raises:
        UserError: the input is at fault (exit code 2).
    """
    console = terminal()
    options = LoadOptions(
        input_shapes=tuple(parse_input_shape(text) for text in asked.sizes.input_shape),
        input_values=dict(parse_input_value(text) for text in asked.sizes.input_value),
        data_shapes=data_shapes(asked.proving.data) if asked.proving.data else {},
    )
    with limits.memory(asked.proving.max_memory), working(f"loading {asked.original}") as progress:
        original = _onnx(asked.original, options)
        candidate = _onnx(asked.candidate, options)
        proof = verify(
            original.model,
            normalize(original.model),
            candidate.model,
            original.inputs,
            dynamic_batch=original.dynamic_batch and candidate.dynamic_batch,
            data=load_data(asked.proving.data, original.inputs) if asked.proving.data else None,
            seed=asked.proving.seed,
            progress=progress,
        )
    show_proof(console, proof, ("A", "B"))
    write_json(
        asked.json,
        {
            "format": FORMAT,
            "original": str(asked.original),
            "candidate": str(asked.candidate),
            "proof": describe_proof(proof),
        },
    )
    return EXIT_CODES[proof.verdict]


def _onnx(path: Path, options: LoadOptions) -> Loaded:
    loaded = load(path, options)
    if "ONNX" not in loaded.kind:
        raise UserError(
            f"{path} is {loaded.kind}; verify compares two ONNX files.",
            "`fold` proves its own result for other formats.",
        )
    return loaded
