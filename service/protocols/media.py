"""Media types: how the body of a prediction may come, and how its answer may go.

Content-Type                  the body
application/json              {"inputs": ...}; also without any Content-Type
application/x-npy             the one input as numpy.save writes it
application/octet-stream      the one input, little-endian; X-Shape and X-Dtype if need be

Accept                        the answer
application/x-npy             one output as numpy.load reads it
application/octet-stream      one output, little-endian, with X-Shape and X-Dtype
anything else                 JSON
"""

from __future__ import annotations

import functools
import re
from urllib.parse import unquote_plus

from service.errors import InvalidBody, NotAcceptable, UnsupportedMediaType, WrongType
from service.models.model import ServedModel
from service.signature import listing

JSON = "application/json"
NPY = "application/x-npy"
OCTETS = "application/octet-stream"
IMAGES = ("image/png", "image/jpeg")
MULTIPART = "multipart/form-data"
READABLE = (JSON, NPY, OCTETS, *IMAGES, MULTIPART)
BINARY = (NPY, OCTETS)

_JSON_LIKE = re.compile(r"application/[\w.+-]+\+json")
_CHARSET = re.compile(r';\s*charset\s*=\s*"?([^\s;"]*)', re.IGNORECASE)
_SHAPE = re.compile(rb"\s*\d{1,18}(\s*,\s*\d{1,18}){0,31}\s*,?\s*|\s*")


@functools.lru_cache(maxsize=64)
def of_body(content_type: bytes | None) -> str:
    """Which of READABLE a Content-Type means.

    Raises:
        UnsupportedMediaType: it means none of them, or JSON in another charset than UTF-8.
    """
    if not content_type or content_type == b"application/json":
        return JSON
    text = content_type.decode("latin-1")
    kind = text.partition(";")[0].strip().lower()
    if _JSON_LIKE.fullmatch(kind):
        kind = JSON
    if kind not in READABLE:
        raise UnsupportedMediaType(f"The Content-Type of the body is none of {listing(READABLE)}.")
    charset = _CHARSET.search(text)
    if kind == JSON and charset and charset[1].lower() not in {"utf-8", "utf8"}:
        raise UnsupportedMediaType("The charset of the body is not UTF-8, which JSON must be.")
    return kind


def of_answer(accept: bytes | None) -> str:
    """JSON, or the binary type that the client prefers to it (RFC 9110, section 12.5.1)."""
    if accept is None or accept in {b"*/*", b"application/json"}:
        return JSON
    quality = {"*/*": 0.0}
    for part in accept.decode("latin-1").lower().split(","):
        kind, *parameters = (piece.strip() for piece in part.split(";"))
        weights = [p[2:].strip() for p in parameters if p.startswith("q=")]
        try:
            quality[kind] = float(weights[0]) if weights else 1.0
        except ValueError:
            quality[kind] = 0.0
    any_of_it = max(quality["*/*"], quality.get("application/*", 0.0))
    best = max(BINARY, key=lambda kind: quality.get(kind, 0.0))
    return best if quality.get(best, 0.0) > quality.get(JSON, any_of_it) else JSON


def shape(header: bytes | None) -> list[int] | None:
    """The sizes of X-Shape, for example b"8, 3, 224, 224"; None without the header.

    Raises:
        InvalidBody: it is no list of sizes.
    """
    if header is None:
        return None
    if not _SHAPE.fullmatch(header):
        raise InvalidBody(
            "X-Shape is not a list of sizes.", hint="For example X-Shape: 1,3,224,224."
        )
    return [int(size) for size in header.split(b",") if size.strip()]


def check_dtype(header: bytes | None, expected: str) -> None:
    """Raises WrongType if X-Dtype is there and is not the dtype of the input."""
    if header is not None and header.strip() != expected.encode():
        raise WrongType(
            f"X-Dtype is {header[:16].decode('latin-1')!r}, the input is {expected}.",
            hint=f"Convert the tensor to {expected} before sending it.",
        )


def only_output(model: ServedModel, query: bytes) -> str:
    """The output that a binary answer carries: ?output=<name>, or the only one there is.

    Raises:
        NotAcceptable: the model has several and none was chosen, or not this one.
        UnknownOutput: this one is left out.
    """
    outputs = model.signature.outputs
    chosen = re.search(rb"(?:^|&)output=([^&]*)", query)
    name = unquote_plus(chosen[1].decode("latin-1")) if chosen else next(iter(outputs))
    if name in model.signature.left_out:
        raise model.signature.unknown_output(name)
    if name not in outputs or (chosen is None and len(outputs) > 1):
        raise NotAcceptable(
            f"A binary answer carries one output, and the model has {listing(outputs)}.",
            hint="Choose one with ?output=<name>, or accept JSON.",
        )
    return name
