"""The log: one line an event on stderr; what a client does to itself is no event.

Standard output belongs to the banner alone.
"""

from __future__ import annotations

import logging
import sys

FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


class HangUps(logging.Filter):
    """Drops the tracebacks that uvicorn logs when it answers a connection that has closed.

    A client that sends several requests at once and leaves before the answers makes one for
    each of them: on uvloop, writing to a closed connection is a RuntimeError.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        return not (isinstance(error, RuntimeError) and "the handler is closed" in str(error))


def configure(level: str) -> None:
    """Set up the root logger; `level` is a name such as "info"."""
    logging.basicConfig(level=level.upper(), format=FORMAT, stream=sys.stderr)
    uvicorn = logging.getLogger("uvicorn.error")
    uvicorn.setLevel(logging.ERROR)  # its warnings are what strangers send: counted, not logged
    uvicorn.addFilter(HangUps())
