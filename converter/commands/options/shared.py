"""The options that several subcommands have, and the types of their values."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Group, Parameter
from cyclopts.validators import Number

File = Annotated[Path, Parameter(metavar="FILE")]
Archive = Annotated[Path, Parameter(metavar="FILE.npz")]
Shapes = Annotated[tuple[str, ...], Parameter(metavar="[NAME=]D,D,..")]
Patterns = Annotated[tuple[str, ...], Parameter(metavar="PATTERN")]
Pairs = Annotated[tuple[str, ...], Parameter(metavar="K=V")]
Count = Annotated[int, Parameter(validator=Number(gte=1), metavar="N")]
Seed = Annotated[int, Parameter(metavar="N")]

# One flat list of options, whatever class they are declared in.
flat = Parameter(name="*")


@Parameter(name="*", group=Group.create_ordered("How to read the file, if it does not say so"))
@dataclass(frozen=True)
class Reading:
    """What a file does not say about itself.

    Attributes:
        arch: timm:NAME, torchvision:NAME, transformers:CLASS (with a folder's config.json) or
            package.module:factory, for a state_dict.
        arch_arg: an argument of the architecture (num_classes=10); may be repeated.
        weights: which weights of a file that holds several sets, its keys joined by dots:
            params_ema, callbacks.EMA.state_dict; default: averaged ones, if they fit.
        input_shape: an input's shape without the batch axis: 3,224,224 or tokens=128:int64; age=:
            one number a sample; xs.0=.. and batch.image=..: in a list or dict; 3,height,width:
            axes that may vary; 'adj=(64,64)': no batch axis; repeat it for several inputs.
        input_value: what an input holds: a number, true, false, none or text that forward() takes
            (sr=16000), or what examples of a tensor are filled with; may be repeated.
        trust_pickle: unpickle whole Python objects, which can run any code: only for files you
            trust.
        custom_objects: a Python module that defines the own classes of a Keras model; may be
            repeated.
    """

    arch: Annotated[str | None, Parameter(metavar="ARCH")] = None
    arch_arg: Pairs = ()
    weights: Annotated[str | None, Parameter(metavar="KEY")] = None
    input_shape: Shapes = ()
    input_value: Annotated[tuple[str, ...], Parameter(metavar="NAME=VALUE")] = ()
    trust_pickle: bool = False
    custom_objects: Annotated[tuple[str, ...], Parameter(metavar="MODULE")] = ()


@flat
@dataclass(frozen=True)
class Sizes:
    """What an ONNX file leaves open.

    Attributes:
        input_shape: sizes for axes that may vary, without the batch axis.
        input_value: what an input is filled with, instead of random numbers: sr=16000.
    """

    input_shape: Shapes = ()
    input_value: Annotated[tuple[str, ...], Parameter(metavar="NAME=NUMBER")] = ()


@flat
@dataclass(frozen=True)
class Choice:
    """Which batch-norms fold: the fields of `FoldOptions`, which takes its library to import.

    Attributes:
        only: fold only these (layer1.*); may be repeated.
        skip: leave these; may be repeated.
        through_relu: let a Relu become a maximum with one number a channel, where that folds more.
    """

    only: Patterns = ()
    skip: Patterns = ()
    through_relu: bool = False


@flat
@dataclass(frozen=True)
class Proving:
    """On what inputs it is proven, and with how much memory.

    Attributes:
        data: prove it on these inputs as well.
        seed: of the random inputs.
        max_memory: end with an error where it would take more (900MB, 4GB); default: what is free
            on the machine and in its container.
    """

    data: Archive | None = None
    seed: Seed = 0
    max_memory: Annotated[str | None, Parameter(metavar="SIZE")] = None


@flat
@dataclass(frozen=True)
class Reports:
    """Where the report is written besides the terminal.

    Attributes:
        json: write the report as JSON.
        html: write the report as a page.
    """

    json: File | None = None
    html: File | None = None
