"""The contract between the converter and the service: `models/<name>/<version>/model.json`.

There is one definition, this one. The converter imports it to write what the service reads.
A version folder holds `model.onnx` (with `model.onnx.<hash>.data` beside it when the weights
are large), `model.json` (this manifest) and `selftest.npz` (inputs and the outputs that the
float64 oracle of the un-folded model gave for them).
"""

from __future__ import annotations

import math
from functools import cached_property
from itertools import pairwise
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    SerializerFunctionWrapHandler,
    ValidationError,
    field_validator,
    model_serializer,
    model_validator,
)

from service import certificate

FORMAT: Literal["foldserve.model/1"] = "foldserve.model/1"
MANIFEST_FILE = "model.json"
MODEL_FILE = "model.onnx"
SELFTEST_FILE = "selftest.npz"

# `latest`, `latest:3` (the three highest good ones), `all`, `specific:1,4`
VERSION_POLICY = r"^(latest(:[1-9][0-9]{0,5})?|all|specific:[1-9][0-9]*(,[1-9][0-9]*)*)$"

DType = Literal[
    "float16", "bfloat16", "float32", "float64",
    "int8", "int16", "int32", "int64",
    "uint8", "uint16", "uint32", "uint64",
    "bool", "string",
]  # fmt: skip

# A fixed size, or the name of a size that may differ from request to request ("batch").
Dim = Annotated[int, Field(ge=0)] | Annotated[str, Field(min_length=1)]


AxisSize = Annotated[int, Field(ge=1, le=2**20)]
MOST_WARM_UP_SHAPES = 64
MOST_CURVES = 8
MOST_CURVE_POINTS = 200
_LONGEST_REASON = 400


class Strict(BaseModel):
    """A misspelled key is an error, not silently ignored."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def first_problem(error: ValidationError) -> str:
    """Where a document is not valid, and why."""
    first = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(map(str, first["loc"]))
    return (f"{where}: {first['msg']}" if where else first["msg"])[:_LONGEST_REASON]


class FileEntry(Strict):
    """A file of the version folder, as it was when it was published."""

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    bytes: int = Field(ge=0)


class TensorSpec(Strict):
    """A named input or output. `shape` includes the batch axis."""

    name: str
    dtype: DType
    shape: list[Dim]
    # The largest size in a request; a setting of the server, which the file does not hold.
    _max_bytes: int = PrivateAttr(default=2**63)

    @cached_property
    def max_bytes(self) -> int:
        return self._max_bytes

    def limit(self, max_bytes: int) -> None:
        """Let `signature.check_size` refuse tensors of more than `max_bytes`."""
        self._max_bytes = max_bytes
        self.__dict__.pop("max_bytes", None)


class Classification(Strict):
    """How to read a label and a probability from an output of shape (batch, len(labels)).

    `activation` turns that output into probabilities: `softmax` of logits, `exp` of
    log-probabilities, `none` when the graph already ends in probabilities.
    """

    output: str
    labels: list[str] = Field(min_length=1)
    activation: Literal["softmax", "exp", "none"] = "softmax"


class Preprocessing(Strict):
    """What the model expects of an image: x = (pixel * scale - mean) / std, per channel.

    `pixel` is 0..255; `layout` is the order of the axes after the batch axis. A picture of
    another size is resized with `resize`: "squash" changes its proportions, "crop" scales its
    shorter side to `resize_shorter` (default: as little as covers) and cuts the centre out.
    """

    layout: Literal["CHW", "HWC"] = "CHW"
    channels: Literal["L", "RGB", "BGR"] = "RGB"
    height: int = Field(gt=0)
    width: int = Field(gt=0)
    scale: float = 1.0 / 255.0
    mean: list[float] = [0.0]
    std: list[float] = [1.0]
    resize: Literal["squash", "crop"] = "squash"
    resize_shorter: Annotated[int, Field(gt=0, le=65536)] | None = None

    @model_validator(mode="after")
    def _channels_agree(self) -> Preprocessing:
        count = 1 if self.channels == "L" else 3
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) not in {1, count}:
                raise ValueError(f"{name} has {len(values)} values for {count} channels")
        if 0.0 in self.std:
            raise ValueError("std must not be 0")
        return self


class SelfTest(Strict):
    """`selftest.npz` holds `input:<name>` and `output:<name>` arrays.

    The service runs the inputs before it serves the version; each float output must lie
    within `atol[name]` (absolute, same unit as the output) of the stored one, other
    dtypes must be equal.

    `max_error`: how far an engine that is chosen by measurement may be off at most, relative to the
    largest output, or "labels": the label of no row may change. Left out, it may only round as
    float32 does.
    """

    file: str = SELFTEST_FILE
    atol: dict[str, Annotated[float, Field(ge=0)]]
    max_error: Annotated[float, Field(gt=0, le=1)] | Literal["labels"] | None = None

    @model_serializer(mode="wrap")
    def _without_none(self, default: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Older services do not know the key, so it is left out where it says nothing."""
        written: dict[str, Any] = default(self)
        if self.max_error is None:
            written.pop("max_error", None)
        return written


class Curve(Strict):
    """How a number went while the model was trained: `values[i]` after `steps[i]` steps."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_]{0,63}$")
    steps: list[Annotated[int, Field(ge=0)]] = Field(min_length=1, max_length=MOST_CURVE_POINTS)
    values: list[Annotated[float, Field(allow_inf_nan=False)]]

    @model_validator(mode="after")
    def _points_in_order(self) -> Curve:
        if len(self.values) != len(self.steps):
            raise ValueError(f"{len(self.steps)} steps, but {len(self.values)} values")
        if any(later <= sooner for sooner, later in pairwise(self.steps)):
            raise ValueError("the steps must grow")
        return self


class Serving(Strict):
    """How the operator wants this model to be run; what is left out is measured or a setting.

    `max_batch_size`: rows of different requests that run together at most, 1 for never.
    `max_wait_us`: how long the first request of a batch waits for others.
    `runners`: runs at a time; `threads`: of each of them.
    `queue_capacity_samples`: rows that may wait before 503.
    `warm_up_sizes`: sizes of open axes, by their names, that are run once before the version is
    served, in all combinations: {"time": [64, 128]}.
    `version_policy`: which versions are served; that of the highest version counts.
    """

    max_batch_size: Annotated[int, Field(ge=1)] | None = None
    max_wait_us: Annotated[int, Field(ge=0, le=10_000_000)] | None = None
    runners: Annotated[int, Field(ge=1, le=1024)] | None = None
    threads: Annotated[int, Field(ge=1, le=1024)] | None = None
    queue_capacity_samples: Annotated[int, Field(ge=1)] | None = None
    warm_up_sizes: dict[str, Annotated[list[AxisSize], Field(min_length=1)]] = {}
    version_policy: Annotated[str, Field(pattern=VERSION_POLICY)] | None = None

    @model_validator(mode="after")
    def _not_too_many(self) -> Serving:
        if math.prod(map(len, self.warm_up_sizes.values())) > MOST_WARM_UP_SHAPES:
            raise ValueError(f"warm_up_sizes makes more than {MOST_WARM_UP_SHAPES} combinations")
        return self


class Manifest(Strict):
    """`model.json`. Unknown keys are refused; `format` names the version of this schema."""

    format: Literal["foldserve.model/1"] = FORMAT
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")
    version: int = Field(ge=1)
    description: str = ""
    files: dict[str, FileEntry]
    inputs: list[TensorSpec] = Field(min_length=1)
    outputs: list[TensorSpec] = Field(min_length=1)
    # Outputs of the graph that are not served, each with the reason: sequences and maps, such as
    # the one of a ZipMap. Without any the key is left out.
    left_out: dict[str, str] = {}
    # True when axis 0 of every input and of every output counts the same rows, of which a request
    # may have any number. False when the graph fixes its size, or an output has no such axis.
    dynamic_batch: bool = True
    # True when it was measured that a sample alone gives the same as that sample in a batch.
    batch_invariant: bool = False
    classification: Classification | None = None
    preprocessing: Preprocessing | None = None
    self_test: SelfTest | None = None
    # What the trainer measured, for example {"test_accuracy": 0.9931}.
    metrics: dict[str, float] = {}
    # The training, if its record was there. Without any the key is left out.
    curves: list[Curve] = Field([], max_length=MOST_CURVES)
    # The operator's, not the converter's: publishing leaves it out.
    serving: Serving = Serving()
    # What the converter did and measured, for people and audits; the service only shows it.
    provenance: dict[str, Any] = {}

    @property
    def certificate(self) -> certificate.Certificate | None:
        """What `provenance` says of the proof for every input; None if it says nothing of it."""
        if certificate.KEY not in self.provenance:  # a bare model lists no files either
            return None
        files = {name: entry.sha256 for name, entry in self.files.items()}
        return certificate.read(self.provenance, files)

    @model_serializer(mode="wrap")
    def _without_empty_ones(self, default: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Older services do not know these keys, so they are left out where they are empty."""
        written: dict[str, Any] = default(self)
        for key in ("curves", "left_out"):
            if not written.get(key):
                written.pop(key, None)
        return written

    @field_validator("files")
    @classmethod
    def _files_stay_in_the_folder(cls, files: dict[str, FileEntry]) -> dict[str, FileEntry]:
        for name in files:
            path = PurePosixPath(name)
            if path.name != name or name in {".", ".."} or "\\" in name:
                raise ValueError(f"{name!r} is not a plain file name of the version folder")
        if MODEL_FILE not in files:
            raise ValueError(f"{MODEL_FILE} is not listed")
        return files

    @model_validator(mode="after")
    def _references_exist(self) -> Manifest:
        outputs = {spec.name for spec in self.outputs}
        axes = {dim for spec in self.inputs for dim in spec.shape if isinstance(dim, str)}
        for name in self.serving.warm_up_sizes:
            if name not in axes:
                raise ValueError(f"serving.warm_up_sizes names {name!r}, no open axis of an input")
        if self.classification and self.classification.output not in outputs:
            raise ValueError(
                f"classification.output {self.classification.output!r} is not an output"
            )
        if (self.serving.max_batch_size or 1) > 1 and not self.batch_invariant:
            raise ValueError(
                "serving.max_batch_size is above 1, but without batch_invariant the rows of "
                "different requests must not be joined"
            )
        if self.self_test and self.self_test.file not in self.files:
            raise ValueError(f"self_test.file {self.self_test.file!r} is not listed in files")
        return self
