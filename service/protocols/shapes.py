"""How an error looks in each protocol, told by the path alone.

ours                    {"code": ..., "message": ..., "hint": ...}
/v1, /v2                {"error": "<message> <hint>"}
"""

from __future__ import annotations

import orjson

from service.errors import ServiceError

ONE_TEXT_PREFIXES = ("/v1/", "/v2/", "/v2")


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
    return f"{error.message} {error.hint}".strip()
