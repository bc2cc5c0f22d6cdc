"""Every error that a client can meet: one ladder, one JSON shape.

A class carries its HTTP status, a code that programs may rely on, and a default hint that
says what to do. The body is always the flat object {"code", "message", "hint"}. Messages
speak of names, shapes, types and positions; never of tensor values or of file paths.

    body.py       400, what the body of a request says
    request.py    4xx, its head, its size, its key
    server.py     5xx

All are named here: `from service.errors import QueueFull`.
"""

from service.errors.base import *  # noqa: F403
from service.errors.body import *  # noqa: F403
from service.errors.request import *  # noqa: F403
from service.errors.server import *  # noqa: F403
