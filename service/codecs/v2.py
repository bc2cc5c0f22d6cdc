"""The Open Inference Protocol's tensors: JSON, with the binary tensor data extension.

    POST v2/models/<name>/infer
    {"id": "1", "inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32",
                            "data": [0.1, 0.2, 0.3, 0.4]}],
     "outputs": [{"name": "y", "parameters": {"binary_data": true}}]}

`data` is flat or nested, in row-major order. With the header Inference-Header-Content-Length
the JSON is only that many bytes; behind it follow, without gaps, the bytes of the inputs that
have `parameters.binary_data_size` instead of `data`. An answer is built the same way.

Source: Open Inference Protocol, inference_rest.md; Triton's extension_binary_data.md.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import orjson

from service.codecs import json_, nested, pieces, raw, strings, v2_classes, v2_heads, wish
from service.codecs.v2_heads import Wanted
from service.codecs.v2_request import DATATYPES, HINT, InferRequest, spec_of, unknown_output
from service.errors import DuplicateKey, InvalidBody
from service.manifest import TensorSpec
from service.models.model import ServedModel
from service.signature import STRING, Signature, Tensors, check_size, dtype_name


def decode(
    body: bytes | memoryview,
    header_bytes: int | None,
    signature: Signature,
    charge: json_.Charge = json_.uncounted,
) -> InferRequest:
    """The request in tensors.

    Args:
        header_bytes: the value of Inference-Header-Content-Length, None without it. 0 means
            that the body is the one tensor of a model whose shape the byte size tells, or its
            one string.

    Raises:
        BadRequest: one of its classes; shapes are compared with the model later, by
            `Signature.check`.
    """
    if header_bytes == 0:
        spec = raw.only_input(signature.inputs, "a raw binary request")
        if spec.dtype == STRING:
            tensor = strings.of_whole_body(body, spec)
        else:
            tensor = raw.array(body, spec, raw.deduce_shape(spec, len(body)))
        return InferRequest({spec.name: tensor}, None, [], True)
    if header_bytes is not None and header_bytes > len(body):
        raise InvalidBody(
            f"Inference-Header-Content-Length is {header_bytes}, but the body has "
            f"{len(body)} bytes."
        )
    text = bytes(body[:header_bytes])
    head = None if header_bytes is None else v2_heads.known(text, len(body), signature)
    if head is not None:
        return InferRequest(head.tensors(body), None, head.outputs, head.binary, head, head.wish)
    length = len(text)
    text, numbers = _taken_out(text, signature)
    document = json_.parse(text, charge)
    if not isinstance(document, dict):
        raise InvalidBody(
            f"The body is {nested.kind_of(document)}, expected an object with 'inputs'.", hint=HINT
        )
    inputs = _objects(document, "inputs")
    if not inputs:
        raise InvalidBody("The body has no 'inputs'.", hint=HINT)
    envelope = [{**entry, "data": 0} if "data" in entry else entry for entry in inputs]
    plain = json_.only_numbers(text, {**document, "inputs": envelope})
    if not plain:
        json_.refuse_duplicate_keys(text)
    if numbers is not None:
        inputs[0]["data"] = numbers
    tensors = _tensors(inputs, signature, plain, body, length)
    parameters = _parameters(document, "The request")
    binary = parameters.get("binary_data_output") is True
    wanted, own = _wanted(document, signature, binary), wish.of(parameters)
    request = InferRequest(tensors, _id(document), wanted, binary, wish=own)
    if request.id is None and not any("data" in entry for entry in inputs):
        head = v2_heads.keep(text, tensors, wanted, binary, own, signature)
    return request._replace(head=head)


def encode(
    model: ServedModel, outputs: Tensors, request: InferRequest, warnings: list[str]
) -> tuple[bytes, int | None]:
    """The answer, and the length of its JSON if binary tensors follow it."""
    head = None if warnings else request.head
    tail: list[bytes] = []
    entries = []
    for name, binary, classes in request.outputs or [Wanted(o, request.binary) for o in outputs]:
        array = outputs[name]
        if classes:
            entry, data = v2_classes.entry(name, array, classes, model, binary)
        else:
            entry = {"name": name, "shape": array.shape, "datatype": DATATYPES[dtype_name(array)]}
            data = raw.bytes_of(array) if binary else b""
            if not binary:
                entry["data"] = json_.tensor(array.reshape(-1))
        if binary:
            tail.append(data)
            entry["parameters"] = {"binary_data_size": len(data)}
        entries.append(entry)
    payload: dict[str, Any] = {"model_name": model.name, "model_version": str(model.version)}
    if request.id is not None:
        payload["id"] = request.id
    if warnings:
        payload["parameters"] = {"warning": " ".join(warnings)}
    payload["outputs"] = entries
    text = json_.encode(payload)
    if head is not None:
        head.keep_answer(outputs, text)
    return (b"".join([text, *tail]), len(text)) if tail else (text, None)


# From this size on it pays to take a tensor out of the document.
_LARGE_BYTES = 1024


def _taken_out(text: bytes, signature: Signature) -> tuple[bytes, np.ndarray | None]:
    """A document with 0 in the place of its one tensor, and its elements in a row."""
    if len(text) > _LARGE_BYTES and len(signature.inputs) == 1:
        (spec,) = signature.inputs.values()
        found = pieces.flat(text, spec)
        # The 0 must be where the tensor is looked for, under a key that nothing else spells.
        if found is not None and b"\\" not in found[0] and _has_zero(found[0]):
            return found
    return text, None


def _has_zero(text: bytes) -> bool:
    try:
        (only,) = orjson.loads(text)["inputs"]
        return type(only["data"]) is int
    except (ValueError, LookupError, TypeError):
        return False


def _tensors(
    inputs: list[dict[str, Any]],
    signature: Signature,
    plain: bool,
    body: bytes | memoryview,
    offset: int,
) -> Tensors:
    tensors: Tensors = {}
    for entry in inputs:
        spec = spec_of(entry.get("name"), entry.get("datatype"), signature)
        if spec.name in tensors:
            raise DuplicateKey(f"The input {spec.name!r} occurs twice.")
        shape = _shape(entry, spec.name)
        parameters = _parameters(entry, f"Input {spec.name!r}")
        if "shared_memory_region" in parameters:
            raise InvalidBody("Shared memory is not served.", hint="Send the tensor itself.")
        size = parameters.get("binary_data_size")
        if size is None:
            tensors[spec.name] = _from_json(entry, spec, shape, plain)
            continue
        if not _is_size(size) or "data" in entry:
            raise InvalidBody(
                f"Input {spec.name!r} must have either 'data' or a 'binary_data_size' of bytes."
            )
        if offset + size > len(body):
            raise InvalidBody(
                f"Input {spec.name!r} has a binary_data_size of {size}, but only "
                f"{len(body) - offset} bytes are left."
            )
        tensors[spec.name] = raw.array(body, spec, shape, offset, size)
        offset += size
    if offset != len(body):
        raise InvalidBody(
            f"{len(body) - offset} bytes of the body belong to no input.",
            hint="Check Inference-Header-Content-Length and each binary_data_size.",
        )
    return tensors


def _from_json(
    entry: dict[str, Any], spec: TensorSpec, shape: list[int], plain: bool
) -> np.ndarray:
    where = f"The data of input {spec.name!r}"
    if "data" not in entry:
        raise InvalidBody(f"Input {spec.name!r} has no 'data'.", hint=HINT)
    data = entry["data"]
    if isinstance(data, np.ndarray):
        if data.size != math.prod(shape):
            raise InvalidBody(
                f"{where} has {data.size} elements, its shape {shape} has {math.prod(shape)}."
            )
        return raw.reshaped(data, spec, shape)
    in_lists = isinstance(data, list) and bool(data) and isinstance(data[0], list)
    declared = TensorSpec.model_construct(
        name=spec.name, dtype=spec.dtype, shape=shape if in_lists else [math.prod(shape)]
    )
    if not in_lists and isinstance(data, list) and len(data) != declared.shape[0]:
        raise InvalidBody(
            f"{where} has {len(data)} elements, its shape {shape} has {declared.shape[0]}."
        )
    check_size(spec, shape)
    if not data and isinstance(data, list):
        return raw.reshaped(np.empty(0, spec.dtype), spec, shape)
    array = nested.array_of(data, declared, where, plain)
    if in_lists and list(array.shape) != shape:
        raise InvalidBody(f"{where} has the shape {list(array.shape)}, declared is {shape}.")
    return raw.reshaped(array, spec, shape)


def _shape(entry: dict[str, Any], name: str) -> list[int]:
    shape = entry.get("shape")
    if not isinstance(shape, list) or not all(map(_is_size, shape)):
        raise InvalidBody(f"Input {name!r} has no 'shape' of whole numbers.", hint=HINT)
    return shape


def _is_size(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


def _objects(document: dict[str, Any], key: str) -> list[dict[str, Any]]:
    entries = document.get(key)
    if entries is None:
        return []
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise InvalidBody(f"'{key}' must be a list of objects.", hint=HINT)
    return entries


def _parameters(entry: dict[str, Any], whose: str) -> dict[str, Any]:
    parameters = entry.get("parameters") or {}
    if not isinstance(parameters, dict):
        raise InvalidBody(f"{whose} has 'parameters' that are not an object.")
    return parameters


def _id(document: dict[str, Any]) -> str | None:
    given = document.get("id")
    if given is not None and not isinstance(given, str):
        raise InvalidBody("The 'id' of the request is not text.")
    return given


def _wanted(document: dict[str, Any], signature: Signature, binary: bool) -> list[Wanted]:
    wanted = []
    for entry in _objects(document, "outputs"):
        name = entry.get("name")
        if not isinstance(name, str) or name not in signature.outputs:
            raise unknown_output(name, signature)
        parameters = _parameters(entry, f"Output {name!r}")
        if "shared_memory_region" in parameters:
            raise InvalidBody("Shared memory is not served.", hint="Ask for the tensor itself.")
        classes = parameters.get("classification", 0)
        if not _is_size(classes):
            raise InvalidBody(f"'classification' of output {name!r} is not a count.")
        wanted.append(Wanted(name, parameters.get("binary_data", binary) is True, classes))
    if len({entry.name for entry in wanted}) < len(wanted):
        raise DuplicateKey("The same output is asked for twice.", hint="Name each once.")
    return wanted
