"""The log: one line for each event, on stderr; the mistakes of clients are no events.

    text    2026-01-31 12:00:00,000 INFO foldserve.registry: model m version 2 is served ...
    json    {"time": "2026-01-31T12:00:00.000Z", "level": "info", "logger": ..., "message": ...}

A line is an event: line ends inside a message are escaped, so that no client can add lines by a
name that it sends. Standard output belongs to the banner alone.
"""

from __future__ import annotations

import logging
import sys
from datetime import UTC, datetime
from typing import Any, Literal

import orjson

FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
# A record's attribute with what belongs to the event besides its message: {name: value}.
FIELDS = "foldserve_fields"


class HangUps(logging.Filter):
    """Drops the tracebacks that uvicorn logs when it answers a connection that has closed.

    A client that sends several requests at once and leaves before the answers makes one for
    each of them: on uvloop, writing to a closed connection is a RuntimeError.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        return not (isinstance(error, RuntimeError) and "the handler is closed" in str(error))


class Text(logging.Formatter):
    """For people. A traceback keeps its lines."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        record.message = record.message.replace("\r", "\\r").replace("\n", "\\n")
        return super().formatMessage(record)


class Json(logging.Formatter):
    """For machines: one object a line, tracebacks inside it."""

    def format(self, record: logging.LogRecord) -> str:
        when = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        event: dict[str, Any] = {
            "time": when.replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, FIELDS, {}),
        }
        if record.exc_info:
            event["exception"] = self.formatException(record.exc_info)
        return orjson.dumps(event, default=str).decode()


def configure(level: str, form: Literal["text", "json"] = "text") -> None:
    """Set up the root logger; `level` is a name such as "info"."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Json() if form == "json" else Text(FORMAT))
    logging.basicConfig(level=level.upper(), handlers=[handler])
    uvicorn = logging.getLogger("uvicorn.error")
    uvicorn.setLevel(logging.ERROR)  # its warnings are about malformed requests, which are counted
    uvicorn.addFilter(HangUps())
