"""The page that people try the service with: static files, without anything from elsewhere.

`GET /` answers a browser with the page and every other client with JSON. `GET /docs` is a second
page, which shows openapi.json and sends what it describes. The files lie in
`static/`, are read once, and are named in a closed table: no path from a request reaches the
file system. All their addresses are relative, so the page works behind a path prefix.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from importlib.resources import files
from types import MappingProxyType
from typing import NamedTuple

from starlette.requests import Request
from starlette.responses import Response

TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
PREFIX = "/playground/"
PAGE = "index.html"
DOCS = "docs.html"

# Scripts, styles and requests of this server alone; pictures that the user gave are blobs.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


class File(NamedTuple):
    """`etag` changes when the content does, so that a browser asks and gets 304."""

    content: bytes
    media_type: str
    etag: str


def _read() -> Mapping[str, File]:
    found = {}
    for item in files(__name__).joinpath("static").iterdir():
        suffix = item.name[item.name.rfind(".") :]
        if suffix in TYPES:
            content = item.read_bytes()
            etag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
            found[item.name] = File(content, TYPES[suffix], etag)
    return MappingProxyType(found)


FILES = _read()
# What a browser may fetch before the user has given a key.
PATHS = frozenset({"/", "/docs", *(PREFIX + name for name in FILES)})


def wanted(request: Request) -> bool:
    """Whether a client prefers the page to JSON: browsers name text/html, others do not."""
    return "text/html" in request.headers.get("accept", "")


def answer(request: Request, name: str) -> Response:
    """The file, or 304 if the browser has it. Raises KeyError for a name that is not there."""
    file = FILES[name]
    headers = {
        "etag": file.etag,
        "cache-control": "no-cache",
        "content-security-policy": POLICY,
        "referrer-policy": "no-referrer",
        "vary": "accept",
    }
    if request.headers.get("if-none-match") == file.etag:
        return Response(status_code=304, headers=headers)
    return Response(file.content, headers=headers, media_type=file.media_type)
