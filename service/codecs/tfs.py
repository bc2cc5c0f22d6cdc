"""TensorFlow Serving's JSON: rows or columns to tensors, and back in the same form.

    {"instances": [[1, 2], [3, 4]]}               rows of the only input
    {"instances": [{"a": [1], "b": 2}, ...]}      rows of named inputs
    {"inputs": [[1, 2], [3, 4]]}                  the only input as a whole
    {"inputs": {"a": [[1]], "b": [2]}}            named inputs as wholes

Rows are answered with {"predictions": [...]}, columns with {"outputs": ...}; a model with one
output has its values there, one with several an object of them (for each row, or in all).

Source: TensorFlow Serving, RESTful API, "Predict API".
"""

from __future__ import annotations

from typing import Any

import numpy as np

from service.codecs import json_, nested, pieces, strings
from service.errors import InvalidBody, MissingInput, WrongType
from service.signature import STRING, Signature, Tensors, show

SIGNATURE = "serving_default"
_HINT = 'Send {"instances": [...]} with a row for each sample, or {"inputs": ...}.'


def decode(
    body: bytes, signature: Signature, charge: json_.Charge = json_.uncounted
) -> tuple[Tensors, bool]:
    """The tensors, and whether they came in rows.

    Raises:
        BadRequest: one of its classes.
    """
    if len(signature.inputs) == 1:
        ((name, spec),) = signature.inputs.items()
        for key in ("instances", "inputs"):
            array = pieces.decode(body, key, spec)
            if array is not None:
                return {name: array}, key == "instances"
    document = json_.parse(body, charge)
    if not isinstance(document, dict):
        raise InvalidBody(f"The body is {nested.kind_of(document)}, not an object.", hint=_HINT)
    by_rows = "instances" in document
    key = "instances" if by_rows else "inputs"
    if by_rows == ("inputs" in document):
        raise InvalidBody("The body must have either 'instances' or 'inputs'.", hint=_HINT)
    unknown = document.keys() - {key, "signature_name"}
    if unknown:
        raise InvalidBody(f"The body has the unknown key {min(unknown)[:64]!r}.", hint=_HINT)
    asked = document.get("signature_name", SIGNATURE)
    if asked not in ("", SIGNATURE):
        raise InvalidBody(
            f'The model has no signature of that name, only "{SIGNATURE}".',
            hint="Leave signature_name out.",
        )
    given = document[key]
    named, envelope = _columns(given, signature) if by_rows else _whole(given, signature)
    plain = json_.only_numbers(body, {**document, key: envelope})
    if not plain:
        json_.refuse_duplicate_keys(body)
    signature.check_names(named)
    named = {name: _texts(value, name, signature) for name, value in named.items()}
    tensors = {
        name: nested.array_of(named[name], spec, f"{key}: {name!r}", plain, signature.batched)
        for name, spec in signature.inputs.items()
    }
    return tensors, by_rows


def encode(outputs: Tensors, by_rows: bool, rows: int) -> bytes:
    """The answer in the form in which the request came.

    Raises:
        InvalidBody: an output does not have a row for each row of the request.
    """
    only = next(iter(outputs.values())) if len(outputs) == 1 else None
    if not by_rows:
        whole = {name: json_.tensor(array) for name, array in outputs.items()}
        return json_.encode({"outputs": json_.tensor(only) if only is not None else whole})
    for name, array in outputs.items():
        if not array.ndim or len(array) != rows:
            raise InvalidBody(
                f"Output {name!r} has the shape {show(array.shape)}, not a row for each of the "
                f"{rows} instances.",
                hint='Ask in columns: {"inputs": ...} instead of {"instances": ...}.',
            )
    if only is not None:
        return json_.encode({"predictions": json_.tensor(only)})
    columns = {name: np.ascontiguousarray(array) for name, array in outputs.items()}
    return json_.encode(
        {
            "predictions": [
                {name: json_.tensor(np.asarray(array[row])) for name, array in columns.items()}
                for row in range(rows)
            ]
        }
    )


def _columns(rows: Any, signature: Signature) -> tuple[dict[str, Any], Any]:
    """Rows as {name: list of rows}, and what stays of them without their tensors."""
    if not isinstance(rows, list) or not rows:
        raise InvalidBody("'instances' must be a list with at least one row.", hint=_HINT)
    if not isinstance(rows[0], dict) or strings.is_base64(rows[0]):
        return {_only_input(signature, "a row is one value"): rows}, 0
    names = rows[0].keys()
    for position, row in enumerate(rows):
        if not isinstance(row, dict) or row.keys() != names:
            raise MissingInput(
                f"instances[{position}] does not have the names of instances[0].",
                hint="Every row must name the same inputs.",
            )
    envelope = [dict.fromkeys(row, 0) for row in rows]
    return {name: [row[name] for row in rows] for name in names}, envelope


def _whole(inputs: Any, signature: Signature) -> tuple[dict[str, Any], Any]:
    if isinstance(inputs, dict) and not strings.is_base64(inputs):
        return inputs, dict.fromkeys(inputs, 0)
    return {_only_input(signature, "'inputs' is one value"): inputs}, 0


def _only_input(signature: Signature, what: str) -> str:
    if len(signature.inputs) > 1:
        raise MissingInput(
            f"The model has {len(signature.inputs)} inputs ({signature.names()}), but {what}.",
            hint="Name the inputs in an object.",
        )
    return next(iter(signature.inputs))


def _texts(value: Any, name: str, signature: Signature) -> Any:
    """The value, with text in the place of the base64 that may stand for a string."""
    if signature.inputs[name].dtype == STRING:
        return strings.of_base64(value, name)
    inner = value if isinstance(value, list) else [value]
    if any(map(strings.is_base64, inner)):
        raise WrongType(
            f"base64 stands for strings, and input {name!r} takes {signature.inputs[name].dtype}.",
            hint="Send numbers.",
        )
    return value
