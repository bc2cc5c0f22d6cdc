"""The small languages of the command line: `--input-shape`, `--input-value` and `--arch-arg`."""

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

_EXAMPLES = "for example 3,224,224 or image=3,224,224 or tokens=128:int64 or 3,height,width"
_NUMBER = re.compile(r"[0-9]{1,9}")
_AXIS = re.compile(r"(?P<name>\?|[A-Za-z_]\w*)(=(?P<size>[0-9]{1,9}))?")


def parse_input_shape(text: str) -> InputShape:
    """`[NAME=]SIZE,SIZE,...[:DTYPE]`, the sizes without the batch axis, each at least 1.

    * `mask=`: one number per sample; `y=:int64` states its type too.
    * `3,height,width` or `3,?,?`: axes that may vary; `3,height=256,width=256` also states the
      sizes of the example.
    * `adjacency=(64,64)`: the whole shape, there is no batch axis; `scale=()` is a scalar.
    * `xs.0=3,8,8`, `batch.image=3,8,8`: an element of a list, an entry of a dict.

    Raises:
        UserError: when the text is something else; it says which part.
    """
    name, equals, rest = _named(text)
    if equals and not name:
        raise UserError(f"--input-shape {text!r}: no name stands before the =", _EXAMPLES)
    sizes_text, colon, dtype = (part.strip() for part in rest.partition(":"))
    if colon and dtype not in DTYPES:
        raise UserError(
            f"--input-shape {text!r}: {dtype!r} is not a type", f"types are: {', '.join(DTYPES)}"
        )
    whole = sizes_text.startswith("(") and sizes_text.endswith(")")
    sizes_text = sizes_text[1:-1].strip().rstrip(",") if whole else sizes_text
    parts = re.split(r",|(?<=[0-9])x(?=[0-9])", sizes_text) if sizes_text else []
    if not parts and not equals and not whole:
        raise UserError(f"--input-shape {text!r} has no sizes", _EXAMPLES)
    axes = [_axis(part.strip(), text) for part in parts]
    return InputShape(
        tuple(size for _, size in axes),
        name or None,
        dtype or None,
        tuple(axis for axis, _ in axes) if any(axis for axis, _ in axes) else (),
        batched=not whole,
    )


def _named(text: str) -> tuple[str, str, str]:
    """The name, the `=` behind it, and the rest; `3,height=256` does not begin with a name."""
    name, equals, rest = text.partition("=")
    if "," in name:
        return "", "", text
    return (name.strip(), equals, rest) if equals else ("", "", text)


def _axis(part: str, text: str) -> tuple[str, int]:
    """The axis's name if it may vary, else "", and its size, 0 where none is given."""
    if _NUMBER.fullmatch(part) and int(part) > 0:
        return "", int(part)
    found = _AXIS.fullmatch(part)
    if found is None or found["size"] == "0":
        raise UserError(
            f"--input-shape {text!r}: {part!r} is not a size, which is a whole number above 0",
            f"give the sizes of one sample, without the batch axis: {_EXAMPLES}",
        )
    return found["name"], int(found["size"] or 0)


def parse_input_value(text: str) -> tuple[str, Any]:
    """`NAME=VALUE`, the value as for `parse_arch_arg`; the name may be a path: `options.scale`.

    Raises:
        UserError: when there is no `=` or no name.
    """
    name, equals, value = (part.strip() for part in text.partition("="))
    if not equals or not name:
        raise UserError(
            f"--input-value {text!r} is not of the form name=value", "for example sr=16000"
        )
    return name, _value(value, f"--input-value {text!r}")


def parse_arch_arg(text: str) -> tuple[str, Any]:
    """`KEY=VALUE`; the value is None, True, False, a number, a JSON list or object, or text.

    Raises:
        UserError: when there is no `=`, or the key is not a Python name.
    """
    key, equals, value = text.partition("=")
    key, value = key.strip(), value.strip()
    if not equals or not key.isidentifier():
        raise UserError(
            f"--arch-arg {text!r} is not of the form name=value", "for example num_classes=10"
        )
    return key, _value(value, f"--arch-arg {text!r}")


def _value(value: str, option: str) -> Any:
    words = {"none": None, "null": None, "true": True, "false": False}
    if value.lower() in words:
        return words[value.lower()]
    for number in (int, float):
        try:
            return number(value)
        except ValueError:
            continue
    if value[:1] in {"[", "{", '"'}:
        try:
            return json.loads(value)
        except json.JSONDecodeError as error:
            raise UserError(
                f"{option}: the value is no JSON ({error})",
                "for example layers=[2,2,2,2]",
            ) from error
    return value
