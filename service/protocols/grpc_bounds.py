"""How many parts a protobuf message has, counted before it is read into objects.

A message of two bytes that says "here is an empty message" becomes an object of a hundred, so 16 MB
of such take gigabytes. The tensors themselves are a few long fields, which are passed over here:

    message  := (tag value)*          tag = field number << 3 | wire type, a varint
    wire type 0: a varint, 1: eight bytes, 2: a length and so many bytes, 5: four bytes

Source: Protocol Buffers, Encoding, "Message Structure".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

# A request names its tensors, their shapes and some parameters: a hundred fields are many.
MOST_FIELDS = 10_000

# Which fields of a message are messages themselves, and what these hold; anything else is data.
Tree = Mapping[int, "Tree"]
_PARAMETERS: Tree = {2: {}}  # an entry of a map: its value is a message
_TENSOR: Tree = {4: _PARAMETERS}
_TREES: Mapping[str, Tree] = {
    "ModelInfer": {4: _PARAMETERS, 5: _TENSOR, 6: {2: _PARAMETERS}},
    "RepositoryModelLoad": {3: _PARAMETERS},
    "RepositoryModelUnload": {3: _PARAMETERS},
}


def within(data: bytes, method: str, most: int = MOST_FIELDS) -> bool:
    """Whether the message has at most so many fields, those of the messages in it included.

    What is no message at all is for the parser to refuse, and so is within the bounds.

    Args:
        data: a request.
        method: of inference.GRPCInferenceService, for which of its fields are messages.
        most: fields.
    """
    view = memoryview(data)
    waiting: list[tuple[int, int, Tree]] = [(0, len(view), _TREES.get(method, {}))]
    fields = 0
    while waiting:
        at, end, inner = waiting.pop()
        while at < end:
            fields += 1
            if fields > most:
                return False
            tag, at = _varint(view, at, end)
            kind = tag & 7
            if kind == 0:
                _, at = _varint(view, at, end)
            elif kind == 2:
                length, at = _varint(view, at, end)
                below = inner.get(tag >> 3)
                if below is not None:
                    waiting.append((at, min(at + length, end), below))
                at += length
            elif kind in _FIXED:
                at += _FIXED[kind]
            else:
                break
    return True


def texts(data: bytes, numbers: Sequence[int], most: int = MOST_FIELDS) -> list[str] | None:
    """Texts of a message, found without reading the rest of it; None if it is no message.

    Args:
        data: a request.
        numbers: of the fields, which are strings of the message itself. One that is not there is
            empty, and the last of several counts, as for every reader of protobuf.
        most: fields that are looked at.
    """
    view, at, end = memoryview(data), 0, len(data)
    found = dict.fromkeys(numbers, b"")
    for _ in range(most):
        if at == end:
            break
        tag, at = _varint(view, at, end)
        kind, number = tag & 7, tag >> 3
        if not number:
            return None
        if kind == 0:
            _, at = _varint(view, at, end)
        elif kind == 2:
            length, at = _varint(view, at, end)
            if number in found:
                found[number] = bytes(view[at : at + length])
            at += length
        elif kind in _FIXED:
            at += _FIXED[kind]
        else:
            return None
        if at > end:
            return None
    try:
        return [text.decode() for text in found.values()] if at == end else None
    except UnicodeDecodeError:
        return None


_FIXED = {1: 8, 5: 4}


def _varint(view: memoryview, at: int, end: int) -> tuple[int, int]:
    """The number at a place, and the place behind it; the end where it is cut off."""
    value = shift = 0
    while at < end and shift < 70:
        byte = view[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7
    return 0, end
