"""How an error looks in each protocol, told by the path alone.

ours                    {"code": ..., "message": ..., "hint": ...}
/v1, /v2                {"error": "<message> <hint>"}

Clients of Triton look at how the text begins when a model is not known.
"""

from __future__ import annotations

import orjson

from service.errors import BadRequest, EmptyBody, InvalidBody, ServiceError, UnknownModel

ONE_TEXT_PREFIXES = ("/v1/", "/v2/", "/v2")
# What our own bodies look like is no hint for those of another protocol.
_OUR_BODY = frozenset({EmptyBody.default_hint, InvalidBody.default_hint})
_ANY_BODY = BadRequest.default_hint
_OPENINGS = {UnknownModel.code: "Request for unknown model: "}


def error_body(path: str, error: ServiceError) -> bytes:
    """The JSON of an error for a request to `path`."""
    if path.startswith(ONE_TEXT_PREFIXES):
        return one_text(error)
    return orjson.dumps(error.body())


def one_text(error: ServiceError) -> bytes:
    """The form with one field."""
    return orjson.dumps({"error": text(error)})


def text(error: ServiceError) -> str:
    """Message and hint as one text, for protocols whose errors have one field."""
    hint = _ANY_BODY if error.hint in _OUR_BODY else error.hint
    return f"{_OPENINGS.get(error.code, '')}{error.message} {hint}".strip()
