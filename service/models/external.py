"""The files that a model.onnx asks onnxruntime to open, read without the onnx package.

An ONNX file may keep tensors in other files, each named by a `location`, and a location such as
../../etc/passwd or a link would be read too. So every location is found before a session is
made, and must be a plain file inside the version folder.

Only the messages on the way from the model to a tensor are entered (`_CHILDREN`); everything
else, above all the weights, is skipped. Number of fields and depth are bounded, and a
length that leads out of its message ends the walk.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from service import protobuf
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
_KEY, _VALUE = 1, 2

Buffer = bytes | mmap.mmap


class Unreadable(Exception):
    """The file is no ONNX model, or refers to files outside; a sentence without paths."""


@contextmanager
def mapped(path: Path) -> Iterator[Buffer]:
    """The content of a file; an empty one cannot be mapped, and has none."""
    with path.open("rb") as file:
        if file.seek(0, 2) == 0:
            yield b""
            return
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            yield content


def locations(model: Path) -> set[str]:
    """The locations of all external tensors of an ONNX file.

    Raises:
        Unreadable: not a protobuf message, or nested or long beyond all reason.
    """
    with mapped(model) as content:
        return named(content)


def named(content: Buffer) -> set[str]:
    """The same, of the content of an ONNX file.

    Raises:
        Unreadable: as `locations`.
    """
    if not len(content):
        raise Unreadable(f"{MODEL_FILE} is empty")
    try:
        return {location for entry in _entries(content) for location in _location(entry)}
    except protobuf.Malformed:
        raise Unreadable(f"{MODEL_FILE} is damaged: its structure does not add up") from None


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


def _entries(content: Buffer) -> Iterator[list[tuple[int, bytes]]]:
    """Each key-value pair of a tensor: the number and the beginning of its fields of bytes."""
    left = _MAX_FIELDS
    # No recursion: a hostile file must not exhaust the interpreter's stack.
    stack = [("Model", 0, len(content), 0)]
    while stack:
        message, begin, end, depth = stack.pop()
        if depth > _MAX_DEPTH:
            raise Unreadable(f"{MODEL_FILE} is nested too deeply")
        children = _CHILDREN[message]
        pairs = []
        for number, is_bytes, first, last in protobuf.fields(content, begin, end):
            left -= 1
            if left < 0:
                raise Unreadable(f"{MODEL_FILE} has more than {_MAX_FIELDS} fields")
            if message == "Entry" and is_bytes:
                last = min(last, first + _LONGEST_LOCATION_BYTES + 1)
                pairs.append((number, content[first:last]))
            elif is_bytes and number in children:
                stack.append((children[number], first, last, depth + 1))
        if message == "Entry":
            yield pairs


def _location(pairs: list[tuple[int, bytes]]) -> Iterator[str]:
    """The value of a key-value pair, if its key is `location`; each that it holds."""
    if (_KEY, b"location") not in pairs:
        return
    for number, text in pairs:
        if number == _VALUE:
            try:
                if len(text) > _LONGEST_LOCATION_BYTES:
                    raise ValueError
                yield text.decode("utf-8")
            except ValueError:
                raise Unreadable(f"{MODEL_FILE} names a file by no name") from None
