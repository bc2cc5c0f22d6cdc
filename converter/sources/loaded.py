"""What every loader takes and returns, whatever the file's format."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy.typing as npt
import onnx_ir as ir

from service.manifest import Classification, Preprocessing


@dataclass(frozen=True)
class InputShape:
    """One `--input-shape [NAME=]3,224,224[:dtype]`: sizes WITHOUT the batch axis.

    Attributes:
        sizes: of one sample; 0 for an axis that may vary, whose size for examples is to be found.
        name: None when the model has a single input and the user did not name it. Inside a list or
            a dict it is a path: `xs.0`, `batch.image`.
        axes: for each size, the name of an axis that may vary ("?" if it has none), or "" for one
            that may not; () when none may.
        batched: False when the sizes are the whole shape, `(64,64)`: there is no batch axis.
        fill: what examples are filled with, from `--input-value`.
    """

    sizes: tuple[int, ...]
    name: str | None = None
    dtype: str | None = None
    axes: tuple[str, ...] = ()
    batched: bool = True
    fill: float | None = None


@dataclass(frozen=True)
class LoadOptions:
    """What the user may say about a file that does not describe itself.

    Attributes:
        arch: `timm:NAME`, `torchvision:NAME` or `package.module:factory`.
        arch_args: keyword arguments of the architecture's factory.
        input_shapes: shapes of the inputs, see `InputShape`.
        input_values: what inputs hold, by name or path: a plain value that forward() takes, or
            what the examples of an input tensor are filled with.
        trust_pickle: unpickle arbitrary Python objects, which can run any code.
        custom_objects: modules to import that define a Keras model's own classes.
        weights: which set is meant in a file with several sets of weights, as its keys joined by
            dots ("ema.state_dict").
        data_shapes: the shapes of the user's own inputs by name, "" for the only one: sizes of
            axes that an .onnx file leaves open and `input_shapes` does not state.
    """

    arch: str | None = None
    arch_args: dict[str, Any] = field(default_factory=dict)
    input_shapes: tuple[InputShape, ...] = ()
    input_values: dict[str, Any] = field(default_factory=dict)
    trust_pickle: bool = False
    custom_objects: tuple[str, ...] = ()
    weights: str | None = None
    data_shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Known:
    """A shape that is not from the user, and where it is from."""

    sizes: tuple[int, ...]
    source: str


@dataclass(frozen=True)
class Input:
    """An input of the loaded graph, and how random examples of it are drawn.

    Attributes:
        shape: every axis, the batch axis first. A string is an axis that may vary.
        example: the same with a number for each axis (1 for the batch when it may vary).
        dtype: numpy's name of the type ("float32", "int64"; "bfloat16" is ml_dtypes').
        upper: for an integer input that indexes a table of the graph (an embedding), its
            number of rows: examples are drawn from [0, upper). None when there is no table.
        value: what every example of it is filled with, where the user gives a value.
    """

    name: str
    shape: tuple[int | str, ...]
    example: tuple[int, ...]
    dtype: str
    upper: int | None = None
    value: float | None = None


@dataclass(frozen=True)
class Reference:
    """What the original framework computed, to find a mistake of the exporter.

    Attributes:
        inputs: by the graph's input names; seeded normal numbers, zeros for whole numbers.
        outputs: by the graph's output names, what the original model computed from the inputs.
    """

    inputs: dict[str, npt.NDArray[Any]]
    outputs: dict[str, npt.NDArray[Any]]


@dataclass
class Loaded:
    """An un-folded graph, and what is known about it.

    Attributes:
        model: the graph with its batch-norms still in it; its weights are constants.
        inputs: the graph's inputs, in order.
        path: the file it came from.
        kind: what the file turned out to be, in words ("a TorchScript archive").
        notes: what was assumed, one sentence each ("input shape 3,224,224 from ...").
        warnings: what is suspicious, one sentence each.
        dynamic_batch: whether axis 0 of the inputs may vary.
        untracked: names of batch-norms whose statistics were never updated
            (`num_batches_tracked` is 0), as far as the file says.
        reference: an input and the output of the original model, where it could be run.
        left_out: outputs of the file that are not in `model`, and why.
        classification, preprocessing, metrics, description: for the manifest, if known.
    """

    model: ir.Model
    inputs: tuple[Input, ...]
    path: Path
    kind: str
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    dynamic_batch: bool = True
    untracked: frozenset[str] = frozenset()
    reference: Reference | None = None
    left_out: dict[str, str] = field(default_factory=dict)
    classification: Classification | None = None
    preprocessing: Preprocessing | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    description: str = ""
