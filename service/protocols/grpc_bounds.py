"""How many parts a protobuf message has, counted before it is read into objects.

A message of two bytes that says "here is an empty message" becomes an object of a hundred, so 16 MB
of such take gigabytes. The tensors themselves are a few long fields, which are passed over here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress

from service.protobuf import Malformed, fields

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
        method: of inference.GRPCInferenceService, for which of its fields are messages.
    """
    view = memoryview(data)
    waiting: list[tuple[int, int, Tree]] = [(0, len(view), _TREES.get(method, {}))]
    left = most
    while waiting:
        at, end, inner = waiting.pop()
        with suppress(Malformed):  # the parser gets no farther there, but to the others it may
            for field in fields(view, at, end):
                left -= 1
                if left < 0:
                    return False
                if field.is_bytes and (below := inner.get(field.number)) is not None:
                    waiting.append((field.begin, field.end, below))
    return True


def texts(data: bytes, numbers: Sequence[int], most: int = MOST_FIELDS) -> list[str] | None:
    """Texts of a message, found without reading the rest of it; None if it is no message.

    Args:
        numbers: of the fields, which are strings of the message itself. One that is not there is
            empty, and the last of several counts, as for every reader of protobuf.
        most: fields that are looked at.
    """
    view = memoryview(data)
    found = dict.fromkeys(numbers, b"")
    try:
        for seen, field in enumerate(fields(view, 0, len(view))):
            if seen >= most:
                return None
            if field.is_bytes and field.number in found:
                found[field.number] = bytes(view[field.begin : field.end])
        return [text.decode() for text in found.values()]
    except ValueError:  # Malformed, or not UTF-8
        return None
