"""What is an address of a store, what is a folder, and what of an address may be shown."""

from __future__ import annotations

import re

_ADDRESS = re.compile(r"^([a-z][a-z0-9+.-]*)://.+", re.IGNORECASE)
# What stands for access in an address: user:password@ before the host, values after "?".
_USER = re.compile(r"([a-z][a-z0-9+.-]*://)[^/\s'\"@]*(?:@[^/\s'\"@]*)*@", re.IGNORECASE)
_PASSWORD = re.compile(r"(://[^/:@]*):[^/]*@")
_VALUE = re.compile(r"([?&][^=&\s'\"]+=)[^&\s'\"]+")


def is_address(text: str) -> bool:
    """Whether this names a remote store and no folder: `scheme://...`."""
    return bool(_ADDRESS.match(text))


def scheme(address: str) -> str:
    """In lower case: `s3` of `s3://bucket/models`."""
    found = _ADDRESS.match(address)
    return found[1].lower() if found else ""


def redacted(text: str) -> str:
    """Any text, such as an error, without the passwords and tokens of the addresses in it."""
    return _VALUE.sub(r"\1***", _USER.sub(r"\1***@", text))


def identity(address: str) -> str:
    """The same for the same place: neither a password nor a token is part of it."""
    return _PASSWORD.sub(r"\1@", address.partition("?")[0]).rstrip("/")
