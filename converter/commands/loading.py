"""The arguments that say how to read a model, shared by `fold` and `inspect`."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from converter.proof import data_shapes
from converter.sources import (
    Loaded,
    LoadOptions,
    load,
    parse_arch_arg,
    parse_input_shape,
    parse_input_value,
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "file", type=Path, metavar="FILE", help="the trained model; a folder of Hugging Face's"
    )
    group = parser.add_argument_group("how to read the file, if it does not say so itself")
    group.add_argument(
        "--arch",
        metavar="ARCH",
        help="timm:NAME, torchvision:NAME, transformers:CLASS (with a folder's config.json) or "
        "package.module:factory, for a state_dict",
    )
    group.add_argument(
        "--arch-arg",
        action="append",
        default=[],
        metavar="K=V",
        help="an argument of the architecture (num_classes=10); may be repeated",
    )
    group.add_argument(
        "--weights",
        metavar="KEY",
        help="which weights of a file that holds several sets, its keys joined by dots: "
        "params_ema, callbacks.EMA.state_dict; default: averaged ones, if they fit",
    )
    group.add_argument(
        "--input-shape",
        action="append",
        default=[],
        metavar="[NAME=]D,D,..",
        help="an input's shape without the batch axis: 3,224,224 or tokens=128:int64; age=: one "
        "number a sample; xs.0=.. and batch.image=..: in a list or dict; 3,height,width: axes that "
        "may vary; 'adj=(64,64)': no batch axis; repeat it for several inputs",
    )
    group.add_argument(
        "--input-value",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="what an input holds: a number, true, false, none or text that forward() takes "
        "(sr=16000), or what examples of a tensor are filled with; may be repeated",
    )
    group.add_argument(
        "--trust-pickle",
        action="store_true",
        help="unpickle whole Python objects, which can run any code: only for files you trust",
    )
    group.add_argument(
        "--custom-objects",
        action="append",
        default=[],
        metavar="MODULE",
        help="a Python module that defines the own classes of a Keras model; may be repeated",
    )


def load_from(args: argparse.Namespace) -> Loaded:
    """Load what the arguments name.

    Raises:
        UserError: the file or an argument is at fault.
    """
    options = options_of(args)
    if data := getattr(args, "data", None):
        options = replace(options, data_shapes=data_shapes(data))
    loaded = load(args.file, options)
    if args.arch and args.arch not in loaded.kind:
        note = f"--arch {args.arch} is not used: the file itself says what network it holds"
        return replace(loaded, notes=[*loaded.notes, note])
    return loaded


def options_of(args: argparse.Namespace) -> LoadOptions:
    """What the arguments say about the file. Raises UserError for one that cannot be read."""
    return LoadOptions(
        arch=args.arch,
        arch_args=dict(parse_arch_arg(text) for text in args.arch_arg),
        input_shapes=tuple(parse_input_shape(text) for text in args.input_shape),
        input_values=dict(parse_input_value(text) for text in args.input_value),
        trust_pickle=args.trust_pickle,
        custom_objects=tuple(args.custom_objects),
        weights=args.weights,
    )
