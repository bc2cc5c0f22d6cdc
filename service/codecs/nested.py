"""Nested lists, as a parser of JSON makes them, to arrays.

numpy is too obliging for a server: np.asarray makes 1.0 of "1" and of true, NaN of null, and
1 of 1.5 for an integer dtype. So the elements are inspected one by one, unless it is known that
they are numbers. That also finds the position for the message.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from service.codecs import packed
from service.errors import (
    EmptyBatch,
    NullValue,
    OutOfRange,
    RaggedInput,
    WrongRank,
    WrongType,
)
from service.manifest import TensorSpec
from service.signature import NUMPY_DTYPES, check_shape, check_size, show

# What an element may be, by the kind of numpy's dtype; integers have two kinds.
_ALLOWED: dict[str, set[type]] = {"b": {bool}, "f": {int, float}, "O": {str}}


def array_of(
    value: Any, spec: TensorSpec, where: str, plain: bool, batched: bool = False
) -> np.ndarray:
    """Nested lists as an array of the spec's dtype and rank.

    Args:
        where: its place in the document, for messages.
        plain: it is known to hold nothing but numbers and lists.
        batched: whether axis 0 counts rows, for a hint.

    Raises:
        BadRequest: one of its classes.
        TensorTooLarge: more than --max-tensor-bytes.
    """
    dtype = NUMPY_DTYPES[spec.dtype]
    row_shape = spec.shape[1:]
    _check_size(value, spec)
    if plain and row_shape and all(isinstance(dim, int) and dim for dim in row_shape):
        quick = packed.array(value, dtype, [dim for dim in row_shape if isinstance(dim, int)])
        if quick is not None and len(quick):
            return quick
    _check_depth(value, spec, where, batched)
    if not plain or dtype.kind in "bO":
        _inspect(value, spec, where)
    if dtype.kind == "O":
        return np.array(value, dtype)
    try:
        if dtype.kind == "f":
            with np.errstate(over="ignore"):
                array = np.asarray(value, dtype=dtype)
            bad = ~np.isfinite(array)
        elif dtype.kind == "b":
            return np.asarray(value, dtype=dtype)
        else:
            wide = np.asarray(value)
            if wide.size and wide.dtype.kind not in "iu":
                # Floats, or integers that neither int64 nor uint64 holds together.
                _inspect(value, spec, where)
                wide = np.asarray(value, dtype=dtype)
            limits = np.iinfo(dtype)
            bad = (wide < limits.min) | (wide > limits.max)
            array = wide.astype(dtype)
    except OverflowError:
        raise OutOfRange(f"{where} has numbers outside the range of {spec.dtype}.") from None
    except ValueError:
        _inspect(value, spec, where)  # names the list that is too short or too long
        raise RaggedInput(f"{where} is not a rectangular array.") from None
    if bad.any():
        first = np.argwhere(bad)[0]
        raise OutOfRange(f"The number at {where}{_index(first)} does not fit {spec.dtype}.")
    return array


def _check_size(value: Any, spec: TensorSpec) -> None:
    """Raises TensorTooLarge, by the lengths of the first lists; the others are no longer."""
    sizes: list[int] = []
    while isinstance(value, list) and len(sizes) < len(spec.shape):
        sizes.append(len(value))
        value = value[0] if value else None
    check_size(spec, sizes)


def _check_depth(value: Any, spec: TensorSpec, where: str, batched: bool) -> None:
    """Compare the nesting of the first element with the rank, for the most common mistakes."""
    rank = len(spec.shape)
    received = []
    level = value
    while isinstance(level, list):
        received.append(len(level))
        if not level or len(received) > rank:
            break
        level = level[0]
    if len(received) == rank:
        return
    if not received and rank:
        raise WrongType(
            f"{where} is {kind_of(value)}, expected nested lists of shape {show(spec.shape)}."
        )
    if received[-1] == 0:
        raise EmptyBatch(f"{where} holds an empty list; the expected shape is {show(spec.shape)}.")
    if len(received) > rank:
        raise WrongRank(
            f"{where} has more than {rank} levels of lists; "
            f"the expected shape is {show(spec.shape)}.",
            hint="Remove the outermost list." if rank else "Send a plain number.",
        )
    single = batched and len(received) == rank - 1
    raise WrongRank(
        f"Input {spec.name!r}: expected shape {show(spec.shape)}, received {show(received)}.",
        hint="This looks like one sample without the batch axis: wrap it in one more list."
        if single
        else None,
    )


def _inspect(value: Any, spec: TensorSpec, where: str) -> None:
    """Look at every list and element; raise for the first that does not fit the spec."""
    rank = len(spec.shape)
    kind = NUMPY_DTYPES[spec.dtype].kind
    allowed = _ALLOWED.get(kind, {int})
    sizes: list[int] = []  # length of the lists at each level, set by the first list there

    def visit(level: Any, index: tuple[int, ...]) -> None:
        depth = len(index)
        if depth == rank:
            _refuse_element(level, spec, where + _index(index))
            return
        if not isinstance(level, list):
            if isinstance(level, int | float) and not isinstance(level, bool):
                raise RaggedInput(f"{where}{_index(index)} is a number, expected a list.")
            _refuse_element(level, spec, where + _index(index))
            raise RaggedInput(f"{where}{_index(index)} is {kind_of(level)}, expected a list.")
        if depth == len(sizes):
            sizes.append(len(level))
        elif len(level) != sizes[depth]:
            raise RaggedInput(
                f"{where}{_index(index)} has {len(level)} elements, "
                f"the lists before it have {sizes[depth]}."
            )
        if depth == rank - 1 and set(map(type, level)) <= allowed:
            return
        for position, element in enumerate(level):
            visit(element, (*index, position))

    visit(value, ())
    check_shape(spec, sizes)


def _refuse_element(element: Any, spec: TensorSpec, where: str) -> None:
    kind = NUMPY_DTYPES[spec.dtype].kind
    if element is None:
        raise NullValue(f"{where} is null.")
    if isinstance(element, list):
        raise RaggedInput(f"{where} is a list, expected an element of {spec.dtype}.")
    if kind == "O":
        if not isinstance(element, str):
            raise WrongType(f"{where} is {kind_of(element)}, expected text.")
    elif isinstance(element, bool):
        if kind != "b":
            raise WrongType(f"{where} is a boolean, expected a number of {spec.dtype}.")
    elif isinstance(element, str | dict):
        raise WrongType(f"{where} is {kind_of(element)}, expected an element of {spec.dtype}.")
    elif kind == "b":
        raise WrongType(f"{where} is a number, expected true or false.")
    elif isinstance(element, float) and kind in "iu":
        raise WrongType(
            f"{where} is not a whole number of {spec.dtype}.",
            hint="Write whole numbers without a decimal point or exponent, in the dtype's range.",
        )


def _index(position: Any) -> str:
    return "".join(f"[{int(i)}]" for i in position)


def kind_of(value: Any) -> str:
    """What a parsed value is, for a message."""
    if value is None:
        return "null"
    names = {dict: "an object", list: "a list", str: "text", bool: "a boolean"}
    return names.get(type(value), "a number")
