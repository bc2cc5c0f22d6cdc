"""The style of a network as options of a command line."""

from __future__ import annotations

import argparse

from converter.training.architectures import Style
from converter.training.architectures.style import CHOICES


def add_style_arguments(parser: argparse.ArgumentParser) -> None:
    """Every field of `Style`."""
    default = Style()
    group = parser.add_argument_group("how it normalises, activates and is initialised")
    helps = {
        "norm": "batch normalization, none, or batch renormalization",
        "bn_position": "of the norm: before or after the activation",
        "activation": "behind every hidden layer",
    }
    for name, words in helps.items():
        group.add_argument(
            _flag(name),
            choices=CHOICES[name],
            default=getattr(default, name),
            help=f"{words} (default: %(default)s)",
        )
    numbers = {
        "momentum": "the weight of the newest batch in the running statistics",
        "eps": "added to the variance",
        "dropout": "the probability of a zero behind each hidden dense layer",
        "init_scale": "the initial weights are torch's times this",
    }
    for name, words in numbers.items():
        group.add_argument(
            _flag(name),
            type=float,
            default=getattr(default, name),
            metavar="NUMBER",
            help=f"{words} (default: %(default)s)",
        )
    group.add_argument(
        "--no-affine", action="store_true", help="the norms learn nothing: gamma = 1, beta = 0"
    )
    group.add_argument("--no-scale", action="store_true", help="the norms have gamma = 1")
    group.add_argument("--no-center", action="store_true", help="the norms have beta = 0")
    group.add_argument(
        "--input-norm",
        action="store_true",
        help="a batch-norm on the raw pixels instead of a preparation of the data",
    )


def style_of(args: argparse.Namespace) -> Style:
    """The style that the parsed command line asks for. Raises UserError."""
    return Style(
        norm=args.norm,
        bn_position=args.bn_position,
        activation=args.activation,
        momentum=args.momentum,
        eps=args.eps,
        scale=not (args.no_affine or args.no_scale),
        center=not (args.no_affine or args.no_center),
        dropout=args.dropout,
        init_scale=args.init_scale,
        input_norm=args.input_norm,
    )


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")
