"""The files that a model.onnx asks onnxruntime to open, read without the onnx package.

An ONNX file may keep tensors in other files, each named by a `location`, and a location such as
../../etc/passwd or a link would be read too. So every location is found before a session is
made, and must be a plain file inside the version folder.

Protobuf is a list of fields, each a key (number * 8 + wire type) and a value:

    0 varint    1 eight bytes    2 length and bytes    5 four bytes

Only the messages on the way from the model to a tensor are entered (`_CHILDREN`); everything
else, above all the weights, is skipped. Number of fields and depth are bounded, and a
length that leads out of its message ends the walk.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from service.manifest import MODEL_FILE
from service.signing.names import SIGNATURE_FILE

_MAX_FIELDS = 20_000_000
_MAX_DEPTH = 64
_LONGEST_LOCATION_BYTES = 4096

# message: {number of a field: message in it}, by the names of onnx.proto
_CHILDREN: dict[str, dict[int, str]] = {
    "Model": {7: "Graph", 20: "Training", 25: "Function"},
    "Training": {1: "Graph", 2: "Graph"},
    "Function": {7: "Node", 11: "Attribute"},
    "Graph": {1: "Node", 5: "Tensor", 15: "SparseTensor"},
    "Node": {5: "Attribute"},
    "Attribute": {
        5: "Tensor", 6: "Graph", 10: "Tensor", 11: "Graph", 22: "SparseTensor", 23: "SparseTensor",
    },
    "SparseTensor": {1: "Tensor", 2: "Tensor"},
    "Tensor": {13: "Entry"},
    "Entry": {},
}  # fmt: skip
_VARINT, _EIGHT_BYTES, _BYTES, _FOUR_BYTES = 0, 1, 2, 5
_KEY, _VALUE = 1, 2

Buffer = bytes | mmap.mmap


class Unreadable(Exception):
    """The file is no ONNX model, or refers to files outside; a sentence without paths."""


def locations(model: Path) -> set[str]:
    """The locations of all external tensors of an ONNX file.

    Raises:
        Unreadable: not a protobuf message, or nested or long beyond all reason.
    """
    with model.open("rb") as file:
        if file.seek(0, 2) == 0:
            raise Unreadable(f"{MODEL_FILE} is empty")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return named(content)


def named(content: Buffer) -> set[str]:
    """The same, of the content of an ONNX file.

    Raises:
        Unreadable: as `locations`.
    """
    if not len(content):
        raise Unreadable(f"{MODEL_FILE} is empty")
    return set(_Walk(content).locations())


def check(model: Path) -> None:
    """Refuse a model whose tensors lie anywhere but in files of its own folder.

    Raises:
        Unreadable: with the reason.
    """
    folder = model.parent.resolve()
    for location in sorted(locations(model)):
        path = PurePosixPath(location)
        inside = not path.is_absolute() and ".." not in path.parts and "\\" not in location
        if not inside or not location.isprintable() or ":" in location:
            raise Unreadable(f"{MODEL_FILE} keeps weights outside of its folder")
        if path.name == SIGNATURE_FILE:
            raise Unreadable(f"{MODEL_FILE} keeps weights in {SIGNATURE_FILE}, the signature")
        try:
            real = (folder / path).resolve(strict=True)
        except (OSError, RuntimeError, ValueError):
            raise Unreadable(f"the weights {path.name[:64]!r} are missing") from None
        if folder not in real.parents:
            raise Unreadable(f"the weights {path.name[:64]!r} are a link out of the version folder")
        if not real.is_file():
            raise Unreadable(f"the weights {path.name[:64]!r} are not a regular file")


class _Walk:
    """One pass over a file."""

    def __init__(self, content: Buffer) -> None:
        self._content = content
        self._fields = 0

    def locations(self) -> Iterator[str]:
        # No recursion: a hostile file must not exhaust the interpreter's stack.
        stack = [("Model", 0, len(self._content), 0)]
        while stack:
            message, start, end, depth = stack.pop()
            if depth > _MAX_DEPTH:
                raise Unreadable(f"{MODEL_FILE} is nested too deeply")
            children = _CHILDREN[message]
            if message == "Entry":
                yield from self._location(start, end)
                continue
            for number, first, last in self._fields_of(start, end):
                child = children.get(number)
                if child is not None:
                    stack.append((child, first, last, depth + 1))

    def _location(self, start: int, end: int) -> Iterator[str]:
        """The value of a key-value pair, if its key is `location`; each that it holds."""
        pairs = [
            (number, self._content[first : min(last, first + _LONGEST_LOCATION_BYTES + 1)])
            for number, first, last in self._fields_of(start, end)
        ]
        if not any(number == _KEY and text == b"location" for number, text in pairs):
            return
        for number, text in pairs:
            if number == _VALUE:
                try:
                    if len(text) > _LONGEST_LOCATION_BYTES:
                        raise ValueError
                    yield text.decode("utf-8")
                except ValueError:
                    raise Unreadable(f"{MODEL_FILE} names a file by no name") from None

    def _fields_of(self, position: int, end: int) -> Iterator[tuple[int, int, int]]:
        """(number, start, end) of each length-delimited field of the message there."""
        while position < end:
            self._fields += 1
            if self._fields > _MAX_FIELDS:
                raise Unreadable(f"{MODEL_FILE} has more than {_MAX_FIELDS} fields")
            key, position = self._varint(position, end)
            wire = key & 7
            if wire == _VARINT:
                _, position = self._varint(position, end)
            elif wire == _EIGHT_BYTES:
                position += 8
            elif wire == _FOUR_BYTES:
                position += 4
            elif wire == _BYTES:
                length, start = self._varint(position, end)
                position = start + length
                if position <= end:
                    yield key >> 3, start, position
            else:
                raise _no_model()
            if position > end:
                raise _no_model()

    def _varint(self, position: int, end: int) -> tuple[int, int]:
        """The number there, and where it ends."""
        value = shift = 0
        while position < end and shift < 70:
            byte = self._content[position]
            position += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value, position
            shift += 7
        raise _no_model()


def _no_model() -> Unreadable:
    return Unreadable(f"{MODEL_FILE} is damaged: its structure does not add up")
