"""The two small languages of the command line: `--input-shape` and `--arch-arg`."""

from __future__ import annotations

import json
import re
from typing import Any

from converter.errors import UserError
from converter.sources.loaded import InputShape

DTYPES = (
    "float32", "float16", "bfloat16", "float64",
    "int8", "int16", "int32", "int64",
    "uint8", "bool",
)  # fmt: skip

_EXAMPLES = "for example 3,224,224 or image=3,224,224 or tokens=128:int64"


def parse_input_shape(text: str) -> InputShape:
    """`[NAME=]SIZE,SIZE,...[:DTYPE]`, the sizes without the batch axis, each at least 1.

    No sizes at all (`mask=`) is an input that has only the batch axis.

    Raises:
        UserError: when the text is something else; it says which part.
    """
    name, equals, rest = text.rpartition("=")
    if equals and not name.strip():
        raise UserError(f"--input-shape {text!r}: no name stands before the =", _EXAMPLES)
    sizes_text, colon, dtype = rest.partition(":")
    if colon and dtype not in DTYPES:
        raise UserError(
            f"--input-shape {text!r}: {dtype!r} is no type", f"types are: {', '.join(DTYPES)}"
        )
    parts = [part.strip() for part in re.split(r"[,x]", sizes_text)] if sizes_text.strip() else []
    if not parts and not equals:
        raise UserError(f"--input-shape {text!r} has no sizes", _EXAMPLES)
    for part in parts:
        if not re.fullmatch(r"[0-9]{1,9}", part) or int(part) < 1:
            raise UserError(
                f"--input-shape {text!r}: {part!r} is no size, which is a whole number above 0",
                f"give the sizes of one sample, without the batch axis: {_EXAMPLES}",
            )
    return InputShape(tuple(int(part) for part in parts), name.strip() or None, dtype or None)


def parse_arch_arg(text: str) -> tuple[str, Any]:
    """`KEY=VALUE`; the value is None, True, False, a number, a JSON list or object, or text.

    Raises:
        UserError: when there is no `=`, or the key is no Python name.
    """
    key, equals, value = text.partition("=")
    key, value = key.strip(), value.strip()
    if not equals or not key.isidentifier():
        raise UserError(
            f"--arch-arg {text!r} is not of the form name=value", "for example num_classes=10"
        )
    words = {"none": None, "null": None, "true": True, "false": False}
    if value.lower() in words:
        return key, words[value.lower()]
    for number in (int, float):
        try:
            return key, number(value)
        except ValueError:
            continue
    if value[:1] in {"[", "{", '"'}:
        try:
            return key, json.loads(value)
        except json.JSONDecodeError as error:
            raise UserError(
                f"--arch-arg {text!r}: the value is no JSON ({error})",
                "for example layers=[2,2,2,2]",
            ) from error
    return key, value
