"""`verify`: prove that two ONNX files compute the same."""

from __future__ import annotations

import argparse
from pathlib import Path

from converter.commands import limits
from converter.commands.output import write_json
from converter.errors import UserError
from converter.evaluation.normalize import normalize
from converter.proof import data_shapes, load_data, verify
from converter.report.facts import EXIT_CODES, FORMAT, describe_proof
from converter.report.terminal import show_proof, terminal, working
from converter.sources import Loaded, LoadOptions, load, parse_input_shape, parse_input_value


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("original", type=Path, metavar="A.onnx", help="the reference")
    parser.add_argument("candidate", type=Path, metavar="B.onnx", help="what should equal it")
    parser.add_argument(
        "--data", type=Path, metavar="FILE.npz", help="compare on these inputs as well"
    )
    parser.add_argument(
        "--input-shape",
        action="append",
        default=[],
        metavar="[NAME=]D,D,..",
        help="sizes for axes that may vary, without the batch axis",
    )
    parser.add_argument(
        "--input-value",
        action="append",
        default=[],
        metavar="NAME=NUMBER",
        help="what an input is filled with, instead of random numbers: sr=16000",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the random inputs (default 0)")
    limits.add_arguments(parser)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the proof as JSON")


def run(args: argparse.Namespace) -> int:
    """0: equal. 1: not equal. 3: it could not be measured whether they are.

    Raises:
        UserError: the input is at fault (exit code 2).
    """
    console = terminal()
    options = LoadOptions(
        input_shapes=tuple(parse_input_shape(text) for text in args.input_shape),
        input_values=dict(parse_input_value(text) for text in args.input_value),
        data_shapes=data_shapes(args.data) if args.data else {},
    )
    with limits.memory(args), working(f"loading {args.original}") as progress:
        original = _onnx(args.original, options)
        candidate = _onnx(args.candidate, options)
        proof = verify(
            original.model,
            normalize(original.model),
            candidate.model,
            original.inputs,
            dynamic_batch=original.dynamic_batch and candidate.dynamic_batch,
            data=load_data(args.data, original.inputs) if args.data else None,
            seed=args.seed,
            progress=progress,
        )
    show_proof(console, proof, ("A", "B"))
    write_json(
        args.json,
        {
            "format": FORMAT,
            "original": str(args.original),
            "candidate": str(args.candidate),
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
