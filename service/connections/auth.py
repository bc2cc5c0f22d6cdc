"""Who may ask: API keys for the predictions, admin keys for what changes the server.

    no --api-keys-file      everybody may predict
    --api-keys-file         `Authorization: Bearer <key>` or `X-API-Key: <key>`, else 401
    no --admin-keys-file    nobody may load or unload models: 403
    --admin-keys-file       an admin key, else 401; an admin key may predict as well

A key file has one key a line, and behind it, if you like, a name for the access log (without one
it is called after its line); blank lines and lines that begin with # are passed over. Only sha256
digests of the keys are kept, and a key is compared with all of them, each in constant time: the
time of an answer tells neither how much of a guess was right nor which key it was. A file that has
changed is read again (`Access.refresh`, once a second and on SIGHUP); one that cannot be read any
more leaves the keys as they were.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import re
from collections.abc import Callable, Iterable
from pathlib import Path

from service.errors import AdminClosed, Forbidden, Unauthorized

logger = logging.getLogger("foldserve.auth")

_NAME = re.compile(rb"[A-Za-z0-9._-]{1,64}")
# Printable ASCII without spaces: what survives in a header. Short keys can be guessed.
_KEY = re.compile(rb"[\x21-\x7e]{16,512}")
_LARGEST_FILE_BYTES = 1024 * 1024
_BEARER = b"bearer "
# Health is asked by those that have no keys: load balancers and orchestrators.
OPEN_PATHS = frozenset(
    f"{prefix}/health/{question}{slash}"
    for prefix in ("", "/v2")
    for question in ("live", "ready")
    for slash in ("", "/")
)


class KeysUnusable(Exception):
    """A key file cannot be used; the text says which and why, and quotes no key."""


class KeyFile:
    """The keys of one file.

    Args:
        path: the file.
        flag: the flag that named it, for messages.

    Raises:
        KeysUnusable: missing, empty, too large, or a line that is no key.
    """

    def __init__(self, path: Path, flag: str) -> None:
        self._path = path
        self._flag = flag
        self.failed: Callable[[], object] = lambda: None  # told of a change that cannot be used
        self._stamp, self._digests = self._read()

    def __len__(self) -> int:
        return len(self._digests)

    def holds(self, digest: bytes) -> bool:
        """Whether sha256 `digest` is one of a key; every key is compared."""
        found = False
        for known in self._digests:
            found |= hmac.compare_digest(known, digest)
        return found

    def name(self, digest: bytes) -> str:
        """What the key of that sha256 is called; "" for none of them."""
        return self._digests.get(digest, "")

    def refresh(self, *, force: bool = False) -> bool:
        """Read the file again if it has changed (or if forced to); whether it was read."""
        try:
            if not force and self._stamp == _stamp(self._path):
                return False
            self._stamp, self._digests = self._read()
        except (OSError, KeysUnusable) as error:
            if self._stamp is not None:  # said once, until it is readable again
                self.failed()
                logger.error("the keys stay as they were: %s", _sentence(error))
            self._stamp = None
            return False
        logger.info("%s was read again: %d keys", self._flag, len(self))
        return True

    def _read(self) -> tuple[tuple[int, int, int] | None, dict[bytes, str]]:
        try:
            stamp = _stamp(self._path)
            with self._path.open("rb") as file:
                content = file.read(_LARGEST_FILE_BYTES + 1)
        except OSError as error:
            raise KeysUnusable(f"{self._flag}: {error.strerror}.") from None
        if len(content) > _LARGEST_FILE_BYTES:
            raise KeysUnusable(f"{self._flag}: larger than {_LARGEST_FILE_BYTES} bytes.")
        digests: dict[bytes, str] = {}
        whose = self._flag.strip("-").partition("-")[0]
        for number, line in enumerate(content.splitlines(), 1):
            key, *name = line.split() or [b"#"]
            if key.startswith(b"#"):
                continue
            if not _KEY.fullmatch(key) or len(name) > 1 or not all(map(_NAME.fullmatch, name)):
                raise KeysUnusable(
                    f"{self._flag}: line {number} is not a key. A key has 16 to 512 printable "
                    "ASCII characters without spaces, for example from: openssl rand -hex 32; a "
                    "name of letters, digits, '.', '_' and '-' may stand behind it"
                )
            called = name[0].decode() if name else f"{whose}-line-{number}"
            digests[hashlib.sha256(key).digest()] = called
        if not digests:
            raise KeysUnusable(f"{self._flag}: the file has no key, so nobody could come in.")
        return stamp, digests


class Access:
    """What the routes ask. `require` for everything but health, `require_admin` on top."""

    def __init__(self, api: KeyFile | None = None, admin: KeyFile | None = None) -> None:
        self._api = api
        self._admin = admin
        self.generation = 0  # one more with each change of the keys

    @classmethod
    def of(cls, api_keys_file: Path | None, admin_keys_file: Path | None) -> Access:
        """Read the files that are set.

        Raises:
            KeysUnusable: one of them cannot be used.
        """
        return cls(
            KeyFile(api_keys_file, "--api-keys-file") if api_keys_file else None,
            KeyFile(admin_keys_file, "--admin-keys-file") if admin_keys_file else None,
        )

    @property
    def closed(self) -> bool:
        """Whether a key is needed to predict."""
        return self._api is not None

    def knows(self, key: bytes | None) -> bool:
        """Whether it is the key of somebody, or none is needed."""
        try:
            self.require(key)
        except Unauthorized:
            return False
        return True

    def name(self, key: bytes | None) -> str:
        """What a key is called in the access log; "" for one that is not known, or no key."""
        if key is None:
            return ""
        digest = hashlib.sha256(key).digest()
        names = [keys.name(digest) for keys in (self._api, self._admin) if keys is not None]
        return next(filter(None, names), "")

    def when_failed(self, failed: Callable[[], object]) -> None:
        """Have `failed` told of each changed file that cannot be used."""
        for keys in (self._api, self._admin):
            if keys is not None:
                keys.failed = failed

    def require(self, key: bytes | None) -> None:
        """For any request but health: `key` as `credentials` found it.

        Raises:
            Unauthorized: keys are in use, and this is none of them.
        """
        if self._api is None:
            return
        if key is None:
            raise Unauthorized("The request has no API key.")
        digest = hashlib.sha256(key).digest()
        # Both files are always compared, so that the time does not tell which one it was in.
        known = self._api.holds(digest)
        known |= self._admin is not None and self._admin.holds(digest)
        if not known:
            raise Unauthorized("The API key is not valid.")

    def require_admin(self, key: bytes | None) -> None:
        """For a request that changes the server: load, unload, reload.

        Raises:
            AdminClosed: the server has no admin keys, so nobody may.
            Unauthorized: no key, or none that is known.
            Forbidden: an API key, which is not enough.
        """
        if self._admin is None:
            raise AdminClosed("Models cannot be changed over the network on this server.")
        if key is None:
            raise Unauthorized("The request has no admin key.")
        digest = hashlib.sha256(key).digest()
        may = self._admin.holds(digest)
        known = self._api is not None and self._api.holds(digest)
        if may:
            return
        if known:
            raise Forbidden("This key may predict, but not change what is served.")
        raise Unauthorized("The admin key is not valid.")

    def refresh(self, *, force: bool = False) -> None:
        """Read again what has changed on disk."""
        for keys in (self._api, self._admin):
            if keys is not None and keys.refresh(force=force):
                self.generation += 1


def credentials(headers: Iterable[tuple[bytes, bytes]]) -> bytes | None:
    """The key of a request, from `X-API-Key` or `Authorization: Bearer`; None without one.

    Args:
        headers: names in lower case and values, as ASGI has them. (gRPC: its metadata.)
    """
    found: bytes | None = None
    for name, value in headers:
        if name == b"x-api-key":
            return value.strip()
        if name == b"authorization" and value[:7].lower() == _BEARER:
            found = value[7:].strip()
    return found


def _stamp(path: Path) -> tuple[int, int, int]:
    """Differs after every change, also when a link was turned to another file."""
    status = path.stat()
    return status.st_mtime_ns, status.st_size, status.st_ino


def _sentence(error: Exception) -> str:
    return str(error.strerror if isinstance(error, OSError) else error)
