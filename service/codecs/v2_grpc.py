"""The Open Inference Protocol's gRPC messages to tensors and back.

Inputs come as `raw_input_contents`, one element for each, little-endian; or all in the typed
`contents`. The answer is raw, as Triton's is, or has the form of the request if that is asked for;
FP16 exists in the raw one alone.

Source: Open Inference Protocol, inference_grpc.md, "Tensor Data".
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from service.codecs import raw, strings, v2_classes, wish
from service.codecs.v2_heads import Wanted
from service.codecs.v2_request import DATATYPES, InferRequest, spec_of, unknown_output
from service.errors import DuplicateKey, InvalidBody, OutOfRange, WrongShape
from service.manifest import TensorSpec
from service.models.model import ServedModel
from service.signature import (
    NUMPY_DTYPES,
    STRING,
    Signature,
    Tensors,
    check_size,
    dtype_name,
)

# dtype -> the field of InferTensorContents that holds it
CONTENTS = {
    "bool": "bool_contents",
    "int8": "int_contents",
    "int16": "int_contents",
    "int32": "int_contents",
    "int64": "int64_contents",
    "uint8": "uint_contents",
    "uint16": "uint_contents",
    "uint32": "uint_contents",
    "uint64": "uint64_contents",
    "float32": "fp32_contents",
    "float64": "fp64_contents",
    STRING: "bytes_contents",
}


def decode(request: Any, signature: Signature) -> InferRequest:
    """A ModelInferRequest in tensors; `binary` says whether they came as raw contents.

    Raises:
        BadRequest: one of its classes; shapes are compared with the model later, by
            `Signature.check`.
    """
    parts = request.raw_input_contents
    if parts and len(parts) != len(request.inputs):
        raise InvalidBody(
            f"raw_input_contents has {len(parts)} elements for {len(request.inputs)} inputs.",
            hint="Send one for each input, and no typed contents.",
        )
    tensors: Tensors = {}
    for position, entry in enumerate(request.inputs):
        spec = spec_of(entry.name, entry.datatype, signature)
        if spec.name in tensors:
            raise DuplicateKey(f"The input {spec.name!r} occurs twice.")
        shape = list(entry.shape)
        if min(shape, default=0) < 0:
            raise WrongShape(f"Input {spec.name!r} has a negative size.")
        if "shared_memory_region" in entry.parameters:
            raise InvalidBody("Shared memory is not served.", hint="Send the tensor itself.")
        if parts:
            if entry.HasField("contents"):
                raise InvalidBody(
                    f"Input {spec.name!r} comes twice: in raw_input_contents and in its contents.",
                    hint="Send one of them.",
                )
            tensors[spec.name] = raw.array(parts[position], spec, shape)
        else:
            tensors[spec.name] = _typed(entry.contents, spec, shape)
    wanted, own = _wanted(request, signature), wish.of(_plain(request.parameters))
    return InferRequest(tensors, request.id or None, wanted, bool(parts), wish=own)


def _plain(parameters: Any) -> dict[str, Any]:
    """Parameters of a message by name, each as the value that it holds."""
    choices = {name: value.WhichOneof("parameter_choice") for name, value in parameters.items()}
    return {name: getattr(parameters[name], choice) for name, choice in choices.items() if choice}


def _typed(contents: Any, spec: TensorSpec, shape: list[int]) -> np.ndarray:
    field = CONTENTS.get(spec.dtype)
    if field is None:
        raise InvalidBody(
            f"Input {spec.name!r} is {DATATYPES[spec.dtype]}, which has no typed contents.",
            hint="Send it in raw_input_contents.",
        )
    used = [descriptor.name for descriptor, _ in contents.ListFields()]
    if used and used != [field]:
        raise InvalidBody(
            f"Input {spec.name!r} of {DATATYPES[spec.dtype]} belongs into {field}, "
            f"not into {used[0]}."
        )
    dtype = NUMPY_DTYPES[spec.dtype]
    check_size(spec, shape)
    given = getattr(contents, field)
    check_size(spec, [len(given)])
    count = math.prod(shape)
    if len(given) != count:
        raise WrongShape(
            f"Input {spec.name!r} has {len(given)} elements, its shape {shape} has {count}."
        )
    if spec.dtype == STRING:
        return strings.of_parts(given, spec, shape)
    wide = np.array(given)
    if dtype.kind in "iu" and wide.size:
        limits = np.iinfo(dtype)
        if wide.min() < limits.min or wide.max() > limits.max:
            raise OutOfRange(f"Input {spec.name!r} has numbers that do not fit {spec.dtype}.")
    return raw.reshaped(wide.astype(dtype), spec, shape)


def _wanted(request: Any, signature: Signature) -> list[Wanted]:
    wanted = []
    for entry in request.outputs:
        if entry.name not in signature.outputs:
            raise unknown_output(entry.name, signature)
        classes = 0
        if "classification" in entry.parameters:
            classes = entry.parameters["classification"].int64_param
            if classes < 1:
                raise InvalidBody(f"'classification' of output {entry.name!r} is not a count.")
        if "shared_memory_region" in entry.parameters:
            raise InvalidBody("Shared memory is not served.", hint="Ask for the tensor itself.")
        wanted.append(Wanted(entry.name, binary=False, classes=classes))
    if len({entry.name for entry in wanted}) < len(wanted):
        raise DuplicateKey("The same output is asked for twice.", hint="Name each once.")
    return wanted


def encode(
    response: Any,
    model: ServedModel,
    outputs: Tensors,
    request: InferRequest,
    warnings: list[str],
    raw_outputs: bool = True,
) -> None:
    """Fill a ModelInferResponse with the outputs that the request wants.

    `raw_outputs`: in raw contents, even if the request came in typed ones.
    """
    response.model_name, response.model_version = model.name, str(model.version)
    response.id = request.id or ""
    if warnings:
        response.parameters["warning"].string_param = " ".join(warnings)
    wanted = request.outputs or [Wanted(name, binary=False) for name in outputs]
    as_raw = (
        raw_outputs
        or request.binary
        or any(dtype_name(outputs[w.name]) not in CONTENTS for w in wanted)
    )
    for name, _, classes in wanted:
        array = outputs[name]
        entry = response.outputs.add(name=name)
        if classes:
            made, data = v2_classes.entry(name, array, classes, model, binary=as_raw)
            entry.datatype = made["datatype"]
            entry.shape.extend(made["shape"])
            if not as_raw:
                entry.contents.bytes_contents.extend(text.encode() for text in made["data"])
        else:
            kind = dtype_name(array)
            entry.datatype = DATATYPES[kind]
            entry.shape.extend(array.shape)
            data = raw.bytes_of(array) if as_raw else b""
            if not as_raw:
                flat = np.ascontiguousarray(array).reshape(-1).tolist()
                if kind == STRING:
                    flat = [text.encode() for text in flat]
                getattr(entry.contents, CONTENTS[kind]).extend(flat)
        if as_raw:
            response.raw_output_contents.append(data)
