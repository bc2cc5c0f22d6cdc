"""A model repository at an address: listed, read and written through fsspec.

fsspec and what it needs for a scheme are imported when an address is opened, and not before.
Each operation has a deadline of its own, whatever the library below does about retries: for
libraries with an event loop (S3, Google, Azure, HTTP) it is cancelled there; the others (hf://,
file://) have timeouts of their own or need none. Access is taken from where those libraries take
it, such as AWS_ACCESS_KEY_ID; no text that leaves here shows the secrets of an address.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import re
import time
from collections.abc import Callable
from typing import Any, TypeVar

from service.manifest import MANIFEST_FILE
from service.models.bundle import LONGEST_MANIFEST_BYTES
from service.models.folders import NAME, VERSION
from service.store.address import redacted, scheme

# Extras of this package that bring what fsspec needs for a scheme.
_EXTRAS = {
    "s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs", "az": "azure", "abfs": "azure",
    "abfss": "azure", "hf": "hf", "http": "store", "https": "store",
}  # fmt: skip
# Stores that list a whole tree in one request, or a few.
_FLAT = {"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "hf"}
# What tells whether a file has changed since it was listed before, as the stores call it.
_MARKS = ("ETag", "etag", "blob_id", "ino", "mtime", "last_modified", "size")
_FIRST_PAUSE_S = 0.1
_LONGEST_REASON = 300

T = TypeVar("T")
# What a listing says of each version: a mark that changes with its manifest, None if none is told.
Versions = dict[str, dict[int, str | None]]


class StoreUnusable(Exception):
    """The address cannot be used at all; the text says what to do."""


class StoreError(Exception):
    """The store did not do what it was asked for; the text is the reason."""


class Missing(StoreError):
    """There is nothing of that name."""


class Store:
    """The remote side.

    Args:
        address: anything fsspec reads.
        timeout_s: longest time for one operation, of `download.CHUNK_BYTES` at most.
        attempts: how often a list or a read is tried; None leaves that to the library, which
            tries writes again as well.

    Raises:
        StoreUnusable: the package for that scheme is not installed, or the address is wrong.
    """

    def __init__(self, address: str, timeout_s: float = 30.0, attempts: int | None = None) -> None:
        self.address = redacted(address)
        self._timeout_s = timeout_s
        self._attempts = attempts or 1
        self._flat = scheme(address) in _FLAT
        extra = _EXTRAS.get(scheme(address), "store")
        try:
            import fsspec
        except ImportError:
            raise StoreUnusable(
                f"{self.address} needs the extra [{extra}]: pip install 'foldserve[{extra}]'."
            ) from None
        try:
            self._fs, root = fsspec.core.url_to_fs(
                address,
                use_listings_cache=False,
                skip_instance_cache=True,
                **_once(address, timeout_s, attempts),
            )
        except ImportError as error:
            known = scheme(address) in _EXTRAS
            how = f"the extra [{extra}]: pip install 'foldserve[{extra}]'"
            raise StoreUnusable(
                f"{self.address} needs {how if known else f'another package: {_reason(error)}'}."
            ) from None
        except Exception as error:  # noqa: BLE001  each library has errors of its own
            raise StoreUnusable(f"{self.address} cannot be used: {_reason(error)}.") from None
        if attempts and hasattr(self._fs, "retries"):
            self._fs.retries = 1
        self.root = str(root).rstrip("/")

    def versions(self) -> Versions:
        """Every version that has a manifest, which is written last.

        Raises:
            StoreError: the store cannot be listed, all of it.
        """
        self._fs.invalidate_cache()
        return self._try(self._find if self._flat else self._walk)

    def read(self, path: str, start: int, end: int) -> bytes:
        """Bytes from `start` to `end` of a file below the root, or up to its end.

        A server that knows no ranges gives the whole file: more than was asked for.

        Raises:
            Missing: there is no such file.
            StoreError: it could not be read, each time.
        """
        return self._try(
            lambda: bytes(self.call("cat_file", f"{self.root}/{path}", start=start, end=end))
        )

    def manifest(self, name: str, version: int) -> bytes:
        """The bytes of a version's model.json.

        Raises:
            StoreError: as `read`, or it is larger than any manifest.
        """
        text = self.read(f"{name}/{version}/{MANIFEST_FILE}", 0, LONGEST_MANIFEST_BYTES + 1)
        if len(text) > LONGEST_MANIFEST_BYTES:
            raise StoreError(f"{MANIFEST_FILE} is larger than {LONGEST_MANIFEST_BYTES} bytes")
        return text

    def call(self, operation: str, *args: Any, timeout_s: float | None = None, **how: Any) -> Any:
        """An operation of fsspec, such as `ls`, with a deadline.

        Raises:
            Missing, StoreError: with the reason.
            FileExistsError: what was to be created is there.
        """
        limit = timeout_s or self._timeout_s
        try:
            if not getattr(self._fs, "async_impl", False):
                return getattr(self._fs, operation)(*args, **how)
            future = asyncio.run_coroutine_threadsafe(
                getattr(self._fs, f"_{operation}")(*args, **how), self._fs.loop
            )
            try:
                return future.result(limit)
            finally:
                future.cancel()
        except FileExistsError:
            raise
        except FileNotFoundError as error:
            raise Missing(_reason(error)) from None
        except (TimeoutError, concurrent.futures.TimeoutError):
            raise StoreError(f"no answer within {limit:g} s") from None
        except Exception as error:  # noqa: BLE001  each library has errors of its own
            raise StoreError(_reason(error)) from None

    def _try(self, operation: Callable[[], T]) -> T:
        """As often as was asked for; what is missing is missing."""
        for left in reversed(range(self._attempts)):
            try:
                return operation()
            except Missing:
                raise
            except StoreError:
                if not left:
                    raise
            time.sleep(_FIRST_PAUSE_S * 2 ** (self._attempts - left - 1))
        raise AssertionError

    def _find(self) -> Versions:
        found: Versions = {}
        for path, entry in self.call("find", self.root, detail=True).items():
            parts = str(path).removeprefix(f"{self.root}/").split("/")
            if len(parts) == 3 and parts[2] == MANIFEST_FILE:
                _add(found, parts[0], parts[1], entry)
        return found

    def _walk(self) -> Versions:
        """Level by level: a folder that cannot be listed must not look like an empty one."""
        found: Versions = {}
        for name in self._names(self.root, NAME):
            for version in self._names(f"{self.root}/{name}", VERSION):
                folder = f"{self.root}/{name}/{version}"
                for entry in self._list(folder):
                    if str(entry["name"]) == f"{folder}/{MANIFEST_FILE}":
                        _add(found, name, version, entry)
        return found

    def _names(self, path: str, pattern: re.Pattern[str]) -> list[str]:
        """What lies directly in a folder and is so called."""
        names = (
            str(entry["name"]).rstrip("/").removeprefix(f"{path}/")
            for entry in self._list(path)
            if entry["type"] == "directory"
        )
        return sorted({name for name in names if pattern.fullmatch(name)})

    def _list(self, path: str) -> list[dict[str, Any]]:
        try:
            entries: list[dict[str, Any]] = self.call("ls", path, detail=True)
        except Missing:
            if path == self.root:
                raise
            return []  # removed since the folder above was listed
        return entries


def _once(address: str, timeout_s: float, attempts: int | None) -> dict[str, Any]:
    """Options for the one library that would try for minutes where we count the attempts."""
    if attempts is None or scheme(address) not in {"s3", "s3a"}:
        return {}
    how = {"retries": {"total_max_attempts": 1}}
    return {"config_kwargs": {**how, "connect_timeout": timeout_s, "read_timeout": timeout_s}}


def _add(found: Versions, name: str, version: str, entry: dict[str, Any]) -> None:
    if NAME.fullmatch(name) and VERSION.fullmatch(version):
        marks = [str(entry[key]) for key in _MARKS if entry.get(key) is not None]
        told = len(marks) > 1 or (marks and entry.get("size") is None)  # a size alone is no mark
        found.setdefault(name, {})[int(version)] = " ".join(marks) if told else None


def _reason(error: Exception) -> str:
    text = str(error).strip().partition("\n")[0].rstrip(".") or type(error).__name__
    return redacted(text)[:_LONGEST_REASON]
